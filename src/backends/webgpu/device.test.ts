import { describe, expect, test } from "vitest";
import { openDevice } from "./device.ts";

const LIMITS = { maxStorageBufferBindingSize: 2 ** 27, maxBufferSize: 2 ** 33 };
const INFO = { vendor: "acme", architecture: "rapid", description: "", isFallbackAdapter: false };

/** A `navigator.gpu` with an adapter that has these fields besides limits and devices. */
function gpuWith(fields: object): GPU {
  const requestDevice = async (descriptor: object) => ({ descriptor });
  const adapter = { limits: LIMITS, requestDevice, ...fields };
  return { requestAdapter: async () => adapter } as unknown as GPU;
}

describe("an adapter", () => {
  test("is asked for what Quire can use of its limits, and for no feature", async () => {
    const { device, adapter } = await openDevice(gpuWith({ info: INFO }));
    expect(device).toEqual({
      descriptor: {
        label: "quire",
        requiredLimits: { maxStorageBufferBindingSize: 2 ** 27, maxBufferSize: 2 ** 32 },
      },
    });
    const isFallback = false;
    expect(adapter).toEqual({ vendor: "acme", architecture: "rapid", description: "", isFallback });
  });

  test.each<[string, object, string]>([
    ["in `info`", { info: { ...INFO, isFallbackAdapter: true } }, " (acme rapid)"],
    [
      "beside `info`, as earlier browsers do",
      { info: { vendor: "acme" }, isFallbackAdapter: true },
      " (acme)",
    ],
    ["without any `info`", { isFallbackAdapter: true }, ""],
  ])("that says %s that it is software is known as such", async (_, fields, name) => {
    const gpu = gpuWith(fields);
    expect((await openDevice(gpu)).adapter.isFallback).toBe(true);
    await expect(openDevice(gpu, { allowFallback: false })).rejects.toMatchObject({
      code: "webgpu-unavailable",
      message: `WebGPU offers only a software adapter${name}.`,
    });
  });

  test("without `info` has no name, and does", async () => {
    const { adapter } = await openDevice(gpuWith({}), { allowFallback: false });
    expect(adapter).toEqual({ vendor: "", architecture: "", description: "", isFallback: false });
  });
});

describe("no device is a coded error", () => {
  const unavailable = (message: RegExp) => ({
    code: "webgpu-unavailable",
    message: expect.stringMatching(message),
  });

  test("where there is no adapter", async () => {
    const gpu = { requestAdapter: async () => null } as unknown as GPU;
    await expect(openDevice(gpu)).rejects.toMatchObject(unavailable(/no adapter/));
  });

  test.each([
    ["rejects", () => Promise.reject(new TypeError("The GPU process is gone."))],
    [
      "throws",
      () => {
        throw new TypeError("The GPU process is gone.");
      },
    ],
  ])("where looking for an adapter %s", async (_, requestAdapter) => {
    const gpu = { requestAdapter } as unknown as GPU;
    await expect(openDevice(gpu)).rejects.toMatchObject(
      unavailable(/failed to look for an adapter: TypeError: The GPU process is gone\..*Reload/),
    );
  });

  test("where the adapter gives none", async () => {
    const requestDevice = () => Promise.reject(new Error("The adapter is consumed."));
    await expect(openDevice(gpuWith({ info: INFO, requestDevice }))).rejects.toMatchObject(
      unavailable(/no device of the adapter "acme rapid": Error: The adapter is consumed\./),
    );
  });
});
