import type { StepRow } from "../../engine/step.ts";

// Engines differ in the last bits of Math.sin and Math.cos. Here all is adding and multiplying in
// float64, which is the same everywhere.

// pi / 2 in two parts. The first has 33 bits, so its product with n < 2^20 is exact. The second is the
// rest of the double, with what pi / 2 has beyond it.
const HALF_PI_HIGH = Math.floor((Math.PI / 2) * 2 ** 32) / 2 ** 32;
const HALF_PI_LOW = Math.PI / 2 - HALF_PI_HIGH + 6.123233995736766e-17;

/** Coefficients of Taylor's series in x^2, highest first: +-1 / n! for n = last, last - 2, ... */
function series(last: number): Float64Array {
  const coefficients: number[] = [];
  for (let n = last; n >= 0; n -= 2) {
    let factorial = 1;
    for (let i = 2; i <= n; i++) factorial *= i;
    coefficients.push((Math.floor(n / 2) % 2 === 0 ? 1 : -1) / factorial);
  }
  return Float64Array.from(coefficients);
}

// Up to pi / 4 the terms left out are below 1e-16.
const SINE = series(15);
const COSINE = series(16);

/** out[0] = sin x, out[1] = cos x, to 1e-15 for |x| up to 2^20. Depends on no function of the engine. */
export function sincos(x: number, out: Float64Array): void {
  const n = Math.round(x / (Math.PI / 2));
  const r = x - n * HALF_PI_HIGH - n * HALF_PI_LOW;
  const r2 = r * r;
  let sine = 0;
  for (let i = 0; i < SINE.length; i++) sine = sine * r2 + SINE[i]!;
  sine *= r;
  let cosine = 0;
  for (let i = 0; i < COSINE.length; i++) cosine = cosine * r2 + COSINE[i]!;
  const isOdd = (n & 1) !== 0;
  const sign = (n & 2) !== 0 ? -1 : 1;
  out[0] = sign * (isOdd ? cosine : sine);
  out[1] = sign * (isOdd ? -sine : cosine);
}

const turn = new Float64Array(2);

/** target[row][pair] = {cos, sin} of position * frequency, times `magnitude`. Allocates nothing. */
export function fillRotations(
  target: Float32Array,
  rows: readonly StepRow[],
  frequencies: Float64Array,
  magnitude: number,
): void {
  let at = 0;
  for (let row = 0; row < rows.length; row++) {
    const { position } = rows[row]!;
    for (let pair = 0; pair < frequencies.length; pair++) {
      sincos(position * frequencies[pair]!, turn);
      target[at++] = turn[1]! * magnitude;
      target[at++] = turn[0]! * magnitude;
    }
  }
}
