import { type CostModel, stepMs } from "./costModel.ts";
import { findKnee, type Knee } from "./knee.ts";
import { type RunMetrics, simulate } from "./simulation.ts";
import type { System } from "./system.ts";
import type { Trace } from "./workloads.ts";

/** A knee is where tokens take this many times as long as those of a sequence alone. */
const KNEE_FACTOR = 5;

/** Arrivals of the first minute are not counted, as in the paper; of short traces, of the first quarter. */
const WARMUP_MS = 60_000;
const WARMUP_PART = 0.25;

/** A load whose rate can be set. */
export type TraceAt = (rate: number) => Trace;

/** Normalized latency, in seconds a token, up to which a rate counts as sustained. */
export function latencyLimit(model: CostModel): number {
  return (KNEE_FACTOR * stepMs(model, 1, 1, 0)) / 1000;
}

/** All requests wait from the start: memory, batch and throughput while the queue is not empty. */
export function saturate(system: System, traceAt: TraceAt): Promise<RunMetrics> {
  return simulate(system, traceAt(Number.POSITIVE_INFINITY), { window: "queue" });
}

/** The request rate at which latency takes off, sought around the saturated throughput. */
export async function kneeOf(
  model: CostModel,
  createSystem: () => System,
  traceAt: TraceAt,
  guess: number,
): Promise<Knee> {
  const lastArrivalMs = traceAt(guess).at(-1)!.arrivalMs;
  return findKnee({
    createSystem,
    createTrace: traceAt,
    limit: latencyLimit(model),
    warmupMs: Math.min(WARMUP_MS, WARMUP_PART * lastArrivalMs),
    guess,
  });
}
