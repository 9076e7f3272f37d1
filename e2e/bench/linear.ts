import { WeightArena } from "../../src/backends/webgpu/arena.ts";
import { openDevice } from "../../src/backends/webgpu/device.ts";
import type { Dispatch } from "../../src/backends/webgpu/dispatch.ts";
import { KernelCache } from "../../src/backends/webgpu/kernel.ts";
import { familyFor, LINEAR_TOKENS } from "../../src/backends/webgpu/kernelChoice.ts";
import { bufferLimits } from "../../src/backends/webgpu/limits.ts";
import { linearDispatches } from "../../src/backends/webgpu/linear.ts";
import { Readback } from "../../src/backends/webgpu/readback.ts";
import { StepBuffer } from "../../src/backends/webgpu/stepBuffer.ts";
import type { StepRow } from "../../src/engine/step.ts";
import { loadWeights } from "../../src/model/loadWeights.ts";
import { openModel } from "../../src/model/model.ts";
import type { ByteSource } from "../../src/weights/byteSource.ts";
import type { TensorInfo } from "../../src/weights/tensorType.ts";
import { EMPTY_STEP } from "../fixtures/emptyStep.ts";
import type { Benchmark } from "./benchmark.ts";
import { matricesOf } from "./matrices.ts";

/** Rows that there is room for. */
const MAX_BATCH = 8;

/**
 * The bare linear kernels of one decode step: every matrix of the model once, with the kernels that
 * the back end would take for that many rows, in one compute pass, and nothing else: no norm, no
 * bias, no residual, no attention, no sampling. What a decode step costs beyond this is overhead.
 */
export async function createLinearBenchmark(
  source: ByteSource,
  numSteps: number,
): Promise<Benchmark> {
  const model = await openModel(source);
  const { device, adapter } = await openDevice(navigator.gpu);
  const stacks = matricesOf(model, stackUniform);
  const arena = new WeightArena(device, bufferLimits(device));
  const matrices = stacks.map((stack) => arena.addMatrix([stack]));
  arena.allocate();
  const tensors = [...new Map(stacks.flat().map((tensor) => [tensor.name, tensor])).values()];
  await loadWeights(
    { tensors, writeRows: (tensor, row, bytes) => arena.writeRows(tensor, row, bytes) },
    source,
  );

  const stepBuffer = await StepBuffer.create(device, {
    maxRows: MAX_BATCH,
    maxSequences: MAX_BATCH,
    maxContext: 1,
    tableBlocks: 1,
  });
  const widest = Math.max(...matrices.map(({ columns }) => columns));
  const x = activations(device, "inputs", MAX_BATCH * widest);
  const longest = Math.max(...matrices.map(({ rows }) => rows));
  const y = activations(device, "outputs", MAX_BATCH * longest);
  const context = {
    kernels: new KernelCache(device),
    stepBuffer: stepBuffer.buffer,
    choice: { family: familyFor(adapter), linearTokens: LINEAR_TOKENS },
  };
  const dispatches: Dispatch[] = [];
  for (const matrix of matrices) {
    const output = { form: "store", y, stride: matrix.rows } as const;
    dispatches.push(...(await linearDispatches(context, { matrix, x, output })));
  }
  const readback = new Readback(device);
  await readback.calibrate();

  const runStep = async (id: number, batch: number): Promise<void> => {
    const rows = Array.from({ length: batch }, (_, slot): StepRow => {
      return { slot, token: 0, position: 0, kvSlot: slot };
    });
    const counts = stepBuffer.write({ ...EMPTY_STEP, id, rows });
    const encoder = device.createCommandEncoder({ label: "linear" });
    const pass = encoder.beginComputePass({ label: "linear" });
    for (const dispatch of dispatches) dispatch(pass, counts);
    pass.end();
    // As a step does: done is when a result has been read.
    const staging = readback.encode(encoder, y, batch * 4);
    device.queue.submit([encoder.finish()]);
    await readback.read(staging, batch * 4);
  };
  return {
    unit: "ms/step",
    warmUp: ({ batch }) => runStep(0, batch),
    async measure({ batch }) {
      const start = performance.now();
      for (let step = 0; step < numSteps; step++) await runStep(step, batch);
      return (performance.now() - start) / numSteps;
    },
    async dispose() {
      device.destroy();
    },
  };
}

/** One matrix where all are of one type, else one each. */
function stackUniform(weights: readonly TensorInfo[]): readonly (readonly TensorInfo[])[] {
  return weights.every(({ type }) => type === weights[0]?.type)
    ? [weights]
    : weights.map((weight) => [weight]);
}

/** A buffer of `count` floats around zero. */
function activations(device: GPUDevice, label: string, count: number): GPUBuffer {
  const buffer = device.createBuffer({
    label,
    size: count * 4,
    usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
  });
  const values = Float32Array.from({ length: count }, (_, i) => Math.sin(i));
  device.queue.writeBuffer(buffer, 0, values);
  return buffer;
}
