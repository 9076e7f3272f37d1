import { expect, test } from "vitest";
import { describeMachine } from "./machineLine.ts";

const base = { backend: "webgpu", features: [], precision: "exact", kv: "f16" };
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
