// y = silu(gate) * up, for gate and up matrices of different tensor types, which linear.wgsl can't fuse
//
// grid: (ceil(rows * WIDTH_VECTORS / 64))
#include "common/step.wgsl"

@group(0) @binding(2) var<storage, read> gate: array<vec4<f32>>; // [rows][WIDTH_VECTORS]
@group(0) @binding(3) var<storage, read> up: array<vec4<f32>>; // [rows][WIDTH_VECTORS]
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>; // [rows][WIDTH_VECTORS]

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= header.numRows * WIDTH_VECTORS) { return; }
  let value = gate[id.x];
  // exp's argument is bounded: no infinity, and silu(-80) is 0 in f32 all the same.
  y[id.x] = value / (1.0 + exp(min(-value, vec4<f32>(80.0)))) * up[id.x];
}
