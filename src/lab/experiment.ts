import type { Plot } from "./plot.ts";
import type { SystemId } from "./system.ts";

/** Where a figure of the paper comes from: read in it, from memory, or simulated by others. */
export type FigureSource = "read" | "memory" | "simulated";

/** One figure beside the paper's. `metric` and `case` are fixed ids: the README lists them. */
export interface Row {
  readonly system: SystemId;
  readonly metric: string;
  readonly case: string;
  /** Null where the paper gives none. */
  readonly paper: number | null;
  readonly ours: number;
  readonly unit: string;
  readonly source: FigureSource | null;
  /** What `ours` is meant to be. */
  readonly target?: Target;
}

export interface Target {
  readonly min?: number;
  readonly max?: number;
}

export interface ExperimentContext {
  readonly seed: number;
}

export interface ExperimentResult {
  readonly rows: readonly Row[];
  /** Sentences: how it was measured, and why ours differs. */
  readonly notes: readonly string[];
  readonly plots: readonly Plot[];
}

export interface Experiment {
  readonly id: string;
  readonly title: string;
  run(context: ExperimentContext): Promise<ExperimentResult>;
}

/** A figure that the paper, or the blog, gives. */
export interface Figure {
  readonly value: number;
  readonly source: FigureSource;
}

export function read(value: number): Figure {
  return { value, source: "read" };
}

export function remembered(value: number): Figure {
  return { value, source: "memory" };
}

/** `figure` undefined: the paper gives none. */
export function row(
  system: SystemId,
  metric: string,
  caseId: string,
  ours: number,
  unit: string,
  figure?: Figure,
  target?: Target,
): Row {
  return {
    system,
    metric,
    case: caseId,
    paper: figure?.value ?? null,
    ours,
    unit,
    source: figure?.source ?? null,
    ...(target === undefined ? {} : { target }),
  };
}

/** True without a target. */
export function isMet({ ours, target }: Row): boolean {
  return ours >= (target?.min ?? -Infinity) && ours <= (target?.max ?? Infinity);
}

/** A target of at most `distance` from the paper's figure. */
export function near(value: number, distance: number): Target {
  return { min: value - distance, max: value + distance };
}
