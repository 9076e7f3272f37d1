import { simulate } from "./simulation.ts";
import type { System } from "./system.ts";
import type { Trace } from "./workloads.ts";

export interface KneeOptions {
  /** A fresh system for a run. */
  readonly createSystem: () => System;
  /** The same requests at a rate, requests a second. */
  readonly createTrace: (rate: number) => Trace;
  /** Highest mean normalized latency that counts as sustained: seconds a token. */
  readonly limit: number;
  readonly warmupMs: number;
  /** A guess, requests a second. */
  readonly guess: number;
}

/** One point of a latency curve. */
export interface CurvePoint {
  readonly rate: number;
  /** Seconds a token; Infinity if the run was given up. */
  readonly normalizedLatency: number;
}

export interface Knee {
  /** Highest rate that is sustained, requests a second, to 5 %. */
  readonly rate: number;
  /** All rates that were tried, ascending. */
  readonly points: readonly CurvePoint[];
}

const PRECISION = 1.05;
const FIRST_STEP = 1.3;
const MAX_RUNS = 30;

/** Finds where latency takes off: widens a bracket around the guess, then halves it down to 5 %. */
export async function findKnee(options: KneeOptions): Promise<Knee> {
  const points: CurvePoint[] = [];
  const isSustained = async (rate: number) => {
    const { normalizedLatency } = await simulate(
      options.createSystem(),
      options.createTrace(rate),
      {
        warmupMs: options.warmupMs,
        giveUpAbove: options.limit,
      },
    );
    points.push({ rate, normalizedLatency });
    return normalizedLatency <= options.limit;
  };
  let low = 0;
  let high = Number.POSITIVE_INFINITY;
  let rate = options.guess;
  for (let factor = FIRST_STEP; points.length < MAX_RUNS; factor *= factor) {
    if (await isSustained(rate)) low = rate;
    else high = rate;
    if (low > 0 && high < Number.POSITIVE_INFINITY) break;
    rate = low > 0 ? low * factor : high / factor;
  }
  while (high / low > PRECISION && points.length < MAX_RUNS) {
    const middle = Math.sqrt(low * high);
    if (await isSustained(middle)) low = middle;
    else high = middle;
  }
  points.sort((a, b) => a.rate - b.rate);
  return { rate: low, points };
}
