/**
 * @file Random numbers of the sampler: counter-based, so that a token's number depends on nothing
 * but its sequence's seed, its position and its id. Defined on 32-bit words, the same in WGSL.
 */

/**
 * pcg4d: mixes four words into four (Jarzynski and Olano, "Hash Functions for GPU Rendering",
 * JCGT 9(3), 2020). Inputs and outputs are unsigned.
 */
export function pcg4d(
  input: readonly [number, number, number, number],
): readonly [number, number, number, number] {
  let [x, y, z, w] = input.map((word) => (Math.imul(word, 1664525) + 1013904223) >>> 0) as [
    number,
    number,
    number,
    number,
  ];
  const multiplyAdd = (): void => {
    x = (x + Math.imul(y, w)) >>> 0;
    y = (y + Math.imul(z, x)) >>> 0;
    z = (z + Math.imul(x, y)) >>> 0;
    w = (w + Math.imul(y, z)) >>> 0;
  };
  multiplyAdd();
  x = (x ^ (x >>> 16)) >>> 0;
  y = (y ^ (y >>> 16)) >>> 0;
  z = (z ^ (z >>> 16)) >>> 0;
  w = (w ^ (w >>> 16)) >>> 0;
  multiplyAdd();
  return [x, y, z, w];
}

/** Uniform in (0, 1), a multiple of 2^-24: exact in float32. */
export function uniform(
  token: number,
  position: number,
  seed: readonly [low: number, high: number],
): number {
  const [x] = pcg4d([token, position, seed[0], seed[1]]);
  return ((x >>> 9) + 0.5) * 2 ** -23;
}

/**
 * Gumbel noise: the argmax of logit + gumbel over all tokens is a sample of the logits' softmax.
 */
export function gumbel(
  token: number,
  position: number,
  seed: readonly [low: number, high: number],
): number {
  return -Math.log(-Math.log(uniform(token, position, seed)));
}
