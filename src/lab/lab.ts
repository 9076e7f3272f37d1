import type { Experiment, ExperimentResult, Row } from "./experiment.ts";
import { isMet } from "./experiment.ts";
import { e1 } from "./experiments/e1.ts";
import { e2 } from "./experiments/e2.ts";
import { e3 } from "./experiments/e3.ts";
import { e4 } from "./experiments/e4.ts";
import { e5 } from "./experiments/e5.ts";
import { e6 } from "./experiments/e6.ts";
import { e8 } from "./experiments/e8.ts";
import { e9 } from "./experiments/e9.ts";
import { e10 } from "./experiments/e10.ts";
import { e11 } from "./experiments/e11.ts";
import { e15 } from "./experiments/e15.ts";
import { e16 } from "./experiments/e16.ts";
import { e17 } from "./experiments/e17.ts";
import { e18 } from "./experiments/e18.ts";
import { e19 } from "./experiments/e19.ts";
import { e21 } from "./experiments/e21.ts";
import { renderPlot } from "./plot.ts";
import { formatResult } from "./table.ts";

/** In the order of their numbers, which are the reference's; the missing ones need a device. */
const EXPERIMENTS: readonly Experiment[] = [
  e1,
  e2,
  e3,
  e4,
  e5,
  e6,
  e8,
  e9,
  e10,
  e11,
  e15,
  e16,
  e17,
  e18,
  e19,
  e21,
];

/** What the command prints and writes of an experiment. Structured-cloneable. */
export interface LabReport {
  readonly id: string;
  readonly title: string;
  readonly seed: number;
  readonly rows: readonly Row[];
  /** The table and its notes. */
  readonly text: string;
  /** SVG documents by file name. */
  readonly plots: readonly { readonly file: string; readonly svg: string }[];
  readonly targets: { readonly met: number; readonly missed: number };
}

export function listExperiments(): readonly { readonly id: string; readonly title: string }[] {
  return EXPERIMENTS.map(({ id, title }) => ({ id, title }));
}

/** Runs one experiment. The same seed gives the same rows. */
export async function runExperiment(id: string, seed: number): Promise<LabReport> {
  const experiment = EXPERIMENTS.find((known) => known.id === id);
  if (experiment === undefined) throw new RangeError(`There is no experiment ${id}.`);
  return reportOf(id, experiment.title, seed, await experiment.run({ seed }));
}

/** A result as it is printed and written. */
export function reportOf(
  id: string,
  title: string,
  seed: number,
  result: ExperimentResult,
): LabReport {
  return {
    id,
    title,
    seed,
    rows: result.rows,
    text: formatResult(id, title, result),
    plots: result.plots.map((plot) => ({ file: `${plot.name}.svg`, svg: renderPlot(plot) })),
    targets: countTargets(result),
  };
}

function countTargets({ rows }: ExperimentResult): LabReport["targets"] {
  const asked = rows.filter(({ target }) => target !== undefined);
  const met = asked.filter(isMet).length;
  return { met, missed: asked.length - met };
}
