import type { TensorType } from "../../weights/tensorType.ts";
import type { ShaderConstants } from "./shader.ts";

/** How the blocks of 32 weights of a tensor type lie in GPU memory; shaders/formats/ reads them. */
export interface WeightFormat {
  /** 32-bit words of a block in the plane of quants; a multiple of 4. */
  readonly quantWords: number;
  /** 32-bit words of a block in the plane of scales, minima and high bits; 0 = no such plane. */
  readonly metaWords: number;
  /** Constants that choose the format's WGSL. */
  readonly constants: ShaderConstants;
}

function format(
  quantWords: number,
  metaWords: number,
  flags: ShaderConstants,
  zeroPoint = 0,
): WeightFormat {
  const constants: Record<string, number> = { ...flags, META_WORDS: metaWords };
  if (zeroPoint !== 0) constants["ZERO_POINT"] = zeroPoint;
  return { quantWords, metaWords, constants };
}

/** The format of every tensor type. */
export const WEIGHT_FORMATS: Readonly<Record<TensorType, WeightFormat>> = {
  Q4_0: format(4, 1, { FORMAT_Q4: 1, HALF_SCALES: 1 }, 8),
  Q4_1: format(4, 1, { FORMAT_Q4: 1, HALF_SCALES: 1 }),
  Q4_K: format(4, 2, { FORMAT_Q4: 1 }),
  Q5_0: format(4, 2, { FORMAT_Q5: 1, HALF_SCALES: 1 }, 16),
  Q5_1: format(4, 2, { FORMAT_Q5: 1, HALF_SCALES: 1 }),
  Q5_K: format(4, 3, { FORMAT_Q5: 1 }),
  Q6_K: format(4, 4, { FORMAT_Q6: 1 }, 32),
  Q8_0: format(8, 1, { FORMAT_Q8: 1 }),
  F16: format(16, 0, { FORMAT_F16: 1 }),
  BF16: format(16, 0, { FORMAT_BF16: 1 }),
  F32: format(32, 0, { FORMAT_F32: 1 }),
};
