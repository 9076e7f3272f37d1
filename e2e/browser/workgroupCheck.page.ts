import { createWebGpuBackend } from "../../src/backends/webgpu/backend.ts";
import { NUMERICS_CASES, runNumerics } from "../../src/worker/numerics.ts";

/** What the kernels that share work within a workgroup make of the models of the start-up check. */
export interface WorkgroupCheck {
  readonly numLogits: number;
  /** Largest error of a logit. */
  readonly worst: number;
  readonly isBatchInvariant: boolean;
}

async function checkWorkgroups(): Promise<WorkgroupCheck> {
  const backend = await createWebGpuBackend({ kernels: { family: "workgroup" } });
  const errors: number[] = [];
  let isBatchInvariant = true;
  for (const expected of NUMERICS_CASES) {
    const run = await runNumerics(backend, expected);
    run.logits.forEach((logit, i) => {
      errors.push(Math.abs(logit - expected.logits[i]!));
    });
    isBatchInvariant &&= run.isBatchInvariant;
  }
  backend.dispose();
  return { numLogits: errors.length, worst: Math.max(...errors), isBatchInvariant };
}

Object.assign(globalThis, { checkWorkgroups });
