// f32 weights. No meta.
struct Block {
  index: u32,
}

fn loadBlock(index: u32) -> Block {
  return Block(index * 8u);
}

fn blockWeights(block: Block, j: u32) -> vec4<f32> {
  return bitcast<vec4<f32>>(weightQuants[block.index + j]);
}
