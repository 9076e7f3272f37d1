import { expect, test, vi } from "vitest";
import { checkSupport } from "./checkSupport.ts";
import { moduleOf, wasmSupport } from "./wasmSupport.ts";

test("the modules that are tried are whole: they fail for their SIMD only", () => {
  expect(WebAssembly.validate(moduleOf([0x41, 0]))).toBe(true);
  expect(WebAssembly.validate(moduleOf([0xfd, 0x15, 0]))).toBe(false);
  expect(wasmSupport()).toMatchObject({ ok: true, simd: expect.stringMatching(/plain|relaxed/) });
});

test("without SIMD, or without WebAssembly, there is no support", () => {
  const validate = vi.spyOn(WebAssembly, "validate").mockReturnValue(false);
  expect(wasmSupport()).toEqual({ ok: false, simd: null, threads: false });
  validate.mockRestore();
  vi.stubGlobal("WebAssembly", undefined);
  expect(wasmSupport()).toEqual({ ok: false, simd: null, threads: false });
  vi.unstubAllGlobals();
});

/** A page's globals, as far as they are looked at. */
function stubPage(adapter: object | null | undefined, crossOriginIsolated = true): void {
  vi.stubGlobal("Worker", class {});
  vi.stubGlobal("isSecureContext", true);
  vi.stubGlobal("crossOriginIsolated", crossOriginIsolated);
  const gpu = { requestAdapter: async () => adapter };
  vi.stubGlobal("navigator", adapter === undefined ? {} : { gpu });
}

const makeAdapter = (isFallbackAdapter: boolean) => ({
  info: { vendor: "acme", architecture: "", description: "", isFallbackAdapter },
  limits: {},
  features: new Set(["subgroups", "shader-f16"]),
});

test.each([
  ["a real adapter", makeAdapter(false), "webgpu", []],
  ["a software adapter", makeAdapter(true), "wasm", ["webgpu-unavailable"]],
  ["no adapter", null, "wasm", ["webgpu-unavailable"]],
  ["no WebGPU", undefined, "wasm", ["webgpu-unavailable"]],
])("checkSupport with %s", async (_, adapter, backend, codes) => {
  stubPage(adapter);
  const support = await checkSupport();
  expect(support).toMatchObject({ ok: true, backend, wasm: { ok: true, threads: true } });
  expect(support.reasons.map(({ code }) => code)).toEqual(codes);
  expect(support.adapter === null).toBe(!adapter);
  vi.unstubAllGlobals();
});

test("checkSupport passes over an adapter that cannot be read", async () => {
  const { info: _, ...early } = makeAdapter(false);
  for (const adapter of [early, { ...early, info: {}, limits: undefined }]) {
    stubPage(adapter);
    const support = await checkSupport();
    expect(support).toMatchObject({ ok: true, backend: "wasm", adapter: null, features: [] });
    expect(support.reasons[0]!.message).toMatch(/GPU adapter that can be read: TypeError/);
    vi.unstubAllGlobals();
  }
});

test("checkSupport without SIMD says no where there is no real adapter", async () => {
  const validate = vi.spyOn(WebAssembly, "validate").mockReturnValue(false);
  stubPage(makeAdapter(true), false);
  const support = await checkSupport();
  expect(support).toMatchObject({ ok: false, backend: null, adapter: { isFallback: true } });
  expect(support.reasons.map(({ code }) => code)).toEqual([
    "webgpu-unavailable",
    "wasm-unavailable",
  ]);
  stubPage(makeAdapter(false));
  expect(await checkSupport()).toMatchObject({ ok: true, backend: "webgpu", wasm: { ok: false } });
  validate.mockRestore();
  vi.unstubAllGlobals();
});

test("checkSupport in Node says no twice", async () => {
  const support = await checkSupport();
  expect(support).toMatchObject({ ok: false, backend: null, wasm: { ok: false } });
  expect(support.reasons.map(({ message }) => message)).toEqual(
    Array(2).fill("This is no browser page: Quire needs Worker."),
  );
});
