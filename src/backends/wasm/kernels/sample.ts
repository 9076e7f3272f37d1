import type { Wasm } from "./emit.ts";
import { defineAdjustKernel } from "./sampleAdjust.ts";
import { defineChooseKernel } from "./sampleChoose.ts";
import { defineLogprobKernels } from "./sampleLogprobs.ts";
import { defineSelectKernel } from "./sampleSelect.ts";

/** Everything that samples tokens, with the algorithm and the integers of shaders/sample/. */
export function defineSampleKernels(): readonly Wasm[] {
  return [
    defineAdjustKernel(),
    defineSelectKernel(),
    defineChooseKernel(),
    ...defineLogprobKernels(),
  ];
}
