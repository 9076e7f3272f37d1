// bf16 weights, in pairs: the upper halves of f32. No meta.
struct Block {
  index: u32,
}

fn loadBlock(index: u32) -> Block {
  return Block(index * 4u);
}

fn blockWeights(block: Block, j: u32) -> vec4<f32> {
  let words = weightQuants[block.index + (j >> 1u)];
  let pair = select(words.xy, words.zw, (j & 1u) == 1u);
  return bitcast<vec4<f32>>(vec4<u32>(pair.x << 16u, pair.x & 0xffff0000u, pair.y << 16u, pair.y & 0xffff0000u));
}
