import { expect, test } from "vitest";
import { type BackendFacts, describeEnvironment, environmentLines } from "./machine.mjs";

const model = { path: "/models/a.gguf", name: "a.gguf", bytes: 1, sha256: "0" };
const wasm: BackendFacts = { backend: "wasm", precision: "fast", threads: 2, simd: "plain" };
const webgpu: BackendFacts = { backend: "webgpu", precision: "exact", threads: 1, simd: null };
const gpu = { vendor: "acme", architecture: "one", description: "", isFallback: false };

test("what ran on the CPU is not said to be a GPU's", () => {
  const env = describeEnvironment({ browser: "Chromium 1", adapter: gpu, backend: wasm, model });
  const lines = environmentLines(env);
  expect(lines[0]).toMatch(/^Measured on: the CPU; \d+ x /);
  expect(lines).toContain("Back end: wasm, fast, 2 threads, plain SIMD");
  expect(lines.join()).not.toContain("GPU (");
});

test("WebGPU names its adapter, and a software adapter as such", () => {
  const lines = (isFallback: boolean) =>
    environmentLines(
      describeEnvironment({ adapter: { ...gpu, isFallback }, backend: webgpu, model }),
    );
  expect(lines(false)[0]).toContain("GPU (acme one)");
  expect(lines(true)[0]).toContain("software adapter (acme one), no GPU");
  expect(lines(true)).toContain("Back end: webgpu, exact");
});
