import type { Request } from "./request.ts";
import { NOT_QUEUED, WaitingQueue } from "./waitingQueue.ts";

interface Deadline {
  readonly request: Request;
  readonly queueKey: number;
  readonly arrival: number;
  heapIndex: number;
}

/** Requests that must end by a certain time, the earliest first. Every operation costs O(log n). */
export class Deadlines {
  readonly #queue = new WaitingQueue<Deadline>();
  readonly #ofRequest = new Map<Request, Deadline>();

  get size(): number {
    return this.#queue.size;
  }

  /** When the next one's time comes; Infinity if there is none. */
  get nextMs(): number {
    return this.#queue.first?.queueKey ?? Number.POSITIVE_INFINITY;
  }

  /** A request without a deadline is not noted. */
  add(request: Request): void {
    const { deadlineAtMs: queueKey, sequences } = request;
    if (queueKey === Number.POSITIVE_INFINITY) return;
    const { arrival } = sequences[0]!;
    const deadline = { request, queueKey, arrival, heapIndex: NOT_QUEUED };
    this.#queue.push(deadline);
    this.#ofRequest.set(request, deadline);
  }

  /** The request has ended, or had no deadline. */
  remove(request: Request): void {
    const deadline = this.#ofRequest.get(request);
    if (deadline === undefined) return;
    this.#queue.remove(deadline);
    this.#ofRequest.delete(request);
  }

  /** Those whose time has come; each is given once. */
  takeLate(nowMs: number): Request[] {
    const late: Request[] = [];
    while (this.nextMs <= nowMs) {
      const { request } = this.#queue.first!;
      this.remove(request);
      late.push(request);
    }
    return late;
  }
}
