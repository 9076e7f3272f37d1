import type { Request } from "./request.ts";
import { NOT_QUEUED, WaitingQueue } from "./waitingQueue.ts";

interface Deadline {
  readonly request: Request;
  readonly queueKey: number;
  readonly arrival: number;
  heapIndex: number;
}

/** Requests that must end by a certain time, the earliest first. Adding and taking cost O(log n). */
export class Deadlines {
  readonly #queue = new WaitingQueue<Deadline>();

  /** A request without a deadline is not noted. */
  add(request: Request): void {
    const { deadlineAtMs: queueKey, sequences } = request;
    if (queueKey === Number.POSITIVE_INFINITY) return;
    const { arrival } = sequences[0]!;
    this.#queue.push({ request, queueKey, arrival, heapIndex: NOT_QUEUED });
  }

  /** Those whose time has come, ended ones among them; each is given once. */
  takeLate(nowMs: number): Request[] {
    const late: Request[] = [];
    for (let first = this.#queue.first; first !== undefined; first = this.#queue.first) {
      if (first.queueKey > nowMs) break;
      this.#queue.remove(first);
      late.push(first.request);
    }
    return late;
  }
}
