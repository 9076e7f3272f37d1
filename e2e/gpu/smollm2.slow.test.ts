import { afterAll } from "vitest";
import { createWebGpuBackend } from "../../src/backends/webgpu/backend.ts";
import { describeSmolLm2 } from "../suites/smollm2.ts";
import { FAMILIES, openGpu, testedIcd } from "./device.ts";

// On SwiftShader barriers cost many times what the work does: the kernels for GPUs meet small models there.
const families = testedIcd === "lavapipe" ? FAMILIES : (["flat"] as const);

for (const family of families) {
  const backend = await createWebGpuBackend({ gpu: openGpu(), kernels: { family } });
  afterAll(() => backend.dispose());

  describeSmolLm2(`${testedIcd}, ${family}`, backend);
}
