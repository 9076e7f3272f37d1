// 5-bit weights (Q5_0, Q5_1, Q5_K): nibbles as in q4, and a word whose bit i is bit 4 of element i.
// Meta: HALF_SCALES: {f16 scale, f16 minimum}, {bits}; else {f32 scale}, {f32 minimum}, {bits}.
struct Block {
  quants: vec4<u32>,
  high: u32,
  scale: f32,
  minimum: f32,
}

fn loadBlock(index: u32) -> Block {
  let at = index * META_WORDS;
#if HALF_SCALES
  let word = weightMeta[at];
  return Block(weightQuants[index], weightMeta[at + 1u], f16ToF32(word & 0xffffu), f16ToF32(word >> 16u));
#else
  return Block(weightQuants[index], weightMeta[at + 2u], bitcast<f32>(weightMeta[at]),
    bitcast<f32>(weightMeta[at + 1u]));
#end
}

fn blockWeights(block: Block, j: u32) -> vec4<f32> {
  let nibbles = (block.quants[j & 3u] >> ((j >> 2u) * 4u)) & 0x0f0f0f0fu;
  let bits = (vec4<u32>(block.high >> (j * 4u)) >> vec4<u32>(0u, 1u, 2u, 3u)) & vec4<u32>(1u);
  let quants = vec4<f32>(unpack4xU8(nibbles) | (bits << vec4<u32>(4u)));
#if ZERO_POINT
  return block.scale * (quants - f32(ZERO_POINT));
#else
  return block.scale * quants + block.minimum;
#end
}
