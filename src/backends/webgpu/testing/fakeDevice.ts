/**
 * @file A WebGPU device that computes nothing and keeps the specification's books of memory and errors:
 * a buffer that finds no room is invalid and an out-of-memory error; whatever uses an invalid or destroyed
 * buffer is a validation error; an error goes to the innermost scope of its kind, or to nobody in particular.
 */

const BUFFER_USAGE = {
  MAP_READ: 1,
  COPY_SRC: 4,
  COPY_DST: 8,
  UNIFORM: 64,
  STORAGE: 128,
} as const;

class FakeError {
  constructor(readonly message: string) {}
}
class FakeOutOfMemoryError extends FakeError {}
class FakeValidationError extends FakeError {}

/** Puts WebGPU's global names where code under test looks for them. */
export function installGpuGlobals(): void {
  Object.assign(globalThis, {
    GPUBufferUsage: BUFFER_USAGE,
    GPUMapMode: { READ: 1 },
    GPUShaderStage: { COMPUTE: 4 },
    GPUOutOfMemoryError: FakeOutOfMemoryError,
    GPUValidationError: FakeValidationError,
  });
}

type Filter = "validation" | "out-of-memory";

export interface FakeDeviceOptions {
  /** Bytes of all buffers together. */
  readonly memoryBytes?: number;
  /** Bytes; default: WebGPU's. */
  readonly maxStorageBufferBindingSize?: number;
  readonly maxBufferSize?: number;
}

class FakeBuffer {
  readonly label: string;
  readonly size: number;
  readonly usage: number;
  readonly isValid: boolean;
  isDestroyed = false;
  readonly #device: FakeDevice;

  constructor(device: FakeDevice, descriptor: GPUBufferDescriptor, isValid: boolean) {
    this.#device = device;
    this.label = descriptor.label ?? "";
    this.size = descriptor.size;
    this.usage = descriptor.usage;
    this.isValid = isValid;
  }

  /** Why it can't be used so; undefined if it can. */
  fault(usage: number): string | undefined {
    if (!this.isValid) return `The buffer "${this.label}" is invalid.`;
    if (this.isDestroyed) return `The buffer "${this.label}" is destroyed.`;
    return (this.usage & usage) === 0 ? `"${this.label}" lacks the usage ${usage}.` : undefined;
  }

  destroy(): void {
    this.isDestroyed = true;
    this.#device.live.delete(this);
  }

  async mapAsync(): Promise<void> {
    const fault = this.fault(BUFFER_USAGE.MAP_READ);
    if (fault === undefined) return;
    this.#device.report(new FakeValidationError(fault));
    throw new Error(fault);
  }

  getMappedRange(offset = 0, size: number = this.size - offset): ArrayBuffer {
    return new ArrayBuffer(size);
  }

  unmap(): void {}
}

interface BindGroup {
  readonly fault: string | undefined;
}

/** A dispatch as it was encoded. */
export interface FakeDispatch {
  readonly pipeline: string;
  readonly grid: readonly number[];
}

export class FakeDevice extends EventTarget {
  readonly limits: Readonly<Record<string, number>>;
  readonly lost = new Promise<never>(() => {});
  /** Of all buffers together; may be changed at any time. */
  memoryBytes: number;
  /** Buffers that take memory. */
  readonly live = new Set<FakeBuffer>();
  /** Labels of pipelines, as they were created. */
  readonly pipelines: string[] = [];
  readonly dispatches: FakeDispatch[] = [];
  readonly #scopes: { readonly filter: Filter; error: FakeError | null }[] = [];

  constructor(options: FakeDeviceOptions = {}) {
    super();
    this.memoryBytes = options.memoryBytes ?? Infinity;
    this.limits = {
      maxStorageBufferBindingSize: options.maxStorageBufferBindingSize ?? 2 ** 27,
      maxBufferSize: options.maxBufferSize ?? 2 ** 28,
    };
  }

  report(error: FakeError): void {
    const filter = error instanceof FakeOutOfMemoryError ? "out-of-memory" : "validation";
    const scope = this.#scopes.findLast((open) => open.filter === filter);
    if (scope) scope.error ??= error;
    else this.dispatchEvent(Object.assign(new Event("uncapturederror"), { error }));
  }

  pushErrorScope(filter: Filter): void {
    this.#scopes.push({ filter, error: null });
  }

  async popErrorScope(): Promise<FakeError | null> {
    const scope = this.#scopes.pop();
    if (!scope) throw new Error("There is no error scope.");
    return scope.error;
  }

  get usedBytes(): number {
    let bytes = 0;
    for (const { size } of this.live) bytes += size;
    return bytes;
  }

  get numOpenScopes(): number {
    return this.#scopes.length;
  }

  createBuffer(descriptor: GPUBufferDescriptor): FakeBuffer {
    const { size, label } = descriptor;
    const isTooLarge = size > this.limits["maxBufferSize"]!;
    const hasRoom = this.usedBytes + size <= this.memoryBytes;
    const isValid = !isTooLarge && hasRoom;
    if (isTooLarge) this.report(new FakeValidationError(`"${label}" is too large.`));
    else if (!hasRoom) this.report(new FakeOutOfMemoryError(`No room for "${label}".`));
    const buffer = new FakeBuffer(this, descriptor, isValid);
    if (isValid) this.live.add(buffer);
    return buffer;
  }

  createShaderModule(): object {
    return {};
  }

  createBindGroupLayout(): object {
    return {};
  }

  createPipelineLayout(): object {
    return {};
  }

  async createComputePipelineAsync({ label = "" }: { label?: string }): Promise<object> {
    this.pipelines.push(label);
    return { label };
  }

  createBindGroup({ entries }: GPUBindGroupDescriptor): BindGroup {
    let fault: string | undefined;
    for (const { resource } of entries) {
      const { buffer, size } = resource as unknown as { buffer: FakeBuffer; size?: number };
      fault ??= buffer.fault(BUFFER_USAGE.STORAGE | BUFFER_USAGE.UNIFORM);
      if ((size ?? buffer.size) > this.limits["maxStorageBufferBindingSize"]!) {
        fault ??= `"${buffer.label}" is bound too large.`;
      }
    }
    if (fault !== undefined) this.report(new FakeValidationError(fault));
    return { fault };
  }

  createCommandEncoder(): object {
    let fault: string | undefined;
    let pipeline = "";
    const pass = {
      setPipeline: ({ label }: { label: string }) => {
        pipeline = label;
      },
      setBindGroup: (_: number, group: BindGroup) => {
        fault ??= group.fault;
      },
      dispatchWorkgroups: (...grid: number[]) => this.dispatches.push({ pipeline, grid }),
      end: () => {},
    };
    return {
      beginComputePass: () => pass,
      copyBufferToBuffer: (source: FakeBuffer, _: number, target: FakeBuffer) => {
        fault ??= source.fault(BUFFER_USAGE.COPY_SRC) ?? target.fault(BUFFER_USAGE.COPY_DST);
      },
      finish: () => {
        if (fault !== undefined) this.report(new FakeValidationError(fault));
        return { fault };
      },
    };
  }

  readonly queue = {
    writeBuffer: (
      buffer: FakeBuffer,
      offset: number,
      data: ArrayBufferView & { readonly length: number },
      _start = 0,
      count = data.length,
    ): void => {
      const end = offset + (count * data.byteLength) / Math.max(1, data.length);
      const isOutside = offset < 0 || end > buffer.size;
      const fault = isOutside
        ? `"${buffer.label}" is written outside.`
        : buffer.fault(BUFFER_USAGE.COPY_DST);
      if (fault !== undefined) this.report(new FakeValidationError(fault));
    },
    submit: (commands: readonly { readonly fault: string | undefined }[]): void => {
      for (const { fault } of commands) {
        if (fault !== undefined) this.report(new FakeValidationError(fault));
      }
    },
    onSubmittedWorkDone: async (): Promise<void> => {},
  };

  destroy(): void {}
}

/** A `navigator.gpu` whose one adapter opens this device. */
export function fakeGpu(device: FakeDevice): GPU {
  const info = { vendor: "fake", architecture: "", description: "", isFallbackAdapter: false };
  const adapter = { info, limits: device.limits, requestDevice: async () => device };
  return { requestAdapter: async () => adapter } as unknown as GPU;
}
