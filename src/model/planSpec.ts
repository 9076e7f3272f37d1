import type { KvCacheDtype, PlanSpec } from "../backends/ops.ts";
import { QuireError } from "../errors.ts";
import type { ModelConfig } from "./config.ts";

/** Sizes that a user may choose. All have defaults. */
export interface PlanOptions {
  /** Tokens a KV block. Default 16. */
  readonly blockSize?: 8 | 16 | 32;
  /** Size of the KV pool in bytes. Default: see DEFAULT_KV_CACHE_BYTES. */
  readonly kvCacheBytes?: number;
  /** Size of the KV pool in blocks; goes before kvCacheBytes. */
  readonly kvBlocks?: number;
  /** Most bytes of host memory for swapped-out sequences; 0 = never swap. Default DEFAULT_SWAP_BYTES. */
  readonly swapBytes?: number;
  /** Default f16. */
  readonly kvCacheDtype?: KvCacheDtype;
  /** Sequences resident at once. Default 16. */
  readonly maxSequences?: number;
  /** Most rows a step. Default 256. */
  readonly maxRows?: number;
  /** Longest sequence in tokens. Default: the model's context length. */
  readonly maxContext?: number;
}

/** Default pool: as many bytes, or as the sequences at full length need if that is less. */
export const DEFAULT_KV_CACHE_BYTES = 256 * 2 ** 20;

/** Default host tier; no memory is taken before it is used. */
export const DEFAULT_SWAP_BYTES = 256 * 2 ** 20;

/** Fewer blocks than this hold no chat. */
export const MIN_KV_BLOCKS = 4;

const BLOCK_SIZES = [8, 16, 32] as const;
const KV_DTYPE_BYTES: Readonly<Record<KvCacheDtype, number>> = { f16: 2, f32: 4 };

/** Bytes of one KV block: K and V of `blockSize` tokens for all layers. */
export function kvBlockBytes(
  config: Pick<ModelConfig, "numLayers" | "numKvHeads" | "headDim">,
  blockSize: number,
  dtype: KvCacheDtype,
): number {
  const valuesPerToken = config.numLayers * 2 * config.numKvHeads * config.headDim;
  return blockSize * valuesPerToken * KV_DTYPE_BYTES[dtype];
}

/**
 * A plan's sizes for a model. Throws `invalid-argument` for an option out of range and
 * `kv-pool-too-small` with the numbers if the pool's bytes do not hold MIN_KV_BLOCKS blocks.
 */
export function planSpec(config: ModelConfig, options: PlanOptions = {}): PlanSpec {
  const blockSize = oneOf("blockSize", options.blockSize ?? 16, BLOCK_SIZES);
  const kvCacheDtype = oneOf("kvCacheDtype", options.kvCacheDtype ?? "f16", [
    "f16",
    "f32",
  ] as const);
  const maxSequences = integer("maxSequences", options.maxSequences ?? 16, 1, 1024);
  const maxRows = integer("maxRows", options.maxRows ?? 256, 1, 65_536);
  const maxContext = integer(
    "maxContext",
    options.maxContext ?? config.contextLength,
    1,
    config.contextLength,
  );
  const blockBytes = kvBlockBytes(config, blockSize, kvCacheDtype);
  const numBlocks =
    options.kvBlocks === undefined
      ? blocksInBytes(options.kvCacheBytes, blockBytes, {
          blockSize,
          blocksOfAll: maxSequences * Math.ceil(maxContext / blockSize),
        })
      : integer("kvBlocks", options.kvBlocks, 1, 2 ** 24);

  const swapBytes = integer(
    "swapBytes",
    options.swapBytes ?? DEFAULT_SWAP_BYTES,
    0,
    Number.MAX_SAFE_INTEGER,
  );

  return {
    numLayers: config.numLayers,
    numHeads: config.numHeads,
    numKvHeads: config.numKvHeads,
    headDim: config.headDim,
    width: config.width,
    vocabularySize: config.vocabularySize,
    rmsEpsilon: config.rmsEpsilon,
    rope: config.rope,
    kvCacheDtype,
    blockSize,
    numBlocks,
    minBlocks: Math.min(MIN_KV_BLOCKS, numBlocks),
    numHostBlocks: Math.min(Math.floor(swapBytes / blockBytes), 2 ** 24),
    maxSequences,
    maxContext,
    maxRows,
  };
}

function blocksInBytes(
  kvCacheBytes: number | undefined,
  blockBytes: number,
  { blockSize, blocksOfAll }: { readonly blockSize: number; readonly blocksOfAll: number },
): number {
  if (kvCacheBytes === undefined) {
    const blocks = Math.floor(DEFAULT_KV_CACHE_BYTES / blockBytes);
    return Math.max(MIN_KV_BLOCKS, Math.min(blocks, blocksOfAll));
  }
  const bytes = integer("kvCacheBytes", kvCacheBytes, 1, Number.MAX_SAFE_INTEGER);
  const blocks = Math.floor(bytes / blockBytes);
  if (blocks >= MIN_KV_BLOCKS) return Math.min(blocks, 2 ** 24);
  throw new QuireError(
    "kv-pool-too-small",
    `kvCacheBytes is ${bytes}: ${blocks} blocks of ${blockBytes} bytes (${blockSize} tokens each). At least ${MIN_KV_BLOCKS} blocks, ${MIN_KV_BLOCKS * blockBytes} bytes, are needed. Raise kvCacheBytes or choose a smaller blockSize.`,
    { kvCacheBytes: bytes, blockBytes, blocks, minBlocks: MIN_KV_BLOCKS },
  );
}

function integer(name: string, value: number, min: number, max: number): number {
  if (Number.isInteger(value) && value >= min && value <= max) return value;
  throw new QuireError(
    "invalid-argument",
    `${name} must be an integer from ${min} to ${max}; found ${String(value)}.`,
    { name, min, max },
  );
}

function oneOf<T extends string | number>(name: string, value: T, allowed: readonly T[]): T {
  if (allowed.includes(value)) return value;
  throw new QuireError(
    "invalid-argument",
    `${name} must be one of ${allowed.join(", ")}; found ${String(value)}.`,
    { name },
  );
}
