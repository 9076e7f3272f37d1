import type { GenerateRequest, SequenceDelta } from "../../worker/protocol.ts";
import type { RequestSink, WorkerConnection } from "../connection.ts";

/** A request as it was submitted, and where the answer goes. */
export interface Submitted {
  readonly request: Omit<GenerateRequest, "requestId">;
  readonly sink: RequestSink;
  isAborted: boolean;
}

/** In the place of a worker: keeps what is submitted; the test says what comes of it. */
export class ScriptedConnection {
  readonly submitted: Submitted[] = [];

  /** For those who only submit and abort. */
  get connection(): WorkerConnection {
    return this as unknown as WorkerConnection;
  }

  submit(request: Submitted["request"], sink: RequestSink): number {
    return this.submitted.push({ request, sink, isAborted: false }) - 1;
  }

  abort(requestId: number): void {
    this.submitted[requestId]!.isAborted = true;
  }
}

const USAGE = { promptTokens: 3, completionTokens: 2, cachedTokens: 0 };

/** One token's news of a request's first sample. */
export function delta(text: string, more: Partial<SequenceDelta> = {}): SequenceDelta {
  return { requestId: 0, index: 0, text, tokens: [65], ...more };
}

/** The last news of a request. */
export function lastDelta(more: Partial<SequenceDelta> = {}): SequenceDelta {
  return delta("", { tokens: [], finish: { reason: "stop", stop: null }, usage: USAGE, ...more });
}
