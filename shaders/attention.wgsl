// Paged attention: o = softmax(q k / sqrt(headDim)) v over one KV range of one row
//
// A thread takes one work item and PACK query heads of one KV head, which share every load of K and V.
// An item is {row, firstPosition, endPosition, partial}: ranges start at absolute multiples of KV_SPLIT, so a
// row's result does not depend on what else is in the batch. Softmax runs online, SPAN tokens at a time.
// The weighted sum of V is kept in `outputs` itself: one thread owns its part, and accumulators in registers
// (PACK * headDim of them) cost some compilers minutes. A row of one item leaves its output; a row of several
// leaves {o, maximum, sum} in the partials, which lie behind the rows, for mergeAttention.wgsl.
// Masked positions are never read: a range ends at the row's own position.
//
// grid: (ceil(items * PACKS / 64)); PACKS = HEADS / PACK
#include "common/step.wgsl"
#include "common/madd.wgsl"
#include "common/kvPool.wgsl"

@group(0) @binding(2) var<storage, read> queries: array<vec4<f32>>; // [rows][HEADS][HEAD_VECTORS]
#if KV_F16
@group(0) @binding(3) var<storage, read> pool: array<vec2<u32>>;
#else
@group(0) @binding(3) var<storage, read> pool: array<vec4<f32>>;
#end
@group(0) @binding(4) var<storage, read> blockTables: array<u32>; // [maxSequences][TABLE_BLOCKS]
// [MAX_ROWS][HEADS][HEAD_VECTORS], then [partials][HEADS][HEAD_VECTORS + 1]
@group(0) @binding(5) var<storage, read_write> outputs: array<vec4<f32>>;

// HEAD_VECTORS again, where the compiler can't see it: loops of a known length are unrolled by some drivers, which
// then take a minute to compile this kernel.
@group(0) @binding(11) var<uniform> headVectors: u32;

const NO_PARTIAL = 0xffffffffu;
const LOWEST = -3.0e38; // stands for minus infinity
const SPAN = SPAN_TOKENS; // divides every block size

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  const PACKS = HEADS / PACK;
  let item = id.x / PACKS;
  let firstHead = (id.x % PACKS) * PACK;
  if (item >= header.numItems) { return; }
  let itemAt = header.itemsAt + item * 4u;
  let row = step[itemAt];
  let endPosition = step[itemAt + 2u];
  let partial = step[itemAt + 3u];
  let tableAt = step[header.rowsAt + row * 4u] * TABLE_BLOCKS;
  let kvHead = firstHead / (HEADS / KV_HEADS);
  let scale = inverseSqrt(f32(HEAD_VECTORS * 4u));
  let queryAt = (row * HEADS + firstHead) * HEAD_VECTORS;
  let isWhole = partial == NO_PARTIAL;
  let partialAt = (MAX_ROWS * HEADS) * HEAD_VECTORS + (partial * HEADS + firstHead) * (HEAD_VECTORS + 1u);
  let outputAt = select(partialAt, queryAt, isWhole);
  let outputStride = select(HEAD_VECTORS + 1u, HEAD_VECTORS, isWhole); // between heads

#for h PACK
  var maximum$h = LOWEST;
  var sum$h = 0.0;
#end

  let firstPosition = step[itemAt + 1u];
  for (var position = firstPosition; position < endPosition; position += SPAN) {
    let block = blockTables[tableAt + position / BLOCK_SIZE];
    let keyAt = kvIndex(block, 0u, kvHead, position % BLOCK_SIZE);
    let valueAt = kvIndex(block, 1u, kvHead, position % BLOCK_SIZE);
    let last = min(SPAN, endPosition - position) - 1u; // of the span's tokens
#for t SPAN_TOKENS
    let slot$t = min($tu, last) * HEAD_VECTORS;
#for h PACK
    var dot$h_$t = vec4<f32>(0.0);
#end
#end
    for (var d = 0u; d < headVectors; d++) {
#for h PACK
      let q$h = queries[queryAt + $hu * HEAD_VECTORS + d];
#end
#for t SPAN_TOKENS
      let k$t = unpackKv(pool[keyAt + slot$t + d]);
#for h PACK
      dot$h_$t = madd(q$h, k$t, dot$h_$t);
#end
#end
    }
#for h PACK
    var scores$h = vec4<f32>(horizontalSum(dot$h_0), horizontalSum(dot$h_1), horizontalSum(dot$h_2),
      horizontalSum(dot$h_3)) * scale;
    let visible$h = vec4<u32>(0u, 1u, 2u, 3u) <= vec4<u32>(last);
    scores$h = select(vec4<f32>(LOWEST), scores$h, visible$h);
    let newMaximum$h = max(maximum$h, max(max(scores$h.x, scores$h.y), max(scores$h.z, scores$h.w)));
    let shrink$h = exp(max(maximum$h - newMaximum$h, -80.0));
    let spread$h = exp(max(scores$h - newMaximum$h, vec4<f32>(-80.0)));
    let weights$h = select(vec4<f32>(0.0), spread$h, visible$h);
    sum$h = sum$h * shrink$h + horizontalSum(weights$h);
    maximum$h = newMaximum$h;
#end
    for (var d = 0u; d < headVectors; d++) {
#for t SPAN_TOKENS
      let v$t = unpackKv(pool[valueAt + slot$t + d]);
#end
#for h PACK
      let at$h = outputAt + $hu * outputStride + d;
      var o$h = vec4<f32>(0.0);
      if (position > firstPosition) { o$h = outputs[at$h] * shrink$h; }
      o$h = madd(vec4<f32>(weights$h.x), v0, o$h);
      o$h = madd(vec4<f32>(weights$h.y), v1, o$h);
      o$h = madd(vec4<f32>(weights$h.z), v2, o$h);
      o$h = madd(vec4<f32>(weights$h.w), v3, o$h);
      outputs[at$h] = o$h;
#end
    }
  }

#for h PACK
  if (isWhole) {
    let inverse = select(0.0, 1.0 / sum$h, sum$h > 0.0);
    for (var d = 0u; d < headVectors; d++) {
      outputs[outputAt + $hu * outputStride + d] *= inverse;
    }
  } else {
    outputs[outputAt + $hu * outputStride + HEAD_VECTORS] = vec4<f32>(maximum$h, sum$h, 0.0, 0.0);
  }
#end
}
