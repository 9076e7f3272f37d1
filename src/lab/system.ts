import type { LabRequest } from "./workloads.ts";

/** Names of the systems, as rows of results have them. */
export const SYSTEM_IDS = [
  "serial",
  "ft",
  "hf",
  "tgi",
  "orca-max",
  "orca-pow2",
  "orca-oracle",
  "vllm",
  "quire",
] as const;
export type SystemId = (typeof SYSTEM_IDS)[number];

/** What the KV pool holds during a step, in token slots. What is in no part is fragmented: external. */
export interface KvUsage {
  total: number;
  /** Slots that hold a token's K and V; what is shared counts once. */
  tokenStates: number;
  /** Slots held that their request will still write. */
  reserved: number;
  /** Slots held that their request will never write. */
  internal: number;
  /** Blocks in all block tables together, and those of them that are different; 0 without paging. */
  logicalBlocks: number;
  physicalBlocks: number;
}

export function noKvUsage(total: number): KvUsage {
  return { total, tokenStates: 0, reserved: 0, internal: 0, logicalBlocks: 0, physicalBlocks: 0 };
}

/** Where a system tells what came of a step. Times are taken at the step's end. */
export interface Progress {
  /** A sequence has got its next token. Sequences are numbered over the trace. */
  token(sequence: number): void;
  /** All of a request's sequences are done. */
  finish(request: LabRequest): void;
}

/** A serving system under simulation: a scheduling policy, its memory, and what its steps cost. */
export interface System {
  readonly id: SystemId;
  /** True while a request has not finished. */
  readonly hasWork: boolean;
  readonly numWaiting: number;
  /** Requests that the last step computed something for. */
  readonly batchSize: number;
  /** As it was during the last step. */
  readonly kv: Readonly<KvUsage>;
  /** A request has arrived. */
  add(request: LabRequest): void;
  /** Runs the next iteration from `nowMs` on. Returns the milliseconds that it takes, above 0. */
  step(nowMs: number, progress: Progress): number | Promise<number>;
}
