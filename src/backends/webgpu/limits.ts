/** Offsets of storage and uniform bindings must be multiples of this on every adapter, in bytes. */
export const BINDING_ALIGNMENT = 256;

/** Threads of every kernel's workgroup, along x. */
export const WORKGROUP_SIZE = 64;

/** What a plan needs of the device's limits. */
export interface BufferLimits {
  /** Largest window of a buffer that a kernel can see, in bytes. */
  readonly maxBindingBytes: number;
  /** Largest buffer, in bytes. */
  readonly maxBufferBytes: number;
}

export function bufferLimits(device: GPUDevice): BufferLimits {
  return {
    maxBindingBytes: device.limits.maxStorageBufferBindingSize,
    maxBufferBytes: device.limits.maxBufferSize,
  };
}

export function alignUp(value: number, alignment: number): number {
  return Math.ceil(value / alignment) * alignment;
}
