// @ts-nocheck: the packages of this folder are not installed with the project's.
import { Wllama } from "/wllama/index.js";

let wllama;

/** @type {import("./peerPage.js").Peer} */
export const peer = {
  /** Options are wllama's own of loadModel: n_threads, n_parallel, n_ctx. */
  async open(file, options) {
    wllama = new Wllama({ default: "/wllama/wasm/wllama.wasm" }, { suppressNativeLog: true });
    await wllama.loadModel([file], { n_gpu_layers: 0, ...options });
  },
  async generate(prompt, maxTokens, onToken) {
    let usage;
    await wllama.createCompletion({
      prompt,
      max_tokens: maxTokens,
      temperature: 0,
      // The server's own field, as the package passes on what it does not know.
      ignore_eos: true,
      stream: true,
      onData(chunk) {
        if (chunk.choices?.[0]?.text) onToken();
        usage = chunk.usage ?? usage;
      },
    });
    return {
      promptTokens: usage?.prompt_tokens ?? 0,
      completionTokens: usage?.completion_tokens ?? 0,
    };
  },
  describe() {
    const { n_ctx } = wllama.getLoadedContextInfo();
    return {
      llamaCpp: Wllama.getLibllamaVersion(),
      threads: wllama.getNumThreads(),
      multithread: wllama.isMultithread(),
      n_ctx,
    };
  },
  close: () => wllama.exit(),
};
