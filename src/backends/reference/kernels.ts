/**
 * @file The maths of the forward pass on one row at a time, in float64: what every other back end is
 * compared with. Weights are the dequantised float32 values.
 */
import type { RopeSpec } from "../ops.ts";

/** x / rms(x) * weight. [width] */
export function rmsNorm(x: Float64Array, weight: ArrayLike<number>, epsilon: number): Float64Array {
  let sumOfSquares = 0;
  for (const value of x) sumOfSquares += value * value;
  const scale = 1 / Math.sqrt(sumOfSquares / x.length + epsilon);
  return x.map((value, i) => value * scale * weight[i]!);
}

/** W x + bias. W is row-major [rows, x.length]; returns [rows]. */
export function linear(
  weight: ArrayLike<number>,
  x: Float64Array,
  bias?: ArrayLike<number>,
): Float64Array {
  const columns = x.length;
  const y = new Float64Array(weight.length / columns);
  for (let row = 0; row < y.length; row++) {
    let sum = bias ? bias[row]! : 0;
    const start = row * columns;
    for (let k = 0; k < columns; k++) sum += weight[start + k]! * x[k]!;
    y[row] = sum;
  }
  return y;
}

/** Turns the head's dimension pairs by position * frequency. [headDim] */
export function rope(head: Float64Array, position: number, spec: RopeSpec): Float64Array {
  const numPairs = spec.frequencies.length;
  const turned = head.slice();
  for (let i = 0; i < numPairs; i++) {
    const [a, b] = spec.pairing === "adjacent" ? [2 * i, 2 * i + 1] : [i, i + numPairs];
    const angle = position * spec.frequencies[i]!;
    const cos = Math.cos(angle) * spec.magnitude;
    const sin = Math.sin(angle) * spec.magnitude;
    turned[a] = head[a]! * cos - head[b]! * sin;
    turned[b] = head[a]! * sin + head[b]! * cos;
  }
  return turned;
}

/**
 * softmax(q k / sqrt(headDim)) v of one query head over the keys and values that it may see.
 * q: [headDim]; keys, values: [positions][headDim], at least one; returns [headDim].
 */
export function attention(
  q: Float64Array,
  keys: readonly ArrayLike<number>[],
  values: readonly ArrayLike<number>[],
): Float64Array {
  const scores = Float64Array.from(keys, (key) => dot(q, key) / Math.sqrt(q.length));
  const weights = softmax(scores);
  const mixed = new Float64Array(q.length);
  for (const [position, value] of values.entries()) {
    for (let i = 0; i < mixed.length; i++) mixed[i]! += weights[position]! * value[i]!;
  }
  return mixed;
}

/** x * sigmoid(x). */
export function silu(x: number): number {
  return x / (1 + Math.exp(-x));
}

/** x + y, value by value. */
export function add(x: Float64Array, y: Float64Array): Float64Array {
  return x.map((value, i) => value + y[i]!);
}

/** e^x / sum of e^x. Minus infinity becomes 0; at least one value must be finite. */
export function softmax(x: ArrayLike<number>): Float64Array {
  const best = maximum(x);
  const weights = Float64Array.from(x, (value) => Math.exp(value - best));
  let sum = 0;
  for (const weight of weights) sum += weight;
  return weights.map((weight) => weight / sum);
}

function dot(x: ArrayLike<number>, y: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += x[i]! * y[i]!;
  return sum;
}

// Not Math.max(...x): a vocabulary has more values than a call may have arguments.
function maximum(x: ArrayLike<number>): number {
  let best = -Infinity;
  for (let i = 0; i < x.length; i++) best = Math.max(best, x[i]!);
  return best;
}
