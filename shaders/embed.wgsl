// stream[row, :] = table[token, :], with the scaled copy and sums of squares that the first norm reads
//
// A thread dequantises one block of 32. A row of SAMPLED_TOKEN takes the id last sampled for its slot.
// One launch for each window of table rows; a thread whose token lies in another window does nothing.
//
// grid: (ceil(rows * blocks / 64))
#include "common/step.wgsl"
#include "common/madd.wgsl"
#include "common/f16.wgsl"
#include "common/weights.wgsl"

@group(0) @binding(4) var<storage, read> lastTokens: array<u32>; // [maxSequences]
@group(0) @binding(7) var<storage, read_write> stream: array<vec4<f32>>; // [rows][blocks * 8]
@group(0) @binding(8) var<storage, read> gain: array<vec4<f32>>; // [blocks * 8]
@group(0) @binding(9) var<storage, read_write> scaled: array<vec4<f32>>; // [rows][blocks * 8]
@group(0) @binding(10) var<storage, read_write> partSquares: array<f32>; // [rows][blocks * 8]

struct Shape {
  blocks: u32, // of 32 along K
  paddedRows: u32, // of this window of the table
  rows: u32, // of this window
  firstRow: u32, // of the window in the table
}
@group(0) @binding(11) var<uniform> shape: Shape;

const SAMPLED_TOKEN = 0xffffffffu;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let row = id.x / shape.blocks;
  let kb = id.x % shape.blocks;
  if (row >= header.numRows) { return; }
  let at = header.rowsAt + row * 4u;
  var token = step[at + 1u];
  if (token == SAMPLED_TOKEN) { token = lastTokens[step[at]]; }
  if (token < shape.firstRow || token >= shape.firstRow + shape.rows) { return; }
  let n = token - shape.firstRow;
  let block = loadBlock(tileBase(n, shape.blocks) + kb * tileStride(n, shape.paddedRows));
  for (var j = 0u; j < 8u; j++) {
    let column = kb * 8u + j;
    let value = blockWeights(block, j);
    let out = row * shape.blocks * 8u + column;
    stream[out] = value;
    scaled[out] = value * gain[column];
    partSquares[out] = horizontalSum(value * value);
  }
}
