import { SCRATCH_BYTES, step, TILE_ROWS } from "../../../src/backends/wasm/abi.ts";
import { Arena } from "../../../src/backends/wasm/arena.ts";
import { kernelNames } from "../../../src/backends/wasm/kernelModule.ts";
import { LINEAR, QUANTIZE } from "../../../src/backends/wasm/linearAbi.ts";
import {
  activationBytes,
  activationFormat,
  linearKernelName,
  quantizeKernelName,
} from "../../../src/backends/wasm/matrixFormat.ts";
import { allocateMemory } from "../../../src/backends/wasm/memory.ts";
import type { BuilderContext } from "../../../src/backends/wasm/options.ts";
import { isUniform } from "../../../src/backends/wasm/packedMatrix.ts";
import { Program } from "../../../src/backends/wasm/program.ts";
import { Threads } from "../../../src/backends/wasm/threads.ts";
import { type PlacedMatrix, Weights } from "../../../src/backends/wasm/weights.ts";
import { invariant } from "../../../src/errors.ts";
import { loadWeights } from "../../../src/model/loadWeights.ts";
import { openModel } from "../../../src/model/model.ts";
import type { ByteSource } from "../../../src/weights/byteSource.ts";
import type { TensorInfo } from "../../../src/weights/tensorType.ts";
import { matricesOf } from "../matrices.ts";

/** Rows that there is room for. */
const MAX_ROWS = 8;
/** As the plan cuts matrices: fewest tiles of a chunk. */
const CHUNK_TILES = 4;

/** Milliseconds of one walk over `rows` rows, the mean of `count`. */
export type Walk = (rows: number, count: number) => number;

/**
 * The bare walk of the linear layers: every matrix of the model once, in the order of a step, by the
 * back end's own kernels and threads. Between them activations are only rounded to what the kernels
 * take: no norm, no attention, no activation function, no residual, no sampling. The rate of a decode
 * step cannot be higher.
 */
export async function openWalk(source: ByteSource, context: BuilderContext): Promise<Walk> {
  const { precision, kernels, threads: numThreads, openThreads } = context;
  const { modules } = kernels;
  const model = await openModel(source);
  const arena = new Arena();
  const program = new Program(arena);
  const weights = new Weights(arena);
  const scratches = Array.from({ length: numThreads }, () =>
    arena.reserve("scratch", SCRATCH_BYTES),
  );
  const placed = matricesOf(model, groupUniform).map((tensors) => weights.matrix(tensors));
  const widest = Math.max(...placed.map(({ matrix }) => matrix.columns));
  const longest = Math.max(...placed.map(({ matrix }) => matrix.paddedRows)) + TILE_ROWS;
  const formatOf = ({ matrix }: PlacedMatrix) =>
    activationFormat(matrix.format, precision, kernels.simd);
  const recordBytes = placed.map((each) => activationBytes(formatOf(each), each.matrix.columns));
  const input = arena.reserve("scratch", MAX_ROWS * widest * 4);
  const records = arena.reserve("scratch", MAX_ROWS * Math.max(...recordBytes));
  const output = arena.reserve("scratch", MAX_ROWS * longest * 4);

  for (const each of placed) {
    const { matrix, address } = each;
    const blocks = matrix.columns / 32;
    program.add({
      kernel: quantizeKernelName("plain", formatOf(each)),
      params: program.params(QUANTIZE, {
        input,
        inputStride: widest * 4,
        blocks,
        gain: 0,
        epsilon: 0,
        up: 0,
        records,
        rows: step.ROWS,
        gather: 0,
        segments: 1,
      }),
      items: ({ rows }) => rows,
    });
    program.add({
      kernel: linearKernelName(matrix.format, precision),
      params: program.params(LINEAR, {
        weights: address,
        blocks,
        records,
        output,
        outputStride: longest * 4,
        bias: 0,
        add: 0,
        rows: step.ROWS,
      }),
      items: () => matrix.tiles,
      chunkItems: CHUNK_TILES,
    });
  }
  program.seal();

  const memory = allocateMemory(arena.byteLength, numThreads > 1);
  invariant(memory, `There are no ${arena.byteLength} bytes of memory for the walk.`);
  const ports = numThreads > 1 ? await openThreads(numThreads - 1) : [];
  const threads = await Threads.start(ports, { modules, memory, scratches });
  program.bind(memory, kernelNames(modules));
  const words = new Int32Array(memory.buffer);
  const inputs = new Float32Array(memory.buffer, input, MAX_ROWS * widest);
  for (let i = 0; i < inputs.length; i++) inputs[i] = Math.sin(i);
  await loadWeights(
    {
      tensors: weights.tensors,
      writeRows: async (tensor, row, bytes) => weights.writeRows(memory, tensor, row, bytes),
    },
    source,
  );

  return (rows, count) => {
    words[step.ROWS / 4] = rows;
    const start = performance.now();
    for (let i = 0; i < count; i++) {
      program.prepare({ rows, logits: 0, items: 0, merges: 0 }, numThreads);
      threads.run(program.address, program.numCommands);
    }
    return (performance.now() - start) / count;
  };
}

/** As the back end stacks matrices: neighbours of one tensor type. */
function groupUniform(weights: readonly TensorInfo[]): readonly (readonly TensorInfo[])[] {
  const groups: TensorInfo[][] = [];
  for (const weight of weights) {
    const last = groups.at(-1);
    if (last !== undefined && isUniform([...last, weight])) last.push(weight);
    else groups.push([weight]);
  }
  return groups;
}
