import { QuireError } from "../errors.ts";
import type { StoredModel } from "../worker/protocol.ts";
import { WorkerConnection } from "./connection.ts";
import { readModelUrl, readWorkerOptions } from "./engineOptions.ts";
import type { WorkerOptions } from "./types.ts";

// The store belongs to the worker, which holds its files open while it loads; these functions start
// one for the length of the call.

/** The models that are kept in this browser's storage for this site. */
export function listModels(options: WorkerOptions = {}): Promise<StoredModel[]> {
  return withWorker(options, (connection) =>
    connection.call((control) => control.listModels(), options.signal),
  );
}

/** Deletes a stored model. Resolves to false if there was none of that URL. */
export async function deleteModel(
  url: string | URL,
  options: WorkerOptions = {},
): Promise<boolean> {
  const absolute = readModelUrl(url, "url");
  return withWorker(options, (connection) =>
    connection.call((control) => control.deleteModel(absolute), options.signal),
  );
}

async function withWorker<T>(
  options: WorkerOptions,
  run: (connection: WorkerConnection) => Promise<T>,
): Promise<T> {
  const connection = await WorkerConnection.open(readWorkerOptions(options));
  try {
    return await run(connection);
  } finally {
    await connection.close(new QuireError("disposed", "The call has ended."));
  }
}
