import { expect, test } from "vitest";
import { Readback } from "../../src/backends/webgpu/readback.ts";
import { openDevice } from "./device.ts";

const LATENESS_MS = 60;

test("several results at once have buffers of their own, and one pace of nudges serves all", async () => {
  const device = await openDevice();
  // Reports late, as Firefox does.
  const late = <T>(work: Promise<T>): Promise<T> =>
    new Promise((resolve, reject) => setTimeout(() => work.then(resolve, reject), LATENESS_MS));
  const { onSubmittedWorkDone, submit } = device.queue;
  device.queue.onSubmittedWorkDone = () => late(onSubmittedWorkDone.call(device.queue));
  const { createBuffer } = device;
  device.createBuffer = (descriptor) => {
    const buffer = createBuffer.call(device, descriptor);
    const { mapAsync } = buffer;
    buffer.mapAsync = (...range) => late(mapAsync.call(buffer, ...range));
    return buffer;
  };
  let numSubmits = 0;
  device.queue.submit = (commands) => {
    numSubmits += 1;
    submit.call(device.queue, commands);
  };
  const source = device.createBuffer({
    size: 16,
    usage: GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
  });
  const readback = new Readback(device);
  await readback.calibrate();
  const readFour = async (first: number): Promise<readonly GPUBuffer[]> => {
    numSubmits = 0;
    const reads: Promise<ArrayBuffer>[] = [];
    const buffers: GPUBuffer[] = [];
    for (let i = 0; i < 4; i++) {
      device.queue.writeBuffer(source, 0, new Uint32Array([first + i, 7]));
      const encoder = device.createCommandEncoder();
      const staging = readback.encode(encoder, source, 8);
      device.queue.submit([encoder.finish()]);
      buffers.push(staging);
      reads.push(readback.read(staging, 8));
    }
    const words = (await Promise.all(reads)).map((bytes) => [...new Uint32Array(bytes)]);
    expect(words).toEqual([0, 1, 2, 3].map((i) => [first + i, 7]));
    // Four nudging on their own would come to four times as many.
    expect(numSubmits).toBeGreaterThan(4);
    expect(numSubmits).toBeLessThanOrEqual(4 + 2 * (LATENESS_MS / 4));
    return buffers;
  };
  const buffers = await readFour(100);
  expect(new Set(buffers).size).toBe(4);
  expect(new Set([...buffers, ...(await readFour(200))]).size).toBe(4);
  readback.dispose();
  device.destroy();
});
