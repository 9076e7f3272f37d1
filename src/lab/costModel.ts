/**
 * What a step costs on a machine with a model, in milliseconds. A step reads all weights once and
 * multiplies them with all rows (whichever takes longer), reads the K and V that its sequences attend to,
 * and does some work for each sequence (sampling, bookkeeping).
 */
export interface CostModel {
  readonly name: string;
  /** Tokens that the KV pool holds. */
  readonly kvSlots: number;
  /** K and V of a token in all layers. */
  readonly kvBytesPerToken: number;
  readonly numLayers: number;
  /** Milliseconds of a step by its rows: points of a polyline, rows ascending from 1. */
  readonly rowCosts: readonly (readonly [rows: number, ms: number])[];
  /** For each row beyond the last point. */
  readonly msPerFurtherRow: number;
  readonly msPerSequence: number;
  /** Attention over contiguous K and V. */
  readonly msPerContextToken: number;
  /** Copying between the KV pool and host memory, one direction. */
  readonly hostBytesPerMs: number;
  /** Starting one such copy. */
  readonly msPerHostCopy: number;
  /** Host memory for swapped blocks. */
  readonly swapBytes: number;
  /** Bytes of memory of the machine, all devices, and of the weights; 0 = not a figure of this model. */
  readonly memoryBytes: number;
  readonly weightBytes: number;
}

/** Of a machine's memory bandwidth, and of its peak arithmetic, that large kernels reach. Ours, fitted. */
const BANDWIDTH_EFFICIENCY = 0.85;
const COMPUTE_EFFICIENCY = 0.64;
/** Sampling and bookkeeping of a sequence in a step. From the simulation that the reference reports. */
const MS_PER_SEQUENCE = 0.06;
/** Launching a step's kernels, and one all-reduce between devices. Estimates. */
const LAUNCH_MS = 1;
const ALL_REDUCE_MS = 0.03;
/** PCIe 4.0 with 16 lanes, as measured by bandwidth tests; and the start of a copy. Estimates. */
const PCIE_BYTES_PER_MS = 25e6;
const MS_PER_HOST_COPY = 0.008;
/** Swap space of a GPU in the authors' benchmark. */
const SWAP_BYTES = 20 * 2 ** 30;

/** Data sheets: bytes a second and half-precision operations a second. */
const A100_40 = { bytesPerSecond: 1555e9, flops: 312e12 };
const A100_80 = { bytesPerSecond: 2039e9, flops: 312e12 };
const A10G = { bytesPerSecond: 600e9, flops: 70e12 };

interface GpuModel {
  readonly name: string;
  readonly gpu: { readonly bytesPerSecond: number; readonly flops: number };
  readonly numGpus: number;
  readonly parameters: number;
  readonly numLayers: number;
  readonly hiddenSize: number;
  readonly kvSlots: number;
  readonly memoryBytes: number;
  readonly weightBytes: number;
}

function gpuCostModel(model: GpuModel): CostModel {
  const { gpu, numGpus, numLayers, weightBytes } = model;
  const bytesPerMs = (gpu.bytesPerSecond / 1000) * BANDWIDTH_EFFICIENCY * numGpus;
  const flopsPerMs = (gpu.flops / 1000) * COMPUTE_EFFICIENCY * numGpus;
  const overheadMs = LAUNCH_MS + (numGpus > 1 ? 2 * numLayers * ALL_REDUCE_MS : 0);
  const weightsMs = weightBytes / bytesPerMs;
  const msPerRow = (2 * model.parameters) / flopsPerMs;
  const kvBytesPerToken = 2 * 2 * numLayers * model.hiddenSize;
  const ridge = Math.max(1, Math.floor(weightsMs / msPerRow));
  return {
    name: model.name,
    kvSlots: model.kvSlots,
    kvBytesPerToken,
    numLayers,
    rowCosts: [
      [1, overheadMs + weightsMs],
      [ridge, overheadMs + weightsMs],
    ],
    msPerFurtherRow: msPerRow,
    msPerSequence: MS_PER_SEQUENCE,
    msPerContextToken: kvBytesPerToken / bytesPerMs,
    hostBytesPerMs: PCIE_BYTES_PER_MS * numGpus,
    msPerHostCopy: MS_PER_HOST_COPY,
    swapBytes: SWAP_BYTES * numGpus,
    memoryBytes: model.memoryBytes,
    weightBytes,
  };
}

/** Memory, weights and slots of the three OPT models are those of the paper's table 1. */
export const A100_13B: CostModel = gpuCostModel({
  name: "13B on A100-40",
  gpu: A100_40,
  numGpus: 1,
  parameters: 13e9,
  numLayers: 40,
  hiddenSize: 5120,
  kvSlots: 15_700,
  memoryBytes: 40e9,
  weightBytes: 26e9,
});

export const A100_66B: CostModel = gpuCostModel({
  name: "66B on 4 A100-40",
  gpu: A100_40,
  numGpus: 4,
  parameters: 66e9,
  numLayers: 64,
  hiddenSize: 9216,
  kvSlots: 9_700,
  memoryBytes: 160e9,
  weightBytes: 132e9,
});

export const A100_175B: CostModel = gpuCostModel({
  name: "175B on 8 A100-80",
  gpu: A100_80,
  numGpus: 8,
  parameters: 175e9,
  numLayers: 96,
  hiddenSize: 12_288,
  kvSlots: 60_100,
  memoryBytes: 640e9,
  weightBytes: 346e9,
});

/** 24 GB, a tenth of it left free, less 13.5 GB of weights and 0.8 GB of activations: our arithmetic. */
export const A10G_7B: CostModel = gpuCostModel({
  name: "7B on A10G",
  gpu: A10G,
  numGpus: 1,
  parameters: 6.7e9,
  numLayers: 32,
  hiddenSize: 4096,
  kvSlots: 13_900,
  memoryBytes: 24e9,
  weightBytes: 13.5e9,
});

/** Measured by `npm run bench` (README, WASM): milliseconds a decode step of 1, 2, 4 and 8 chats ... */
const BROWSER_DECODE = [
  [1, 8.46],
  [2, 10.26],
  [4, 13.8],
  [8, 24.95],
] as const;
/** ... at a context of 128 tokens, of which attention is 3.01 ms with 8 chats ... */
const BROWSER_CONTEXT = 128;
const BROWSER_MS_PER_CONTEXT_TOKEN = 3.01 / (8 * BROWSER_CONTEXT);
/** ... and prompts at 350 tokens a second. */
const BROWSER_MS_PER_PREFILL_ROW = 1000 / 350;

/** SmolLM2-135M in WebAssembly on two cores: what the README measures. */
export const BROWSER: CostModel = {
  name: "SmolLM2-135M in WebAssembly",
  kvSlots: 16_384,
  // 30 layers, 3 KV heads of 64, K and V, 2 bytes.
  kvBytesPerToken: 2 * 2 * 30 * 3 * 64,
  numLayers: 30,
  rowCosts: BROWSER_DECODE.map(([rows, ms]) => [
    rows,
    ms - rows * BROWSER_CONTEXT * BROWSER_MS_PER_CONTEXT_TOKEN,
  ]),
  msPerFurtherRow: BROWSER_MS_PER_PREFILL_ROW,
  msPerSequence: 0,
  msPerContextToken: BROWSER_MS_PER_CONTEXT_TOKEN,
  hostBytesPerMs: 4e6,
  msPerHostCopy: 0.02,
  swapBytes: 0,
  memoryBytes: 0,
  weightBytes: 0,
};

/** Milliseconds of a step of `rows` rows of `sequences` sequences that attend to `contextTokens` in all. */
export function stepMs(
  model: CostModel,
  rows: number,
  sequences: number,
  contextTokens: number,
): number {
  return (
    rowsMs(model, rows) + model.msPerSequence * sequences + model.msPerContextToken * contextTokens
  );
}

function rowsMs({ rowCosts, msPerFurtherRow }: CostModel, rows: number): number {
  let [beforeRows, beforeMs] = rowCosts[0]!;
  for (let i = 1; i < rowCosts.length; i++) {
    const [pointRows, pointMs] = rowCosts[i]!;
    if (rows <= pointRows) {
      const part = (rows - beforeRows) / (pointRows - beforeRows || 1);
      return beforeMs + part * (pointMs - beforeMs);
    }
    beforeRows = pointRows;
    beforeMs = pointMs;
  }
  return beforeMs + (rows - beforeRows) * msPerFurtherRow;
}

/** Copying K and V within the pool: each byte is read and written. */
export function copyMs(model: CostModel, tokens: number): number {
  return 2 * tokens * model.msPerContextToken;
}

/** One direction, `numCopies` separate transfers. */
export function hostCopyMs(model: CostModel, tokens: number, numCopies: number): number {
  return (tokens * model.kvBytesPerToken) / model.hostBytesPerMs + numCopies * model.msPerHostCopy;
}
