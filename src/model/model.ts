import { QuireError } from "../errors.ts";
import type { ByteSource } from "../weights/byteSource.ts";
import { dequantizeRows } from "../weights/dequantize.ts";
import { type GgufFile, parseGguf } from "../weights/gguf.ts";
import { MODEL_LIMITS, type ModelConfig, readModelConfig } from "./config.ts";
import { type ModelTensors, readModelTensors } from "./tensors.ts";

/** A model file, read and checked. Its weights are still in the file. */
export interface Model {
  readonly gguf: GgufFile;
  readonly config: ModelConfig;
  readonly tensors: ModelTensors;
}

/**
 * Reads and checks all of a model file but the weights. Throws what `parseGguf`, `readModelConfig`
 * and `readModelTensors` throw.
 */
export async function openModel(source: ByteSource, signal?: AbortSignal): Promise<Model> {
  const gguf = await parseGguf(source, signal);
  const config = readModelConfig(gguf, await readRopeFactors(gguf, source, signal));
  return { gguf, config, tensors: readModelTensors(gguf, config) };
}

async function readRopeFactors(
  gguf: GgufFile,
  source: ByteSource,
  signal: AbortSignal | undefined,
): Promise<Float32Array | undefined> {
  const tensor = gguf.tensors.get("rope_freqs.weight");
  if (!tensor) return undefined;
  if (tensor.rows !== 1 || tensor.columns > MODEL_LIMITS.headDim / 2) {
    throw new QuireError(
      "model-invalid",
      `The model's tensor "rope_freqs.weight" has the shape [${tensor.rows}, ${tensor.columns}]; one row of at most ${MODEL_LIMITS.headDim / 2} values was expected.`,
      { tensor: tensor.name },
    );
  }
  const bytes = await source.read(tensor.byteOffset, tensor.byteLength, signal);
  return dequantizeRows(tensor.type, bytes, tensor.columns, 1);
}
