// 8-bit weights (Q8_0): 32 signed bytes. Meta: {f16 scale}.
struct Block {
  index: u32,
  scale: f32,
}

fn loadBlock(index: u32) -> Block {
  return Block(index * 2u, f16ToF32(weightMeta[index] & 0xffffu));
}

fn blockWeights(block: Block, j: u32) -> vec4<f32> {
  return block.scale * vec4<f32>(unpack4xI8(weightQuants[block.index + (j >> 2u)][j & 3u]));
}
