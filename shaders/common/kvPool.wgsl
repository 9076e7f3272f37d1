// Where K and V of a token are in a layer's window of the pool, [block][K|V][kvHead][slot][headDim], in vectors
// of 4 elements: vec2<u32> of f16 pairs, or vec4<f32>.
fn kvIndex(block: u32, kOrV: u32, kvHead: u32, slot: u32) -> u32 {
  return (((block * 2u + kOrV) * KV_HEADS + kvHead) * BLOCK_SIZE + slot) * HEAD_VECTORS;
}

#if KV_F16
// The largest f16: what pack2x16float makes of more than that is up to the adapter.
const LARGEST_HALF = vec4<f32>(65504.0);

fn packKv(v: vec4<f32>) -> vec2<u32> {
  let held = clamp(v, -LARGEST_HALF, LARGEST_HALF);
  return vec2<u32>(pack2x16float(held.xy), pack2x16float(held.zw));
}

fn unpackKv(v: vec2<u32>) -> vec4<f32> {
  return vec4<f32>(unpack2x16float(v.x), unpack2x16float(v.y));
}
#else
fn packKv(v: vec4<f32>) -> vec4<f32> {
  return v;
}

fn unpackKv(v: vec4<f32>) -> vec4<f32> {
  return v;
}
#end
