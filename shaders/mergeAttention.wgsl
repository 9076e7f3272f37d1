// o = sum_i w_i o_i / sum_i w_i s_i, w_i = exp(maximum_i - maximum): joins the partial attentions of rows that
// have several, in ascending order of their KV ranges
//
// A thread makes one vector of 4 elements of one head of one row.
//
// grid: (ceil(merges * HEADS * HEAD_VECTORS / 64))
#include "common/step.wgsl"
#include "common/madd.wgsl"

// [MAX_ROWS][HEADS][HEAD_VECTORS], then [partials][HEADS][HEAD_VECTORS + 1]
@group(0) @binding(2) var<storage, read_write> outputs: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let vector = id.x % HEAD_VECTORS;
  let head = (id.x / HEAD_VECTORS) % HEADS;
  let merge = id.x / (HEAD_VECTORS * HEADS);
  if (merge >= header.numMerges) { return; }
  let mergeAt = header.mergesAt + merge * 4u;
  let row = step[mergeAt];
  let count = step[mergeAt + 2u];
  const STRIDE = HEADS * (HEAD_VECTORS + 1u);
  let first = MAX_ROWS * HEADS * HEAD_VECTORS + step[mergeAt + 1u] * STRIDE + head * (HEAD_VECTORS + 1u);

  var maximum = outputs[first + HEAD_VECTORS].x;
  for (var i = 1u; i < count; i++) {
    maximum = max(maximum, outputs[first + i * STRIDE + HEAD_VECTORS].x);
  }
  var sum = 0.0;
  var o = vec4<f32>(0.0);
  for (var i = 0u; i < count; i++) {
    let at = first + i * STRIDE;
    let state = outputs[at + HEAD_VECTORS];
    let weight = exp(max(state.x - maximum, -80.0));
    sum += weight * state.y;
    o = madd(vec4<f32>(weight), outputs[at + vector], o);
  }
  outputs[(row * HEADS + head) * HEAD_VECTORS + vector] = o * select(0.0, 1.0 / sum, sum > 0.0);
}
