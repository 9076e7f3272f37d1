import type { RopeSpec } from "../backends/ops.ts";
import { QuireError } from "../errors.ts";
import type { ModelMetadata } from "./metadata.ts";

/** How a model's rotary embedding is stretched past its training length. */
export type RopeScaling =
  | { readonly type: "none" }
  /** Positions count 1 / factor. */
  | { readonly type: "linear"; readonly factor: number }
  | YarnScaling;

/**
 * YaRN: fast dimensions keep their speed, slow ones slow down by `factor`, with a ramp between.
 * Names and maths are llama.cpp's.
 */
export interface YarnScaling {
  readonly type: "yarn";
  readonly factor: number;
  readonly originalContextLength: number;
  /** Share of the ramp, 0..1. */
  readonly extFactor: number;
  /** Factor on the magnitude where extFactor is 0. */
  readonly yarnAttentionFactor: number;
  /** Turns over the original context at which the ramp starts and ends. */
  readonly betaFast: number;
  readonly betaSlow: number;
  /** DeepSeek's `mscale_all_dim`; 0 = not used. */
  readonly logMultiplier: number;
}

/** The rotary embedding as a model file describes it. */
export interface RopeOptions {
  readonly pairing: RopeSpec["pairing"];
  /** Leading dimensions of a head that turn; even. */
  readonly rotaryDims: number;
  readonly freqBase: number;
  readonly scaling: RopeScaling;
  /** Factor on the magnitude, whatever the scaling. */
  readonly attentionFactor: number;
  /** Divisors of the frequencies, [rotaryDims / 2] (`rope_freqs.weight`). */
  readonly factors: Float32Array | undefined;
}

const SCALING_TYPES = ["none", "linear", "yarn"];

/** Reads `rope.scaling.*`. A factor without a type means linear, as in llama.cpp. */
export function readRopeScaling(metadata: ModelMetadata, contextLength: number): RopeScaling {
  const type = metadata.string("rope.scaling.type", "linear");
  if (!SCALING_TYPES.includes(type)) {
    throw new QuireError(
      "model-unsupported",
      `The model's RoPE scaling is "${type}"; Quire runs ${SCALING_TYPES.join(", ")}.`,
      { ropeScaling: type },
    );
  }
  // rope.scale_linear is the factor's name in old files. 0 means no scaling in both.
  const legacyFactor = metadata.number("rope.scale_linear", 0);
  const factor = metadata.number("rope.scaling.factor", legacyFactor) || 1;
  if (factor < 0) throw metadata.invalid("rope.scaling.factor", "a number above 0", factor);
  if (type === "yarn") {
    return {
      type,
      factor,
      originalContextLength: metadata.positive(
        "rope.scaling.original_context_length",
        contextLength,
      ),
      extFactor: metadata.number("rope.scaling.yarn_ext_factor", 1),
      yarnAttentionFactor: metadata.number("rope.scaling.yarn_attn_factor", 1),
      betaFast: metadata.positive("rope.scaling.yarn_beta_fast", 32),
      betaSlow: metadata.positive("rope.scaling.yarn_beta_slow", 1),
      logMultiplier: metadata.number("rope.scaling.yarn_log_multiplier", 0),
    };
  }
  return type === "none" || factor === 1 ? { type: "none" } : { type: "linear", factor };
}

/** Frequencies and magnitude, in float64: WGSL's own sin, cos and pow are too coarse to build on. */
export function makeRopeSpec(options: RopeOptions): RopeSpec {
  const { pairing, rotaryDims, freqBase, scaling, factors } = options;
  const frequencies = Float64Array.from({ length: rotaryDims / 2 }, (_, i) => {
    const unscaled = freqBase ** ((-2 * i) / rotaryDims) / (factors?.[i] ?? 1); // radians a position
    return unscaled * frequencyScale(scaling, i, rotaryDims, freqBase);
  });
  return { pairing, frequencies, magnitude: scalingMagnitude(scaling) * options.attentionFactor };
}

function frequencyScale(
  scaling: RopeScaling,
  pair: number,
  rotaryDims: number,
  freqBase: number,
): number {
  if (scaling.type === "none") return 1;
  const interpolated = 1 / scaling.factor;
  if (scaling.type === "linear") return interpolated;
  const keep = yarnRamp(scaling, pair, rotaryDims, freqBase) * scaling.extFactor;
  return interpolated * (1 - keep) + keep;
}

/** 1 for pairs that keep their speed, 0 for pairs that are interpolated, linear between. */
function yarnRamp(
  scaling: YarnScaling,
  pair: number,
  rotaryDims: number,
  freqBase: number,
): number {
  // The pair that makes `turns` full turns over the original context, as a real number.
  const pairOfTurns = (turns: number): number =>
    (rotaryDims * Math.log(scaling.originalContextLength / (turns * 2 * Math.PI))) /
    (2 * Math.log(freqBase));
  const low = Math.max(0, Math.floor(pairOfTurns(scaling.betaFast)));
  const high = Math.min(rotaryDims - 1, Math.ceil(pairOfTurns(scaling.betaSlow)));
  const position = (pair - low) / Math.max(0.001, high - low);
  return 1 - Math.min(1, Math.max(0, position));
}

function scalingMagnitude(scaling: RopeScaling): number {
  if (scaling.type !== "yarn") return 1;
  if (scaling.extFactor === 0) return scaling.yarnAttentionFactor;
  const mscale = (multiplier: number): number =>
    scaling.factor <= 1 ? 1 : 0.1 * multiplier * Math.log(scaling.factor) + 1;
  return scaling.logMultiplier === 0 ? mscale(1) : mscale(1) / mscale(scaling.logMultiplier);
}
