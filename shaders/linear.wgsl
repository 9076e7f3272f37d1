// y[row, n] = sum_k W[n, k] x[row, k]
//
// A thread makes 4 outputs n for TOKENS rows; the weights are dequantised once for all of the rows.
// K runs in chunks of CHUNK_BLOCKS blocks of 32: a vec4 accumulator a chunk, added to the total at its end.
// Order and grouping are the same for every TOKENS, so a row's bits do not depend on its batch.
//
// NORM: x is the stream times the norm's weight; the result is multiplied by invRms(row).
// GATHER: only the sampled and scored rows; row s of y is made from row samples[s].row of x.
// BIAS: y += bias[n].
// Sizes come as a uniform, so that one pipeline serves all layers of a tensor type.
// One output form:
// - STORE: y[row, n], rows of `stride` floats
// - GATE: y[row, n] = silu(gate) * up; the 4 rows of a thread are 2 of the gate and 2 of the up matrix
// - ADD: stream[row, n] += y; scaled = stream * gain of the next norm; squares = a group's sum of squares
// SLICES: so many threads of a workgroup make the 4 outputs together, each every SLICES-th chunk of K. Their sums
// are added in the order of the chunks: the bits are those of one thread.
// NORM_SLICES: the norm's sum of squares is made of so many sums, of every NORM_SLICES-th vector each, as the threads
// with slices make it.
//
// grid: (ceil(shape.groups * SLICES / 64), ceil(rows / TOKENS)); without SLICES no workgroup memory, no barrier
#include "common/step.wgsl"
#include "common/madd.wgsl"
#include "common/f16.wgsl"
#include "common/weights.wgsl"

struct Shape {
  blocks: u32, // of 32 along K
  paddedRows: u32, // of this window of the matrix
  rows: u32, // of this window
  firstRow: u32, // of the window in the matrix
  groups: u32, // threads along x
  stride: u32, // floats a row of the output
  firstColumn: u32, // of the output, for the matrix's first row
  normVectors: u32, // of 4 sums of squares each, a row of the normed stream
  epsilonBits: u32, // of the norm, as f32
  blockVectors: u32, // 8, where the compiler can't see it: some drivers unroll loops of a known length and then
  // take many seconds over the larger variants
}
@group(0) @binding(11) var<uniform> shape: Shape;

@group(0) @binding(4) var<storage, read> x: array<vec4<f32>>; // [rows][blocks * 8]
#if NORM
@group(0) @binding(5) var<storage, read> squares: array<vec4<f32>>; // [rows][NORM_VECTORS]
#include "common/invRms.wgsl"
#end
#if SLICES
const GROUPS = 64u / SLICES; // of 4 outputs, a workgroup
var<workgroup> chunkSums: array<vec4<f32>, SLICES * TOKENS * GROUPS>; // [SLICES][TOKENS][GROUPS]
#if NORM
var<workgroup> squareSums: array<f32, SLICES * TOKENS * GROUPS>;
#end
#end
#if BIAS
@group(0) @binding(6) var<storage, read> bias: array<f32>; // [outputs]
#end
#if STORE
@group(0) @binding(7) var<storage, read_write> y: array<f32>; // [rows][stride]
#end
#if GATE
@group(0) @binding(7) var<storage, read_write> y: array<vec2<f32>>; // [rows][stride / 2]
#end
#if ADD
@group(0) @binding(7) var<storage, read_write> stream: array<vec4<f32>>; // [rows][stride / 4]
@group(0) @binding(8) var<storage, read> gain: array<vec4<f32>>; // [stride / 4]
@group(0) @binding(9) var<storage, read_write> scaled: array<vec4<f32>>; // [rows][stride / 4]
@group(0) @binding(10) var<storage, read_write> partSquares: array<f32>; // [rows][stride / 4]
#end

// Row of x that row `row` of the outputs is made from.
fn inputRow(row: u32) -> u32 {
#if GATHER
  return step[header.samplesAt + row * 4u];
#else
  return row;
#end
}

@compute @workgroup_size(64)
fn main(
  @builtin(global_invocation_id) id: vec3<u32>,
  @builtin(workgroup_id) workgroup: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
#if GATHER
  let numRows = header.numLogits;
#else
  let numRows = header.numRows;
#end
  let firstRow = workgroup.y * TOKENS; // the same for all threads of a workgroup, so loads of x can be scalar
#if SLICES
  if (firstRow >= numRows) { return; }
  let slice = lane / GROUPS;
  let own = workgroup.x * GROUPS + lane % GROUPS;
  let group = min(own, shape.groups - 1u); // all lanes meet at the barriers
#else
  let group = id.x;
  if (group >= shape.groups || firstRow >= numRows) { return; }
#end

#if GATE
  // Rows 0, 1 of the thread are gate rows, 2 and 3 the same rows of the up matrix, which follows the gate's.
  let n = group * 2u;
  let base0 = tileBase(n, shape.blocks);
  let base1 = base0 + 1u;
  let base2 = base0 + shape.paddedRows * shape.blocks;
  let base3 = base2 + 1u;
#else
  let n = group * 4u;
  let base0 = tileBase(n, shape.blocks);
  let base1 = base0 + 1u;
  let base2 = base0 + 2u;
  let base3 = base0 + 3u;
#end
  let stride = tileStride(n, shape.paddedRows);

#for t TOKENS
  let x$t = inputRow(min(firstRow + $tu, numRows - 1u)) * (shape.blocks * 8u);
#end
  // blockVectors / 8 is 1: more lengths that the compiler can't see.
  let tokens = TOKENS * (shape.blockVectors / 8u);
#if SLICES
  let slices = SLICES * (shape.blockVectors / 8u);
  // Row t belongs to slice t % SLICES, which adds up what all slices have of it.
  var totals: array<vec4<f32>, (TOKENS + SLICES - 1u) / SLICES>; // [own rows] of 4 outputs
#if NORM
  for (var t = 0u; t < tokens; t++) {
    let row = inputRow(min(firstRow + t, numRows - 1u));
    squareSums[(slice * TOKENS + t) * GROUPS + lane % GROUPS] = squaresOf(row, slice);
  }
#end
  for (var round = 0u; round < shape.blocks; round += CHUNK_BLOCKS * SLICES) {
    var kb = min(round + slice * CHUNK_BLOCKS, shape.blocks);
#else
  var totals: array<vec4<f32>, TOKENS>; // [rows] of 4 outputs
  var kb = 0u;
  while (kb < shape.blocks) {
#end
    let chunkEnd = min(kb + CHUNK_BLOCKS, shape.blocks);
#for t TOKENS
#for r FOUR
    var sum$t_$r = vec4<f32>(0.0);
#end
#end
    for (; kb < chunkEnd; kb++) {
#for r FOUR
      let block$r = loadBlock(base$r + kb * stride);
#end
      for (var j = 0u; j < shape.blockVectors; j++) {
#for r FOUR
        let w$r = blockWeights(block$r, j);
#end
#for t TOKENS
        let v$t = x[x$t + kb * 8u + j];
#for r FOUR
        sum$t_$r = madd(w$r, v$t, sum$t_$r);
#end
#end
      }
    }
#for t TOKENS
    let chunk$t = vec4<f32>(horizontalSum(sum$t_0), horizontalSum(sum$t_1), horizontalSum(sum$t_2),
      horizontalSum(sum$t_3));
#end
#if SLICES
#for t TOKENS
    chunkSums[(slice * TOKENS + $tu) * GROUPS + lane % GROUPS] = chunk$t;
#end
    workgroupBarrier();
    for (var t = slice; t < tokens; t += SLICES) {
      for (var i = 0u; i < slices; i++) {
        totals[t / SLICES] += chunkSums[(i * TOKENS + t) * GROUPS + lane % GROUPS];
      }
    }
    workgroupBarrier();
#else
#for t TOKENS
    totals[$t] += chunk$t;
#end
#end
  }

  let outputs = n + shape.firstRow;
  let count = min(tokens, numRows - firstRow);
#if SLICES
  if (own >= shape.groups) { return; }
  for (var t = slice; t < count; t += SLICES) {
#else
  for (var t = 0u; t < count; t++) {
#end
    let outputRow = firstRow + t;
#if SLICES
    var result = totals[t / SLICES];
#else
    var result = totals[t];
#end
#if NORM
#if SLICES
    var sumOfSquares = squareSums[t * GROUPS + lane % GROUPS];
    for (var i = 1u; i < slices; i++) {
      sumOfSquares += squareSums[(i * TOKENS + t) * GROUPS + lane % GROUPS];
    }
    result *= invRms(sumOfSquares);
#else
    var sumOfSquares = squaresOf(inputRow(outputRow), 0u);
    for (var i = 1u; i < NORM_SLICES; i++) {
      sumOfSquares += squaresOf(inputRow(outputRow), i);
    }
    result *= invRms(sumOfSquares);
#end
#end
#if BIAS
    result += vec4<f32>(bias[outputs], bias[outputs + 1u], bias[outputs + 2u], bias[outputs + 3u]);
#end
#if STORE
    for (var i = 0u; i < min(4u, shape.rows - n); i++) {
      y[outputRow * shape.stride + shape.firstColumn + outputs + i] = result[i];
    }
#end
#if GATE
    // exp's argument is bounded: no infinity, and silu(-80) is 0 in f32 all the same.
    let gate = result.xy / (1.0 + exp(min(-result.xy, vec2<f32>(80.0))));
    y[(outputRow * shape.stride + outputs) / 2u] = gate * result.zw;
#end
#if ADD
    let at = (outputRow * shape.stride + outputs) / 4u;
    let sum = stream[at] + result;
    stream[at] = sum;
    scaled[at] = sum * gain[outputs / 4u];
    partSquares[at] = horizontalSum(sum * sum);
#end
  }
}
