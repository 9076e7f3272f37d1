import { QuireError } from "../../errors.ts";
import { alignUp } from "./limits.ts";
import { expandShader, type ShaderConstants } from "./shader.ts";

/** What a kernel binds: a buffer, or a window of one, as a uniform or as storage that it reads or writes. */
export interface Resource {
  readonly type: GPUBufferBindingType;
  readonly binding: GPUBufferBinding;
}

/** Resources by binding number, all in group 0. */
export type Resources = Readonly<Record<number, Resource>>;

/** What the layout of a kernel's bind groups needs to know of its resources. */
export type ResourceTypes = Readonly<Record<number, Pick<Resource, "type">>>;

export function uniform(buffer: GPUBuffer, size: number): Resource {
  return { type: "uniform", binding: { buffer, size } };
}

export function read(from: GPUBuffer | GPUBufferBinding): Resource {
  return { type: "read-only-storage", binding: bindingOf(from) };
}

export function write(to: GPUBuffer | GPUBufferBinding): Resource {
  return { type: "storage", binding: bindingOf(to) };
}

function bindingOf(buffer: GPUBuffer | GPUBufferBinding): GPUBufferBinding {
  return "buffer" in buffer ? buffer : { buffer };
}

/** A compiled compute shader. */
export interface Kernel {
  readonly label: string;
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
}

/** Kernels of one device, each compiled once, and the small constant buffers that they read. Freed with the device. */
export class KernelCache {
  readonly #device: GPUDevice;
  readonly #kernels = new Map<string, Promise<Kernel>>();
  readonly #constants = new Map<string, Resource>();

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /**
   * The kernel of shaders/`shader`.wgsl with these constants; the types of `resources` make its layout.
   * Rejects with `internal` if the shader does not compile: the message has the compiler's.
   */
  get(shader: string, constants: ShaderConstants, resources: ResourceTypes): Promise<Kernel> {
    const values = Object.entries(constants).map(([name, value]) => `${name}=${value}`);
    const key = `${shader} ${values.join(" ")}`;
    const known = this.#kernels.get(key);
    if (known) return known;
    const kernel = this.#compile(`${shader}.wgsl`, constants, resources, key);
    this.#kernels.set(key, kernel);
    return kernel;
  }

  /** A uniform of u32 words that never changes; equal ones are shared. */
  constants(words: readonly number[]): Resource {
    const key = words.join(" ");
    const known = this.#constants.get(key);
    if (known) return known;
    const size = alignUp(words.length * 4, 16);
    const buffer = this.#device.createBuffer({
      label: `constants ${key}`,
      size,
      usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
    });
    this.#device.queue.writeBuffer(buffer, 0, new Uint32Array(words));
    const resource = uniform(buffer, size);
    this.#constants.set(key, resource);
    return resource;
  }

  /** A static bind group of a kernel. */
  bind(kernel: Kernel, resources: Resources): GPUBindGroup {
    return this.#device.createBindGroup({
      label: kernel.label,
      layout: kernel.layout,
      entries: Object.entries(resources).map(([at, { binding }]) => ({
        binding: Number(at),
        resource: binding,
      })),
    });
  }

  async #compile(
    file: string,
    constants: ShaderConstants,
    resources: ResourceTypes,
    label: string,
  ): Promise<Kernel> {
    const code = expandShader(file, constants);
    const module = this.#device.createShaderModule({ label, code });
    const layout = this.#device.createBindGroupLayout({
      label,
      entries: Object.entries(resources).map(([at, { type }]) => ({
        binding: Number(at),
        visibility: GPUShaderStage.COMPUTE,
        buffer: { type },
      })),
    });
    try {
      const pipeline = await this.#device.createComputePipelineAsync({
        label,
        layout: this.#device.createPipelineLayout({ label, bindGroupLayouts: [layout] }),
        compute: { module, entryPoint: "main" },
      });
      return { label, pipeline, layout };
    } catch (cause) {
      const { messages } = await module.getCompilationInfo();
      const lines = code.split("\n");
      const found = messages
        .filter((message) => message.type === "error")
        .map(({ message, lineNum }) => `${message} at "${(lines[lineNum - 1] ?? "").trim()}"`);
      const reason = found.join("; ") || String(cause);
      throw new QuireError(
        "internal",
        `The kernel ${label} does not compile: ${reason}`,
        {},
        { cause },
      );
    }
  }
}
