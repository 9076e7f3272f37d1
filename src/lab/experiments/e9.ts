import { A100_13B } from "../costModel.ts";
import { type Experiment, type Row, row } from "../experiment.ts";
import { saturate } from "../measure.ts";
import { type EngineTuning, Quire } from "../policies/quire.ts";
import { type VictimRule, Vllm } from "../policies/vllm.ts";
import { independentTrace, SHAREGPT, type Trace } from "../workloads.ts";

const COUNT = 800;
const RULES: readonly VictimRule[] = ["latest", "random", "most-computed", "least-computed"];

/** Without and with host memory for victims, as much as the paper's vLLM has. */
const QUIRE_CASES: readonly (readonly [caseId: string, tuning: EngineTuning])[] = [
  ["cost", { numHostBlocks: 0 }],
  ["cost swap", {}],
];

/** What it costs to take blocks back, by who has to give them (complaint 1 of vLLM's users). */
export const e9: Experiment = {
  id: "E9",
  title: "Recomputed tokens by choice of victim: OPT-13B on A100-40, ShareGPT-like, saturated",
  async run({ seed }) {
    const model = A100_13B;
    const rows: Row[] = [];
    const traceAt = (rate: number) => independentTrace(SHAREGPT, { seed, count: COUNT, rate });
    let latest = 0;
    for (const victim of RULES) {
      const system = new Vllm({ model, seed, victim, recovery: "recompute" });
      await saturate(system, traceAt);
      const waste = (100 * system.recomputedTokens) / system.computedTokens;
      if (victim === "latest") latest = waste;
      rows.push(row("vllm", "waste", victim, waste, "%"));
      rows.push(row("vllm", "preemptions", victim, system.numPreemptions, ""));
    }
    for (const [caseId, tuning] of QUIRE_CASES) {
      const quire = new Quire({ model, seed, tuning });
      await saturate(quire, traceAt);
      const waste = 100 * (1 - neededRows(traceAt(1)) / quire.executor.rows);
      rows.push(row("quire", "waste", caseId, waste, "%", undefined, { max: latest / 2 }));
      rows.push(row("quire", "preemptions", caseId, quire.engine.stats().preemptions, ""));
      rows.push(row("quire", "swaps", caseId, quire.engine.stats().swaps, ""));
    }
    return {
      rows,
      notes: [
        "waste: tokens computed a second time, of all computed. latest is the paper's rule (LIFO). The four rules run under one admission, the paper's; ours under its own, which also expects how much longer answers will get. cost swap may move victims to host memory instead.",
        "vLLM's users report a waste of 10 to 23 % online under LIFO, and 24 to 59 % less of it with least-computed.",
      ],
      plots: [],
    };
  },
};

/** Rows if nothing is computed twice: the last token of an answer needs none. */
function neededRows(trace: Trace): number {
  return trace.reduce(
    (sum, { promptTokens, outputTokens }) => sum + promptTokens + outputTokens - 1,
    0,
  );
}
