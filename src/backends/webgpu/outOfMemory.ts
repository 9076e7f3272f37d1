/**
 * Runs `allocate` and touches every buffer, under an out-of-memory error scope.
 * Undefined, with the buffers destroyed, if the device had no room.
 */
export async function allocateOrUndefined(
  device: GPUDevice,
  allocate: () => GPUBuffer[],
): Promise<GPUBuffer[] | undefined> {
  device.pushErrorScope("out-of-memory");
  const buffers = allocate();
  // Some drivers commit memory at first use only: a write to the end makes a failure show up here.
  const touch = new Uint32Array(1);
  for (const buffer of buffers) device.queue.writeBuffer(buffer, buffer.size - 4, touch);
  const error = await device.popErrorScope();
  if (!error) return buffers;
  for (const buffer of buffers) buffer.destroy();
  return undefined;
}
