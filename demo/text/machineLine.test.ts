import { expect, test } from "vitest";
import { describeMachine } from "./machineLine.ts";

const base = {
  backend: "webgpu",
  reason: undefined,
  threads: 1,
  features: [],
  precision: "exact",
  kv: "f16",
};
const adapter = {
  vendor: "google",
  architecture: "swiftshader",
  description: "",
  isFallback: true,
};

test("a software adapter is called slow and never a GPU", () => {
  const { text, isSlow } = describeMachine({ ...base, adapter });
  expect(text).toBe(
    "Software adapter (google swiftshader): WebGPU runs on the CPU here: slow" +
      " · exact (f32) · KV f16 · without shader-f16 and subgroups",
  );
  expect(isSlow).toBe(true);
});

test("a GPU is named, and what it has is not called missing", () => {
  const { text, isSlow } = describeMachine({
    ...base,
    kv: "f32",
    features: ["shader-f16", "subgroups"],
    adapter: { vendor: "acme", architecture: "gen-9", description: "Fast One", isFallback: false },
  });
  expect(text).toBe("GPU: acme gen-9 Fast One · exact (f32) · KV f32");
  expect(isSlow).toBe(false);
});

test("an adapter without a name is not promised to be a GPU", () => {
  const nameless = { vendor: "", architecture: "", description: "", isFallback: false };
  const line = describeMachine({ ...base, features: undefined, adapter: nameless });
  expect(line.text).toContain("it may be software");
  expect(line.text).not.toContain("without");
});

test("no adapter", () => {
  expect(describeMachine({ ...base, backend: undefined, adapter: null })).toMatchObject({
    text: expect.stringContaining("No GPU adapter"),
    isSlow: true,
  });
  expect(describeMachine({ ...base, backend: "reference", adapter: null }).text).toContain(
    "reference back end, slow",
  );
});

test("WASM says why it computes, in short, and with how many threads", () => {
  const wasm = { ...base, backend: "wasm", adapter: null, precision: "fast", threads: 2 };
  const reason = "WebGPU found no adapter: the GPU is blocked. Use another browser.";
  expect(describeMachine({ ...wasm, reason })).toEqual({
    text: "CPU: WASM SIMD (WebGPU found no adapter) · 2 threads · fast (8-bit activations) · KV f16",
    isSlow: false,
  });
  const named = "This browser has no WebGPU (navigator.gpu). Update it.";
  const one = describeMachine({ ...wasm, reason: named, threads: 1, precision: "exact" });
  expect(one.text).toBe(
    "CPU: WASM SIMD (This browser has no WebGPU (navigator.gpu)) · 1 thread · exact (f32) · KV f16",
  );
  const unknown = describeMachine({ ...wasm, reason: undefined, threads: undefined });
  expect(unknown.text).toBe("CPU: WASM SIMD · fast (8-bit activations) · KV f16");
});
