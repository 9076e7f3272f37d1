const LARGEST_HALF = 65_504;

/** The nearest f16 of the float32 nearest to x, ties to even. What is beyond the largest f16 is held there. */
export function roundToHalf(x: number): number {
  const single = Math.fround(x);
  const size = Math.abs(single);
  if (size >= LARGEST_HALF) return Math.sign(single) * LARGEST_HALF;
  // Spacing of f16 values around x: 2^-24 below 2^-14, then 2^-10 of the power of two below.
  const exponent = Math.max(-14, Math.floor(Math.log2(size)));
  const spacing = 2 ** (exponent - 10);
  return roundHalfToEven(single / spacing) * spacing;
}

/** NaN stays NaN; -0 stays -0. */
function roundHalfToEven(x: number): number {
  const below = Math.floor(x);
  if (x - below !== 0.5) return Math.round(x);
  return below % 2 === 0 ? below : below + 1;
}
