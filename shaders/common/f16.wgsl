// f16 to f32 in integers, so that no adapter flushes the subnormal scales of quantised weights.
fn f16ToF32(bits: u32) -> f32 {
  let magnitude = bits & 0x7fffu;
  let normal = bitcast<f32>((magnitude << 13u) + 0x38000000u);
  let subnormal = f32(magnitude) * 5.9604644775390625e-8; // 2^-24
  let value = select(normal, subnormal, magnitude < 0x0400u);
  return select(value, -value, (bits & 0x8000u) != 0u);
}
