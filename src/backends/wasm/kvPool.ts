import { QuireError } from "../../errors.ts";
import type { KvCacheDtype, PlanSpec } from "../ops.ts";
import type { Arena } from "./arena.ts";
import { DIM_GROUP, MAX_HEAD_DIM } from "./attentionAbi.ts";

/** K and V of all blocks: [layer][block][kvHead][unit], see UNIT_SLOTS. */
export interface KvPoolLayout {
  /** Byte address of each layer's part. */
  readonly layers: readonly number[];
  readonly numBlocks: number;
  /** Bytes of a block in one layer, where its K and V lie together. */
  readonly blockBytes: number;
  /** Bytes of all layers. */
  readonly byteLength: number;
}

type KvPoolSpec = Pick<
  PlanSpec,
  "numLayers" | "numBlocks" | "numKvHeads" | "headDim" | "blockSize" | "kvCacheDtype"
>;

/** Bytes of one stored value. */
function elementBytes(dtype: KvCacheDtype): number {
  return dtype === "f16" ? 2 : 4;
}

/** Bytes of a block in one layer. */
function layerBlockBytes({ numKvHeads, headDim, blockSize, kvCacheDtype }: KvPoolSpec): number {
  return 2 * numKvHeads * blockSize * headDim * elementBytes(kvCacheDtype);
}

/** Bytes of the whole pool. */
export function kvPoolBytes(spec: KvPoolSpec): number {
  return spec.numLayers * spec.numBlocks * layerBlockBytes(spec);
}

/** Reserves the pool, one region ("kv pool") a layer. Throws `model-unsupported` for other head sizes. */
export function layOutKvPool(spec: KvPoolSpec, arena: Arena): KvPoolLayout {
  const { numLayers, numBlocks, headDim } = spec;
  if (headDim % DIM_GROUP !== 0 || headDim > MAX_HEAD_DIM) {
    throw new QuireError(
      "model-unsupported",
      `The WASM back end runs heads of a multiple of ${DIM_GROUP} dimensions, up to ${MAX_HEAD_DIM}; the model has ${headDim}. Use the WebGPU back end or another model.`,
      { headDim },
    );
  }
  const blockBytes = layerBlockBytes(spec);
  const layers = Array.from({ length: numLayers }, () =>
    arena.reserve("kv pool", numBlocks * blockBytes),
  );
  return { layers, numBlocks, blockBytes, byteLength: kvPoolBytes(spec) };
}
