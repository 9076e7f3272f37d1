import type { RequestId } from "./sequence.ts";

interface BaseEvent {
  /** Milliseconds of the engine's clock. */
  readonly timeMs: number;
  /** The step that was scheduled or delivered then. */
  readonly stepId: number;
}

interface SequenceEvent extends BaseEvent {
  readonly requestId: RequestId;
  /** Which of the request's sequences. */
  readonly index: number;
}

export interface PreemptEvent extends SequenceEvent {
  readonly kind: "preempt";
  /** No free block; a better priority; the engine's caller; a lost device or a failed step. */
  readonly reason: "blocks" | "priority" | "caller" | "device";
  readonly how: "recompute" | "swap";
  /** Tokens whose K and V must be computed again, as far as the prefix cache does not keep them; 0 for a swap. */
  readonly tokensLost: number;
  readonly blocksFreed: number;
  /** Share of the pool's blocks that are held, 0..1. */
  readonly kvUsageBefore: number;
  readonly kvUsageAfter: number;
}

/** Swapped blocks come back. */
export interface SwapInEvent extends SequenceEvent {
  readonly kind: "swap-in";
  readonly blocks: number;
  readonly tokens: number;
}

/** There was no host memory for a swap: preempted sequences are computed again from now on. */
export interface SwapOffEvent extends BaseEvent {
  readonly kind: "swap-off";
  /** The back end's reason, for people. */
  readonly why: string;
}

/** A free block loses the prefix that it kept. */
export interface EvictEvent extends BaseEvent {
  readonly kind: "evict";
  readonly block: number;
  /** Tokens of the prefix in this block. */
  readonly tokens: number;
}

/** A sequence is ended by its deadline. */
export interface DeadlineEvent extends SequenceEvent {
  readonly kind: "deadline";
  readonly outputTokens: number;
}

/** A sequence made no progress for too long. */
export interface StallEvent extends SequenceEvent {
  readonly kind: "stall";
  readonly waitedMs: number;
  /** What it lacks, for people. */
  readonly why: string;
}

/** What the engine decided, about one sequence or block mostly, with reason and cost. Structured-cloneable. */
export type EngineEvent =
  | PreemptEvent
  | SwapInEvent
  | SwapOffEvent
  | EvictEvent
  | DeadlineEvent
  | StallEvent;

export type EngineEventKind = EngineEvent["kind"];

/** Events kept by default: minutes of a busy engine. */
export const DEFAULT_EVENT_CAPACITY = 1_024;

/** The latest events, oldest dropped first, and how many of each kind there were. O(1) an event. */
export class EventLog {
  readonly #capacity: number;
  /** A ring; full once it is as long as the capacity. */
  readonly #ring: EngineEvent[] = [];
  /** Place of the oldest event, once the ring is full. */
  #oldest = 0;
  readonly #counts = noEvents();
  readonly #dropped = noEvents();

  /** `capacity`: events kept, at least 1. */
  constructor(
    options: {
      readonly capacity?: number;
    } = {},
  ) {
    this.#capacity = options.capacity ?? DEFAULT_EVENT_CAPACITY;
  }

  /** Events kept. */
  get size(): number {
    return this.#ring.length;
  }

  /** Events of each kind so far, dropped ones included. */
  get counts(): Readonly<Record<EngineEventKind, number>> {
    return this.#counts;
  }

  /** Events of each kind that are no longer kept. */
  get dropped(): Readonly<Record<EngineEventKind, number>> {
    return this.#dropped;
  }

  push(event: EngineEvent): void {
    this.#counts[event.kind] += 1;
    if (this.#ring.length < this.#capacity) {
      this.#ring.push(event);
    } else {
      this.#dropped[this.#ring[this.#oldest]!.kind] += 1;
      this.#ring[this.#oldest] = event;
      this.#oldest = (this.#oldest + 1) % this.#capacity;
    }
  }

  /** The events kept, oldest first. */
  *[Symbol.iterator](): Generator<EngineEvent, void, undefined> {
    for (let i = 0; i < this.#ring.length; i++) {
      yield this.#ring[(this.#oldest + i) % this.#ring.length]!;
    }
  }
}

function noEvents(): Record<EngineEventKind, number> {
  return { preempt: 0, "swap-in": 0, "swap-off": 0, evict: 0, deadline: 0, stall: 0 };
}
