// f16 weights, in pairs. No meta.
struct Block {
  index: u32,
}

fn loadBlock(index: u32) -> Block {
  return Block(index * 4u);
}

fn blockWeights(block: Block, j: u32) -> vec4<f32> {
  let words = weightQuants[block.index + (j >> 1u)];
  let pair = select(words.xy, words.zw, (j & 1u) == 1u);
  return vec4<f32>(unpack2x16float(pair.x), unpack2x16float(pair.y));
}
