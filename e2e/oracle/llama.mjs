// @ts-nocheck: the packages of this folder are not installed with the project's.
/** @file llama.cpp with exact numbers: F32 weights, F32 KV cache, no flash attention, CPU. */
import { getLlama, LlamaLogLevel } from "node-llama-cpp";

export const llama = await getLlama({
  gpu: false,
  build: "never",
  skipDownload: true,
  logLevel: LlamaLogLevel.error,
  maxThreads: 2,
});

/** Runs `use(model, sequence)` on a model file and frees everything. */
export async function withModel(modelPath, contextSize, use) {
  const model = await llama.loadModel({ modelPath, gpuLayers: 0 });
  try {
    const context = await model.createContext({
      contextSize,
      sequences: 1,
      threads: 2,
      flashAttention: false,
      experimentalKvCacheKeyType: "F32",
      experimentalKvCacheValueType: "F32",
    });
    return await use(model, context.getSequence());
  } finally {
    await model.dispose();
  }
}

/** Evaluates tokens; returns logits by index in `tokens` for the indices in `wanted`. */
export async function evaluate(sequence, tokens, wanted) {
  const options = { generateNext: { logits: true, temperature: 0 } };
  const outputs = await sequence.controlledEvaluate(
    tokens.map((token, i) => (wanted.has(i) ? [token, options] : token)),
  );
  const logits = new Map();
  for (const i of wanted) {
    const byToken = outputs[i].next.logits;
    const row = new Float32Array(byToken.size);
    for (const [token, logit] of byToken) row[token] = logit;
    logits.set(i, row);
  }
  return logits;
}
