import { QuireError, type QuireErrorCode } from "quire";

/** What a user of this page can do about an error; the error's own message says what happened. */
const ADVICE: Partial<Record<QuireErrorCode, string>> = {
  "context-overflow": "Clear the chat, or send a shorter text.",
  "kv-pool-too-small": "Clear the chat, or lower its most tokens.",
  "chat-template": "Choose a model that was trained to chat (“instruct”).",
  "source-read": "Check the address and the connection, then load it again.",
  "gguf-invalid": "Choose a whole GGUF file; an interrupted download has to be fetched again.",
  "gguf-limit": "Choose another file.",
  "model-unsupported": "Choose a model with the architecture llama, qwen2 or qwen3.",
  "model-invalid": "Choose another file, or fetch it again.",
  storage: "Delete a stored model to make room, then try again.",
  "webgpu-unavailable": "Use a current Chrome, Edge, Firefox or Safari, with WebGPU turned on.",
  "webgpu-limits": "Choose a smaller model.",
  "wasm-unavailable": "Use a current browser, and allow WebAssembly in the page's policy.",
  "adapter-numerics": "Update the graphics driver, or use another browser.",
  "out-of-memory": "Close other tabs, or choose a smaller model.",
  "device-lost": "Load the model again.",
  "worker-failed": "Load the model again.",
  internal: "Load the model again; if it happens twice, please report it.",
};

/** Undefined where the message says it all. */
export function adviceFor(code: QuireErrorCode): string | undefined {
  return ADVICE[code];
}

/** Anything thrown, as the one error class. */
export function toQuireError(error: unknown): QuireError {
  if (error instanceof QuireError) return error;
  return new QuireError("internal", `The page failed: ${String(error)}`, {}, { cause: error });
}
