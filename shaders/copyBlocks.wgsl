// pool[layer][target] = pool[layer][source] for the step's block copies: K and V whole, in all layers of a window
//
// A thread moves 16 bytes. No block is the source of one copy and the target of another, so the order of threads
// does not matter.
//
// grid: (ceil(shape.blockVectors / 64), layers of the window, copies)
#include "common/step.wgsl"

@group(0) @binding(2) var<storage, read_write> pool: array<vec4<u32>>; // [layers][numBlocks][blockVectors]

struct Shape {
  blockVectors: u32, // 16 bytes each, of a block in one layer
  layerVectors: u32, // from a layer to the next
}
@group(0) @binding(11) var<uniform> shape: Shape;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= shape.blockVectors || id.z >= header.numCopies) { return; }
  let at = header.copiesAt + id.z * 2u;
  let layerAt = id.y * shape.layerVectors + id.x;
  pool[layerAt + step[at + 1u] * shape.blockVectors] = pool[layerAt + step[at] * shape.blockVectors];
}
