import { QuireError } from "../../errors.ts";
import type { PlanSpec } from "../ops.ts";
import { alignUp, BINDING_ALIGNMENT, type BufferLimits } from "./limits.ts";
import { allocateOrUndefined } from "./outOfMemory.ts";

/** Layers of the pool that one kernel can see, for what moves whole blocks. */
export interface PoolWindow {
  readonly binding: GPUBufferBinding;
  readonly numLayers: number;
}

/** Bytes of a block in one layer. */
function layerBlockBytes({ numKvHeads, blockSize, headDim, kvCacheDtype }: PlanSpec): number {
  return 2 * numKvHeads * blockSize * headDim * (kvCacheDtype === "f16" ? 2 : 4);
}

/** What kernels that read or write the pool need to know of it (shaders/common/kvPool.wgsl). */
export function kvConstants(spec: PlanSpec): Record<string, number> {
  const { numKvHeads, headDim, blockSize, kvCacheDtype } = spec;
  return {
    KV_HEADS: numKvHeads,
    HEAD_VECTORS: headDim / 4,
    BLOCK_SIZE: blockSize,
    ...(kvCacheDtype === "f16" ? { KV_F16: 1 } : {}),
  };
}

/** Most blocks that a pool can have: a layer of it is bound whole. */
export function bindableBlocks(spec: PlanSpec, limits: BufferLimits): number {
  const layerBytes = Math.min(limits.maxBindingBytes, limits.maxBufferBytes);
  return Math.floor(layerBytes / layerBlockBytes(spec));
}

/**
 * K and V of all blocks: [layer][block][K|V][kvHead][slot][headDim], f16 pairs or f32. Each layer is a window
 * of a buffer, so the binding limit bounds a layer and not the pool; layers that do not fit one buffer go on
 * in the next (slabs).
 */
export class KvPool {
  readonly numBlocks: number;
  readonly byteLength: number;
  /** Bytes of a block in one layer: a multiple of 128, as heads have a multiple of 4 dimensions. */
  readonly layerBlockBytes: number;
  /** Bytes from a layer to the next within a window. */
  readonly layerStride: number;
  /** In the order of the layers. */
  readonly windows: readonly PoolWindow[];
  readonly #slabs: readonly GPUBuffer[];
  readonly #layersPerSlab: number;
  readonly #layerBytes: number;

  private constructor(
    numBlocks: number,
    slabs: readonly GPUBuffer[],
    layersPerSlab: number,
    layerBlockBytes: number,
    maxBindingBytes: number,
  ) {
    this.numBlocks = numBlocks;
    this.layerBlockBytes = layerBlockBytes;
    this.#slabs = slabs;
    this.#layersPerSlab = layersPerSlab;
    this.#layerBytes = numBlocks * layerBlockBytes;
    this.layerStride = alignUp(this.#layerBytes, BINDING_ALIGNMENT);
    this.byteLength = slabs.reduce((sum, { size }) => sum + size, 0);
    this.windows = slabs.flatMap((slab) => this.#windowsOf(slab, maxBindingBytes));
  }

  /**
   * Allocates `spec.numBlocks` blocks, or as many as bindings and memory allow, by halving.
   * Throws `out-of-memory` if not even `spec.minBlocks` fit, `webgpu-limits` if a layer of those can't be bound.
   */
  static async create(device: GPUDevice, spec: PlanSpec, limits: BufferLimits): Promise<KvPool> {
    const blockBytes = layerBlockBytes(spec);
    const bindable = bindableBlocks(spec, limits);
    if (bindable < spec.minBlocks) {
      throw new QuireError(
        "webgpu-limits",
        `A KV pool of ${spec.minBlocks} blocks needs bindings of ${spec.minBlocks * blockBytes} bytes; the adapter allows ${limits.maxBindingBytes}.`,
        { need: spec.minBlocks * blockBytes, limit: limits.maxBindingBytes },
      );
    }
    let numBlocks = Math.min(spec.numBlocks, bindable);
    for (;;) {
      const layerBytes = numBlocks * blockBytes;
      const stride = alignUp(layerBytes, BINDING_ALIGNMENT);
      const layersPerSlab = Math.min(
        spec.numLayers,
        Math.floor(limits.maxBufferBytes / stride) || 1,
      );
      const slabs = await allocateOrUndefined(device, () => {
        const buffers: GPUBuffer[] = [];
        for (let layer = 0; layer < spec.numLayers; layer += layersPerSlab) {
          const layers = Math.min(layersPerSlab, spec.numLayers - layer);
          buffers.push(
            device.createBuffer({
              label: `KV pool, layers ${layer} to ${layer + layers - 1}`,
              size: (layers - 1) * stride + layerBytes,
              usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC,
            }),
          );
        }
        return buffers;
      });
      if (slabs) {
        return new KvPool(numBlocks, slabs, layersPerSlab, blockBytes, limits.maxBindingBytes);
      }
      if (numBlocks === spec.minBlocks) {
        const bytes = layerBytes * spec.numLayers;
        throw new QuireError(
          "out-of-memory",
          `The GPU has no room for a KV pool of ${numBlocks} blocks (${bytes} bytes). Close other pages or use a smaller model.`,
          { numBlocks, bytes },
        );
      }
      numBlocks = Math.max(spec.minBlocks, Math.floor(numBlocks / 2));
    }
  }

  /** The window of a layer, as a binding. */
  layer(index: number): GPUBufferBinding {
    const buffer = this.#slabs[Math.floor(index / this.#layersPerSlab)]!;
    return {
      buffer,
      offset: (index % this.#layersPerSlab) * this.layerStride,
      size: this.#layerBytes,
    };
  }

  /** As few windows of whole layers as bindings allow. */
  #windowsOf(slab: GPUBuffer, maxBindingBytes: number): PoolWindow[] {
    const layers = (slab.size - this.#layerBytes) / this.layerStride + 1;
    const most = Math.floor((maxBindingBytes - this.#layerBytes) / this.layerStride) + 1;
    const windows: PoolWindow[] = [];
    for (let first = 0; first < layers; first += most) {
      const numLayers = Math.min(most, layers - first);
      const size = (numLayers - 1) * this.layerStride + this.#layerBytes;
      const binding = { buffer: slab, offset: first * this.layerStride, size };
      windows.push({ binding, numLayers });
    }
    return windows;
  }

  dispose(): void {
    for (const slab of this.#slabs) slab.destroy();
  }
}
