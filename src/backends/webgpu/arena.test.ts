import { beforeAll, expect, test } from "vitest";
import { rowByteLength, type TensorInfo } from "../../weights/tensorType.ts";
import { WeightArena } from "./arena.ts";
import { FakeDevice, installGpuGlobals } from "./testing/fakeDevice.ts";

const GIB = 2 ** 30;

beforeAll(installGpuGlobals);

function matrix(name: string, rows: number): TensorInfo {
  const [type, columns] = ["F16", 4096] as const;
  const byteLength = rows * rowByteLength({ type, columns });
  return { name, type, rows, columns, byteOffset: 0, byteLength };
}

test("weights lie in buffers of at most 1 GiB, whatever the adapter allows", () => {
  const device = new FakeDevice({ maxBufferSize: 4 * GIB, maxStorageBufferBindingSize: 2 * GIB });
  const limits = { maxBindingBytes: 2 * GIB, maxBufferBytes: 4 * GIB };
  const arena = new WeightArena(device as unknown as GPUDevice, limits);
  const head = arena.addMatrix([[matrix("head", 180_000)]]); // 1.37 GiB
  for (let i = 0; i < 6; i++) arena.addMatrix([[matrix(`layer ${i}`, 64_000)]]); // 0.49 GiB each
  arena.allocate();
  const sizes = [...device.live].map(({ size }) => size);
  expect(Math.max(...sizes)).toBeLessThanOrEqual(GIB);
  expect(sizes.length).toBeLessThanOrEqual(6);
  expect(sizes.reduce((sum, size) => sum + size)).toBe(arena.byteLength);
  expect(head.windows.map(({ rows }) => rows)).toEqual([131_072, 48_928]);
});
