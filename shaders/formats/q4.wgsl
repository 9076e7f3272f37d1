// 4-bit weights (Q4_0, Q4_1, Q4_K). Low nibbles of the 16 bytes are elements 0..15, high ones 16..31.
// Meta: HALF_SCALES: {f16 scale, f16 minimum}; else {f32 scale}, {f32 minimum}. With ZERO_POINT the minimum is unused.
struct Block {
  quants: vec4<u32>,
  scale: f32,
  minimum: f32,
}

fn loadBlock(index: u32) -> Block {
#if HALF_SCALES
  let word = weightMeta[index];
  return Block(weightQuants[index], f16ToF32(word & 0xffffu), f16ToF32(word >> 16u));
#else
  let at = index * 2u;
  return Block(weightQuants[index], bitcast<f32>(weightMeta[at]), bitcast<f32>(weightMeta[at + 1u]));
#end
}

fn blockWeights(block: Block, j: u32) -> vec4<f32> {
  let nibbles = (block.quants[j & 3u] >> ((j >> 2u) * 4u)) & 0x0f0f0f0fu;
#if ZERO_POINT
  return block.scale * (vec4<f32>(unpack4xU8(nibbles)) - f32(ZERO_POINT));
#else
  return block.scale * vec4<f32>(unpack4xU8(nibbles)) + block.minimum;
#end
}
