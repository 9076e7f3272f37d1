import type { Kernel } from "./kernel.ts";
import { WORKGROUP_SIZE } from "./limits.ts";
import type { StepCounts } from "./stepBuffer.ts";

/** One dispatch of a plan: static but for its size. Encodes nothing if the step has no work for it. */
export type Dispatch = (pass: GPUComputePassEncoder, counts: StepCounts) => void;

/** A kernel of one thread for each of `threads(counts)` pieces of work. */
export function dispatchThreads(
  kernel: Kernel,
  bindGroup: GPUBindGroup,
  threads: (counts: StepCounts) => number,
): Dispatch {
  return (pass, counts) => {
    const numThreads = threads(counts);
    if (numThreads === 0) return;
    pass.setPipeline(kernel.pipeline);
    pass.setBindGroup(0, bindGroup);
    pass.dispatchWorkgroups(Math.ceil(numThreads / WORKGROUP_SIZE));
  };
}

/** Workgroups along x of `dispatchWorkgroups`, and WebGPU's most along a dimension. */
export const GRID_WIDTH = 65_535;

/** A kernel of one workgroup for each of `workgroups(counts)` pieces of work, in rows of GRID_WIDTH. */
export function dispatchWorkgroups(
  kernel: Kernel,
  bindGroup: GPUBindGroup,
  workgroups: (counts: StepCounts) => number,
): Dispatch {
  return (pass, counts) => {
    const count = workgroups(counts);
    if (count === 0) return;
    pass.setPipeline(kernel.pipeline);
    pass.setBindGroup(0, bindGroup);
    pass.dispatchWorkgroups(Math.min(count, GRID_WIDTH), Math.ceil(count / GRID_WIDTH));
  };
}
