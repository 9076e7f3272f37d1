// Paged attention: o = softmax(q k / sqrt(headDim)) v over one KV range of one row
//
// A thread takes one work item and PACK query heads of one KV head, which share every load of K and V.
// An item is {row, firstPosition, endPosition, partial}: ranges start at absolute multiples of KV_SPLIT, so a
// row's result does not depend on what else is in the batch. Softmax runs online, token by token. A row of one
// item writes its output; a row of several leaves {o, maximum, sum} for mergeAttention.wgsl.
// Masked positions are never visited: a range ends at the row's own position.
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
@group(0) @binding(5) var<storage, read_write> outputs: array<vec4<f32>>; // [rows][HEADS][HEAD_VECTORS]
@group(0) @binding(6) var<storage, read_write> partials: array<vec4<f32>>; // [partials][HEADS][HEAD_VECTORS + 1]

const NO_PARTIAL = 0xffffffffu;
const LOWEST = -3.0e38; // stands for minus infinity

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

#for h PACK
#for d HEAD_VECTORS
  let q$h_$d = queries[queryAt + $hu * HEAD_VECTORS + $du] * scale;
  var o$h_$d = vec4<f32>(0.0);
#end
  var maximum$h = LOWEST;
  var sum$h = 0.0;
#end

  for (var position = step[itemAt + 1u]; position < endPosition; position++) {
    let block = blockTables[tableAt + position / BLOCK_SIZE];
    let keyAt = kvIndex(block, 0u, kvHead, position % BLOCK_SIZE);
    let valueAt = kvIndex(block, 1u, kvHead, position % BLOCK_SIZE);
#for h PACK
    var dot$h = vec4<f32>(0.0);
#end
#for d HEAD_VECTORS
    let k$d = unpackKv(pool[keyAt + $du]);
#for h PACK
    dot$h = madd(q$h_$d, k$d, dot$h);
#end
#end
#for h PACK
    let score$h = horizontalSum(dot$h);
    if (score$h > maximum$h) {
      let shrink = exp(max(maximum$h - score$h, -80.0));
      maximum$h = score$h;
      sum$h *= shrink;
#for d HEAD_VECTORS
      o$h_$d *= shrink;
#end
    }
    let weight$h = exp(max(score$h - maximum$h, -80.0));
    sum$h += weight$h;
#end
#for d HEAD_VECTORS
    let v$d = unpackKv(pool[valueAt + $du]);
#for h PACK
    o$h_$d = madd(vec4<f32>(weight$h), v$d, o$h_$d);
#end
#end
  }

  if (partial == NO_PARTIAL) {
#for h PACK
    let inverse$h = select(0.0, 1.0 / sum$h, sum$h > 0.0);
#for d HEAD_VECTORS
    outputs[queryAt + $hu * HEAD_VECTORS + $du] = o$h_$d * inverse$h;
#end
#end
  } else {
    let partialAt = (partial * HEADS + firstHead) * (HEAD_VECTORS + 1u);
#for h PACK
#for d HEAD_VECTORS
    partials[partialAt + $hu * (HEAD_VECTORS + 1u) + $du] = o$h_$d;
#end
    partials[partialAt + $hu * (HEAD_VECTORS + 1u) + HEAD_VECTORS] = vec4<f32>(maximum$h, sum$h, 0.0, 0.0);
#end
  }
}
