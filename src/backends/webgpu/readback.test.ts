import { beforeAll, expect, test } from "vitest";
import { Readback } from "./readback.ts";
import { FakeDevice, installGpuGlobals } from "./testing/fakeDevice.ts";

beforeAll(installGpuGlobals);

test("how late a device reports is measured once, and all who read from it know", async () => {
  const device = new FakeDevice();
  let numWaits = 0;
  device.queue.onSubmittedWorkDone = async () => {
    numWaits += 1;
    await new Promise((resolve) => setTimeout(resolve, 30));
  };
  const readbacks = [1, 2, 3].map(() => new Readback(device as unknown as GPUDevice));
  const [first] = readbacks;
  await first!.calibrate();
  expect(numWaits).toBe(3);
  for (const readback of readbacks) await readback.calibrate();
  expect(numWaits).toBe(3);

  // Each nudges a device that is late.
  for (const readback of readbacks) {
    let numSubmits = 0;
    device.queue.submit = () => {
      numSubmits += 1;
    };
    await readback.idle();
    expect(numSubmits).toBeGreaterThan(0);
  }
});
