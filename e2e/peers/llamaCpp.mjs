// @ts-nocheck: the packages of this folder are not installed with the project's.
/** @file Native llama.cpp in a process of its own, driven by messages: [method, ...arguments]. */
import { getLlama, LlamaLogLevel } from "node-llama-cpp";
import { timeChats, WARM_UP_TOKENS } from "./timing.js";

let model;
let options;
let llama;

const methods = {
  async open(given, prompt) {
    options = given;
    const start = performance.now();
    llama = await getLlama({
      gpu: false,
      build: "never",
      skipDownload: true,
      logLevel: LlamaLogLevel.error,
      maxThreads: options.threads,
    });
    model = await llama.loadModel({ modelPath: options.modelPath, gpuLayers: 0 });
    const openMs = performance.now() - start;
    const [chat] = await run({
      prompts: [prompt],
      maxTokens: WARM_UP_TOKENS,
      stallMs: 60_000,
    });
    const about = { threads: options.threads, systemInfo: llama.systemInfo };
    return { loadMs: openMs + chat.arrivals[0], about };
  },
  run,
};

/** All chats in one context with a sequence each: llama.cpp batches what they decode. */
async function run(chats) {
  const context = await model.createContext({
    contextSize: options.contextSize,
    sequences: chats.prompts.length,
    threads: options.threads,
  });
  const generate = async (prompt, maxTokens, onToken) => {
    const sequence = context.getSequence();
    const input = model.tokenize(prompt, true);
    const tokens = [];
    for await (const token of sequence.evaluate(input, { temperature: 0, yieldEogToken: true })) {
      tokens.push(token);
      onToken();
      if (tokens.length === maxTokens) break;
    }
    return { promptTokens: input.length, completionTokens: tokens.length, tokens };
  };
  try {
    return await timeChats(generate, chats);
  } finally {
    await context.dispose();
  }
}

process.on("message", async ([method, ...given]) => {
  try {
    process.send({ value: await methods[method](...given) });
  } catch (error) {
    process.send({ error: String(error?.stack ?? error) });
  }
});
