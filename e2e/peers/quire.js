/** @typedef {import("../../src/client/types.ts").EngineOptions} EngineOptions */

/** @type {import("../../src/client/types.ts").QuireEngine | undefined} */
let engine;
const library = "/dist/index.js";
/** @type {typeof import("../../src/index.ts")} */
const { createEngine } = await import(library);

/** @type {import("./peerPage.js").Peer} */
export const peer = {
  /** @param {File} file @param {Partial<EngineOptions>} options */
  async open(file, options) {
    engine = await createEngine({ ...options, model: file });
  },
  async generate(prompt, maxTokens, onToken) {
    const stream = await opened().completions.create({
      prompt,
      max_tokens: maxTokens,
      ignore_eos: true,
      temperature: 0,
      stream: true,
      stream_options: { include_usage: true },
      return_token_ids: true,
    });
    /** @type {number[]} */
    const tokens = [];
    let promptTokens = 0;
    for await (const { choices, usage } of stream) {
      const ids = choices[0]?.token_ids ?? [];
      for (const id of ids) {
        tokens.push(id);
        onToken();
      }
      promptTokens = usage?.prompt_tokens ?? promptTokens;
    }
    return { promptTokens, completionTokens: tokens.length, tokens };
  },
  describe() {
    const { backend, precision, threads, simd, backendReason } = opened();
    return { backend, precision, threads, simd, backendReason };
  },
  close: () => opened().dispose(),
};

function opened() {
  if (engine === undefined) throw new Error("The engine is not open.");
  return engine;
}
