/** Every f16 as f32, by its bits: 256 KiB, made at first use. */
let halves: Float32Array | undefined;

/** The value of an f16, subnormals, infinities and NaN included. `bits` is its 16 bits. */
export function halfToNumber(bits: number): number {
  halves ??= Float32Array.from({ length: 2 ** 16 }, (_, i) => decodeHalf(i));
  return halves[bits]!;
}

function decodeHalf(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
