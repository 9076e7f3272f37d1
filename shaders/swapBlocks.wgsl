// OUT: staging[i][layer] = pool[layer][blocks[i]]; else the other way: K and V whole, in all layers of a window
//
// A thread moves 16 bytes.
//
// grid: (ceil(shape.blockVectors / 64), layers of the window, blocks)
@group(0) @binding(0) var<storage, read> blocks: array<u32>; // [blocks]
#if OUT
@group(0) @binding(1) var<storage, read> pool: array<vec4<u32>>; // [layers][numBlocks][blockVectors]
@group(0) @binding(2) var<storage, read_write> staging: array<vec4<u32>>; // [blocks][layers][blockVectors]
#else
@group(0) @binding(1) var<storage, read_write> pool: array<vec4<u32>>; // [layers][numBlocks][blockVectors]
@group(0) @binding(2) var<storage, read> staging: array<vec4<u32>>; // [blocks][layers][blockVectors]
#end

struct Shape {
  blockVectors: u32, // 16 bytes each, of a block in one layer
  layerVectors: u32, // from a layer to the next in the pool
  numLayers: u32, // of the window
}
@group(0) @binding(11) var<uniform> shape: Shape;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= shape.blockVectors) { return; }
  let inPool = id.y * shape.layerVectors + blocks[id.z] * shape.blockVectors + id.x;
  let inStaging = (id.z * shape.numLayers + id.y) * shape.blockVectors + id.x;
#if OUT
  staging[inStaging] = pool[inPool];
#else
  pool[inPool] = staging[inStaging];
#end
}
