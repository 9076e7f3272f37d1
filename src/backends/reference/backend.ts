import { QuireError } from "../../errors.ts";
import type { Backend } from "../ops.ts";
import type { ReferencePlan } from "./plan.ts";
import { ReferencePlanBuilder } from "./planBuilder.ts";

/**
 * The op interface in plain float64 TypeScript: slow, and right. The oracle of the other back ends'
 * tests; runs tiny models anywhere.
 */
export function createReferenceBackend(): Backend {
  const plans: ReferencePlan[] = [];
  let isDisposed = false;
  return {
    name: "reference",
    precision: "exact",
    threads: 1,
    simd: null,
    adapter: null,
    kernels: null,
    lost: new Promise(() => {}), // there is no device to lose
    createPlanBuilder(spec) {
      if (isDisposed) throw new QuireError("disposed", "The reference back end was disposed.");
      return new ReferencePlanBuilder(spec, (plan) => plans.push(plan));
    },
    dispose() {
      isDisposed = true;
      for (const plan of plans) plan.dispose();
    },
  };
}
