// Paged attention as in attention.wgsl, by a workgroup: o = softmax(q k / sqrt(headDim)) v over one KV range of one row
//
// A workgroup takes one work item and PACK query heads of one KV head. Items, ranges and outputs are those of
// attention.wgsl, and mergeAttention.wgsl joins the partial states of both. A range has at most SPLIT tokens:
// all of its scores are kept, and softmax needs no second maximum.
//   1. a lane scores every 64th token for all heads of the pack;
//   2. the maximum over lanes, by eighths; the lanes turn their own scores into weights;
//   3. GROUPS groups of HEAD_VECTORS lanes sum up V, a lane one vector of 4 dimensions over every GROUPS-th token;
//   4. the groups' sums are added in ascending order. They take the place of the weights.
// Each sum has one order, whatever else is in the batch.
//
// grid: (GRID_WIDTH, ceil(items * PACKS / GRID_WIDTH)) workgroups, or (items * PACKS) if they are fewer;
// PACKS = HEADS / PACK
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

// Constants, where the compiler can't see them: loops of a known length are unrolled by some drivers, which then
// take their time to compile this kernel.
struct Lengths {
  headVectors: u32, // HEAD_VECTORS
  eighths: u32, // EIGHTHS
  groups: u32, // GROUPS
}
@group(0) @binding(11) var<uniform> lengths: Lengths;

const NO_PARTIAL = 0xffffffffu;
const LOWEST = -3.0e38; // stands for minus infinity
const LANES = 64u;

var<workgroup> weights: array<f32, PACK * SPLIT>; // scores, then weights; then sums of V, [PACK][LANES][4]
var<workgroup> valuesAt: array<u32, SPLIT>; // where V of a token is in the pool
var<workgroup> laneStates: array<f32, PACK * LANES>; // maxima, then sums; [PACK][LANES]
var<workgroup> maxima: array<f32, PACK * EIGHTHS>; // [PACK][EIGHTHS]
var<workgroup> sums: array<f32, PACK * EIGHTHS>; // [PACK][EIGHTHS]

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  const PACKS = HEADS / PACK;
  let index = workgroup.y * GRID_WIDTH + workgroup.x;
  let item = index / PACKS;
  let firstHead = (index % PACKS) * PACK;
  if (item >= header.numItems) { return; }
  let itemAt = header.itemsAt + item * 4u;
  let row = step[itemAt];
  let firstPosition = step[itemAt + 1u];
  let count = step[itemAt + 2u] - firstPosition;
  let partial = step[itemAt + 3u];
  let tableAt = step[header.rowsAt + row * 4u] * TABLE_BLOCKS;
  let kvHead = firstHead / (HEADS / KV_HEADS);
  let scale = inverseSqrt(f32(HEAD_VECTORS * 4u));
  let queryAt = (row * HEADS + firstHead) * HEAD_VECTORS;
  // Whole turns of step 3: what is behind the range weighs nothing.
  const TURN = 4u * GROUPS;
  let padded = (count + TURN - 1u) / TURN * TURN;

#for h PACK
  var laneMaximum$h = LOWEST;
#end
  for (var i = lane; i < padded; i += LANES) {
    let position = firstPosition + min(i, count - 1u);
    let block = blockTables[tableAt + position / BLOCK_SIZE];
    valuesAt[i] = kvIndex(block, 1u, kvHead, position % BLOCK_SIZE);
    if (i < count) {
      let keyAt = kvIndex(block, 0u, kvHead, position % BLOCK_SIZE);
#for h PACK
      var dot$h = vec4<f32>(0.0);
#end
      // Several loads at a time: the next needs nothing of the one before.
      for (var d = 0u; d < lengths.headVectors; d += UNROLL) {
#for u UNROLL
        let k$u = unpackKv(pool[keyAt + d + $uu]);
#end
#for u UNROLL
#for h PACK
        dot$h = madd(queries[queryAt + $hu * HEAD_VECTORS + d + $uu], k$u, dot$h);
#end
#end
      }
#for h PACK
      let score$h = horizontalSum(dot$h) * scale;
      weights[$hu * SPLIT + i] = score$h;
      laneMaximum$h = max(laneMaximum$h, score$h);
#end
    }
  }
#for h PACK
  laneStates[$hu * LANES + lane] = laneMaximum$h;
#end
  workgroupBarrier();

  // Lane 8 h + e: an eighth of the lanes of head h.
  if (lane < PACK * EIGHTHS) {
    var maximum = LOWEST;
    for (var i = 0u; i < lengths.eighths; i++) {
      maximum = max(maximum, laneStates[lane * EIGHTHS + i]);
    }
    maxima[lane] = maximum;
  }
  workgroupBarrier();

#for h PACK
  var maximum$h = LOWEST;
  for (var i = 0u; i < lengths.eighths; i++) {
    maximum$h = max(maximum$h, maxima[$hu * EIGHTHS + i]);
  }
  var laneSum$h = 0.0;
#end
  for (var i = lane; i < padded; i += LANES) {
    let isVisible = i < count;
#for h PACK
    let score$h = select(LOWEST, weights[$hu * SPLIT + i], isVisible);
    let weight$h = select(0.0, exp(max(score$h - maximum$h, -80.0)), isVisible);
    weights[$hu * SPLIT + i] = weight$h;
    laneSum$h += weight$h;
#end
  }
#for h PACK
  laneStates[$hu * LANES + lane] = laneSum$h;
#end
  workgroupBarrier();

  if (lane < PACK * EIGHTHS) {
    var sum = 0.0;
    for (var i = 0u; i < lengths.eighths; i++) {
      sum += laneStates[lane * EIGHTHS + i];
    }
    sums[lane] = sum;
  }
  let group = lane / HEAD_VECTORS;
  let vector = lane % HEAD_VECTORS;
#for h PACK
  var o$h = vec4<f32>(0.0);
#end
  if (group < GROUPS) {
    for (var i = group; i < padded; i += TURN) {
#for u FOUR
      let v$u = unpackKv(pool[valuesAt[i + $uu * GROUPS] + vector]);
#end
#for u FOUR
#for h PACK
      o$h = madd(vec4<f32>(weights[$hu * SPLIT + i + $uu * GROUPS]), v$u, o$h);
#end
#end
    }
  }

  workgroupBarrier();
#for h PACK
  let sumAt$h = ($hu * LANES + lane) * 4u;
  weights[sumAt$h] = o$h.x;
  weights[sumAt$h + 1u] = o$h.y;
  weights[sumAt$h + 2u] = o$h.z;
  weights[sumAt$h + 3u] = o$h.w;
#end
  workgroupBarrier();

  let isWhole = partial == NO_PARTIAL;
  let partialAt = (MAX_ROWS * HEADS) * HEAD_VECTORS + (partial * HEADS + firstHead) * (HEAD_VECTORS + 1u);
  let outputAt = select(partialAt, queryAt, isWhole);
  let outputStride = select(HEAD_VECTORS + 1u, HEAD_VECTORS, isWhole); // between heads
  for (var i = lane; i < PACK * HEAD_VECTORS; i += LANES) {
    let head = i / HEAD_VECTORS;
    let at = i % HEAD_VECTORS;
    var total = vec4<f32>(0.0);
    for (var g = 0u; g < lengths.groups; g++) {
      let place = (head * LANES + g * HEAD_VECTORS + at) * 4u;
      total += vec4<f32>(weights[place], weights[place + 1u], weights[place + 2u], weights[place + 3u]);
    }
    var maximum = LOWEST;
    var sum = 0.0;
    for (var e = 0u; e < lengths.eighths; e++) {
      maximum = max(maximum, maxima[head * EIGHTHS + e]);
      sum += sums[head * EIGHTHS + e];
    }
    if (isWhole) {
      total *= select(0.0, 1.0 / sum, sum > 0.0);
    } else if (at == 0u) {
      outputs[outputAt + head * outputStride + HEAD_VECTORS] = vec4<f32>(maximum, sum, 0.0, 0.0);
    }
    outputs[outputAt + head * outputStride + at] = total;
  }
}
