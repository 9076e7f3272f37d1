import { Engine } from "../../engine/engine.ts";
import { GREEDY } from "../../engine/sampling.ts";
import type { Step, StepExecutor } from "../../engine/step.ts";
import { type Experiment, type Row, row } from "../experiment.ts";
import type { Series } from "../plot.ts";

const BLOCK_SIZE = 16;
const PROMPT_TOKENS = 500;
const VOCABULARY_SIZE = 50_000;
/** Steps to compute the prompts and to let the compiler see the code, and steps that are measured. */
const WARM_UP = 100;
const MEASURED = 200;

interface Load {
  readonly running: number;
  readonly waiting: number;
  /** Tokens of the pool. */
  readonly pool: number;
}

/** One of three grows, the others stay. */
const LOADS: readonly Load[] = [
  { running: 8, waiting: 10_000, pool: 262_144 },
  { running: 64, waiting: 10_000, pool: 262_144 },
  { running: 256, waiting: 10_000, pool: 262_144 },
  { running: 256, waiting: 0, pool: 262_144 },
  { running: 256, waiting: 100_000, pool: 262_144 },
  { running: 256, waiting: 10_000, pool: 1_048_576 },
];

/** The load that the engine is held to, and the most that a step of it may take. */
const HELD_TO = LOADS[2]!;
const MOST_MS = 0.3;

/** What the engine itself takes of a step's time, by what there is to schedule. Measures this machine. */
export const e21: Experiment = {
  id: "E21",
  title: "The cost of scheduling: milliseconds of the engine a decode step",
  async run() {
    const rows: Row[] = [];
    const byRows: [number, number][] = [];
    for (const load of LOADS) {
      const ms = await stepMs(load);
      const target = load === HELD_TO ? { max: MOST_MS } : undefined;
      const { running, waiting, pool } = load;
      const name = `running-${running} waiting-${waiting} pool-${pool}`;
      rows.push(row("quire", "step-cost", name, ms, "ms", undefined, target));
      if (waiting === HELD_TO.waiting && pool === HELD_TO.pool) byRows.push([running, ms]);
    }
    const series: Series[] = [{ name: "quire", points: byRows }];
    return {
      rows,
      notes: [
        `Schedule and postprocess of a decode step, medians of ${MEASURED}; every sequence that runs has a row. Wall-clock time of this machine: other runs give other figures.`,
        "It grows with the rows of the step, and not with the queue, the pool or the context.",
      ],
      plots: [
        {
          name: "E21-step-cost",
          title: "Milliseconds of the engine a decode step",
          xLabel: "rows of the step",
          yLabel: "ms",
          kind: { type: "lines", series },
        },
      ],
    };
  },
};

async function stepMs({ running, waiting, pool }: Load): Promise<number> {
  let nowMs = 0;
  const engine = new Engine({
    executor: ANSWERS_AT_ONCE,
    numBlocks: pool / BLOCK_SIZE,
    blockSize: BLOCK_SIZE,
    maxSequences: running,
    maxRows: running * PROMPT_TOKENS,
    maxContext: pool,
    endTokens: new Set(),
    now: () => nowMs,
    // Prompts are not what is measured: as many rows a step as there are.
    stepBudgetMs: Number.MAX_VALUE,
  });
  for (let i = 0; i < running + waiting; i++) {
    engine.add({
      id: i,
      promptTokens: promptOf(i),
      n: 1,
      maxTokens: WARM_UP + MEASURED + 1,
      stopTokenIds: [],
      sampling: GREEDY,
    });
  }
  const times: number[] = [];
  for (let step = 0; step < WARM_UP + MEASURED; step++) {
    const start = performance.now();
    await engine.step();
    if (step >= WARM_UP) times.push(performance.now() - start);
    nowMs += 1;
  }
  return times.sort((a, b) => a - b)[MEASURED >> 1]!;
}

const ANSWERS_AT_ONCE: StepExecutor = {
  submit: ({ samples }: Step) => ({
    result: Promise.resolve({
      tokens: samples.map(({ position }) => position % VOCABULARY_SIZE),
      logprobs: samples.map(() => undefined),
      scores: [],
    }),
  }),
};

/** Made-up tokens that share no prefix. */
function promptOf(index: number): number[] {
  return Array.from({ length: PROMPT_TOKENS }, (_, i) =>
    i === 0 ? VOCABULARY_SIZE + index : (index * 7_919 + i * 31) % VOCABULARY_SIZE,
  );
}
