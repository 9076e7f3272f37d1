import type { Dispatch } from "./dispatch.ts";
import { type KernelCache, read, uniform, write } from "./kernel.ts";
import type { KvPool, PoolWindow } from "./kvPool.ts";
import { WORKGROUP_SIZE } from "./limits.ts";
import { HEADER_WORDS } from "./stepBuffer.ts";

/** Bytes that a thread of the kernels moves: a vec4 of u32. */
const VECTOR_BYTES = 16;

/** Words of `Shape` in the shaders that move whole blocks. */
export function moveShape(pool: KvPool, { numLayers }: PoolWindow): readonly number[] {
  return [pool.layerBlockBytes / VECTOR_BYTES, pool.layerStride / VECTOR_BYTES, numLayers];
}

/** Workgroups that move `numBlocks` blocks within a window of the pool. */
export function moveGrid(
  pool: KvPool,
  { numLayers }: PoolWindow,
  numBlocks: number,
): readonly [number, number, number] {
  const vectors = pool.layerBlockBytes / VECTOR_BYTES;
  return [Math.ceil(vectors / WORKGROUP_SIZE), numLayers, numBlocks];
}

/** A step's block copies: one dispatch for each window of the pool, none where nothing is copied. */
export function copyDispatches(
  kernels: KernelCache,
  stepBuffer: GPUBuffer,
  pool: KvPool,
): Promise<Dispatch[]> {
  return Promise.all(
    pool.windows.map(async (window): Promise<Dispatch> => {
      const resources = {
        0: uniform(stepBuffer, HEADER_WORDS * 4),
        1: read(stepBuffer),
        2: write(window.binding),
        11: kernels.constants(moveShape(pool, window)),
      };
      const kernel = await kernels.get("copyBlocks", {}, resources);
      const bindGroup = kernels.bind(kernel, resources);
      return (pass, { copies }) => {
        if (copies === 0) return;
        pass.setPipeline(kernel.pipeline);
        pass.setBindGroup(0, bindGroup);
        pass.dispatchWorkgroups(...moveGrid(pool, window, copies));
      };
    }),
  );
}
