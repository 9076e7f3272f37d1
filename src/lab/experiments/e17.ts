import { A100_13B } from "../costModel.ts";
import { type Experiment, type Row, row } from "../experiment.ts";
import { saturate } from "../measure.ts";
import type { Series } from "../plot.ts";
import { simulate } from "../simulation.ts";
import type { SystemId } from "../system.ts";
import { createSystem } from "../systems.ts";
import { ALPACA, longPromptTrace } from "../workloads.ts";

const COUNT = 1200;
const LONG_TOKENS = 1800;
const EVERY = 20;
/** Of the slowest system's saturated throughput: all sustain it. */
const LOAD = 0.7;
const SYSTEMS: readonly SystemId[] = ["tgi", "orca-oracle", "vllm", "quire"];
const PARTS = [0.5, 0.9, 0.95, 0.99, 0.995, 0.999, 1];

/** How long prompts hold up those who are answering. */
export const e17: Experiment = {
  id: "E17",
  title: "Long prompts beside short answers: time between tokens, OPT-13B on A100-40",
  async run({ seed }) {
    const model = A100_13B;
    const traceAt = (rate: number) =>
      longPromptTrace(LONG_TOKENS, EVERY, ALPACA, { seed, count: COUNT, rate });
    let rate = Number.POSITIVE_INFINITY;
    for (const id of SYSTEMS) {
      if (id === "quire") continue; // faster than the others
      const { throughput } = await saturate(createSystem(id, { model, seed }), traceAt);
      rate = Math.min(rate, LOAD * throughput);
    }
    const rows: Row[] = [];
    const series: Series[] = [];
    for (const id of SYSTEMS) {
      const system = createSystem(id, { model, seed });
      const { timeBetweenTokens, timeToFirstToken } = await simulate(system, traceAt(rate), {
        times: true,
      });
      const caseId = `long-${LONG_TOKENS}`;
      rows.push(row(id, "tbt-p50", caseId, timeBetweenTokens.percentile(0.5), "ms"));
      rows.push(row(id, "tbt-p99", caseId, timeBetweenTokens.percentile(0.99), "ms"));
      rows.push(row(id, "tbt-max", caseId, timeBetweenTokens.max, "ms"));
      rows.push(row(id, "ttft-p50", caseId, timeToFirstToken.percentile(0.5), "ms"));
      rows.push(row(id, "ttft-p99", caseId, timeToFirstToken.percentile(0.99), "ms"));
      const points = PARTS.map((part) => [100 * part, timeBetweenTokens.percentile(part)] as const);
      series.push({ name: id, points });
    }
    return {
      rows,
      notes: [
        `Every ${EVERY}th prompt has ${LONG_TOKENS} tokens; all systems at the same rate, ${rate.toFixed(1)} requests a second. TGI runs prompts alone while the others pause; Orca and the paper's vLLM compute them whole beside the others; ours in chunks that keep a step near its budget.`,
      ],
      plots: [
        {
          name: "E17-time-between-tokens",
          title: "Time between tokens beside long prompts, 13B",
          xLabel: "percentile",
          yLabel: "ms",
          kind: { type: "lines", series },
        },
      ],
    };
  },
};
