import { A100_13B } from "../costModel.ts";
import { type Experiment, type Row, row } from "../experiment.ts";
import { saturate } from "../measure.ts";
import { Quire } from "../policies/quire.ts";
import { Vllm } from "../policies/vllm.ts";
import { simulate } from "../simulation.ts";
import type { System } from "../system.ts";
import { ALPACA, longPromptTrace } from "../workloads.ts";

const COUNT = 1500;
/** Every 25th prompt is this long: an eighth of the pool. */
const LONG_TOKENS = 1900;
const EVERY = 25;
/** Of the first system's saturated throughput. */
const LOAD = 0.9;
const MAX_PASSED_OVER = 16;

/** A request that does not fit holds up those behind it, or not (complaint 2). */
export const e10: Experiment = {
  id: "E10",
  title: "Head-of-line blocking: OPT-13B on A100-40, Alpaca-like with long prompts",
  async run({ seed }) {
    const model = A100_13B;
    const rows: Row[] = [];
    const traceAt = (rate: number) =>
      longPromptTrace(LONG_TOKENS, EVERY, ALPACA, { seed, count: COUNT, rate });
    const systems: readonly (readonly [caseId: string, create: () => System])[] = [
      ["in order", () => new Vllm({ model, seed })],
      ["passing over", () => new Vllm({ model, seed, maxPassedOver: MAX_PASSED_OVER })],
      ["passing over", () => new Quire({ model, seed })],
    ];
    let rate = 0;
    for (const [caseId, create] of systems) {
      const { averages, throughput } = await saturate(create(), traceAt);
      rate = rate === 0 ? LOAD * throughput : rate;
      const { timeToFirstToken } = await simulate(create(), traceAt(rate), { times: true });
      const { id } = create();
      const use = (100 * averages.tokenStates) / averages.total;
      rows.push(row(id, "kv-use", caseId, use, "%"));
      rows.push(row(id, "throughput", caseId, throughput, "requests/s"));
      rows.push(row(id, "ttft-p50", caseId, timeToFirstToken.percentile(0.5), "ms"));
      rows.push(row(id, "ttft-p99", caseId, timeToFirstToken.percentile(0.99), "ms"));
    }
    return {
      rows,
      notes: [
        `Every ${EVERY}th prompt has ${LONG_TOKENS} tokens. Times at ${LOAD} of what the paper's vLLM serves of this load when it is saturated.`,
      ],
      plots: [],
    };
  },
};
