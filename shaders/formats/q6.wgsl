// 6-bit weights (Q6_K): nibbles as in q4, and two words with bits 4 and 5 of elements 0..15 and 16..31.
// Meta: {f32 scale of elements 0..15}, {f32 scale of 16..31}, {bits}, {bits}.
struct Block {
  quants: vec4<u32>,
  high: vec2<u32>,
  scales: vec2<f32>,
}

fn loadBlock(index: u32) -> Block {
  let at = index * 4u;
  return Block(weightQuants[index], vec2<u32>(weightMeta[at + 2u], weightMeta[at + 3u]),
    vec2<f32>(bitcast<f32>(weightMeta[at]), bitcast<f32>(weightMeta[at + 1u])));
}

fn blockWeights(block: Block, j: u32) -> vec4<f32> {
  let half = j >> 2u;
  let nibbles = (block.quants[j & 3u] >> (half * 4u)) & 0x0f0f0f0fu;
  let bits = (vec4<u32>(block.high[half] >> ((j & 3u) * 8u)) >> vec4<u32>(0u, 2u, 4u, 6u)) & vec4<u32>(3u);
  let quants = vec4<f32>(unpack4xU8(nibbles) | (bits << vec4<u32>(4u)));
  return block.scales[half] * (quants - f32(ZERO_POINT));
}
