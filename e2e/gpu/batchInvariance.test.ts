import { afterAll } from "vitest";
import { describeBatchInvariance } from "../suites/batchInvariance.ts";
import { FAMILIES, openBackend, testedIcd } from "./device.ts";

for (const family of FAMILIES) {
  const backend = await openBackend({ kernels: { family } });
  afterAll(() => backend.dispose());

  describeBatchInvariance(`${testedIcd}, ${family}`, backend);
}
