import { afterAll } from "vitest";
import { describeBatchInvariance } from "../suites/batchInvariance.ts";
import { FAMILIES, openBackend, testedIcd } from "./device.ts";

for (const family of FAMILIES) {
  const backend = await openBackend({ kernels: { family } });
  afterAll(() => backend.dispose());

  // Types of weights differ in what reads a block, which the families share.
  const types = family === "flat" ? undefined : (["Q4_1"] as const);
  describeBatchInvariance(`${testedIcd}, ${family}`, backend, types);
}
