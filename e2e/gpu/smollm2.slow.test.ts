import { afterAll } from "vitest";
import { createWebGpuBackend } from "../../src/backends/webgpu/backend.ts";
import { describeSmolLm2 } from "../suites/smollm2.ts";
import { openGpu, testedIcd } from "./device.ts";

const backend = await createWebGpuBackend({ gpu: openGpu() });
afterAll(() => backend.dispose());

describeSmolLm2(testedIcd, backend);
