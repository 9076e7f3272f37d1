import { QuireError } from "../errors.ts";
import { WorkerConnection } from "./connection.ts";
import { ClientEngine } from "./engine.ts";
import { readEngineOptions } from "./engineOptions.ts";
import type { EngineOptions, QuireEngine } from "./types.ts";

/**
 * Starts a worker (and threads, where WASM computes), loads the model in it and resolves when the engine can generate. Rejects with a
 * QuireError, among them `invalid-argument`, `unsupported`, `worker-failed`, `aborted`,
 * `webgpu-unavailable`, `wasm-unavailable`, `out-of-memory`, `source-read`, `gguf-invalid`, `model-unsupported`; then
 * nothing is left behind.
 */
export async function createEngine(options: EngineOptions): Promise<QuireEngine> {
  const parsed = readEngineOptions(options);
  const connection = await WorkerConnection.open(parsed);
  try {
    const loaded = await connection.load(parsed.request, parsed.signal);
    return new ClientEngine(connection, loaded);
  } catch (error) {
    await connection.close(
      new QuireError("disposed", "The engine did not load.", {}, { cause: error }),
    );
    throw error;
  }
}
