import { QuireError } from "../../errors.ts";

/**
 * Keeps the device's errors from here on until the returned function is called, which resolves to whether
 * there was memory for everything. It rejects with `internal` for what was invalid though there was room,
 * and with `device-lost`. Where watches overlap, one may get the other's errors.
 */
export function watchMemory(device: GPUDevice): () => Promise<boolean> {
  // A buffer that found no room is invalid, and whatever touches it a validation error that says nothing new.
  device.pushErrorScope("validation");
  device.pushErrorScope("out-of-memory");
  return () => {
    const errors = Promise.all([device.popErrorScope(), device.popErrorScope()]);
    const hadRoom = judge(errors);
    hadRoom.catch(() => {}); // whoever fails otherwise never looks
    return hadRoom;
  };
}

async function judge(
  errors: Promise<readonly [noRoom: GPUError | null, invalid: GPUError | null]>,
): Promise<boolean> {
  const [noRoom, invalid] = await errors.catch((cause: unknown) => {
    const message = `The GPU device was lost while memory was allocated: ${String(cause)}`;
    throw new QuireError("device-lost", message, {}, { cause });
  });
  if (noRoom) return false;
  if (invalid) throw new QuireError("internal", `WebGPU reported an error: ${invalid.message}`);
  return true;
}

/** Makes buffers and touches them. Undefined, with the buffers destroyed, if the device had no room. */
export async function allocateOrUndefined(
  device: GPUDevice,
  allocate: () => readonly GPUBuffer[],
): Promise<readonly GPUBuffer[] | undefined> {
  const endWatch = watchMemory(device);
  let buffers: readonly GPUBuffer[] = [];
  let isUsable = false;
  try {
    let hadRoom: Promise<boolean>;
    try {
      buffers = allocate();
      // Some drivers commit memory at first use only: a write to the end makes a failure show up here.
      const touch = new Uint32Array(1);
      for (const buffer of buffers) device.queue.writeBuffer(buffer, buffer.size - 4, touch);
    } finally {
      hadRoom = endWatch();
    }
    isUsable = await hadRoom;
    return isUsable ? buffers : undefined;
  } finally {
    if (!isUsable) for (const buffer of buffers) buffer.destroy();
  }
}

/** Makes buffers for `what` and touches them. Throws `out-of-memory` with the numbers. */
export async function allocate(
  device: GPUDevice,
  what: string,
  create: () => readonly GPUBuffer[],
): Promise<readonly GPUBuffer[]> {
  let bytes = 0;
  const buffers = await allocateOrUndefined(device, () => {
    const created = create();
    bytes = created.reduce((sum, { size }) => sum + size, 0);
    return created;
  });
  if (!buffers) throw outOfMemory(what, bytes);
  return buffers;
}

export function outOfMemory(what: string, bytes: number): QuireError {
  return new QuireError(
    "out-of-memory",
    `The GPU has no room for ${bytes} bytes of ${what}. Close other pages, lower kvCacheBytes or maxSequences, or use a smaller model.`,
    { bytes },
  );
}
