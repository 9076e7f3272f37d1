import { A100_13B } from "../costModel.ts";
import { type Experiment, type Row, row } from "../experiment.ts";
import { saturate } from "../measure.ts";
import { Quire } from "../policies/quire.ts";
import { Vllm } from "../policies/vllm.ts";
import { independentTrace, parallel, SHAREGPT, type Trace } from "../workloads.ts";

const COUNT = 200;
const WIDTH = 4;

/** Samples that share their prompt's blocks until they write, or that are requests of their own. */
export const e19: Experiment = {
  id: "E19",
  title: `Copy-on-write sharing against recomputing: n=${WIDTH}, OPT-13B on A100-40, ShareGPT-like`,
  async run({ seed }) {
    const model = A100_13B;
    const rows: Row[] = [];
    const shared = (rate: number) =>
      independentTrace(SHAREGPT, { seed, count: COUNT, rate, mixture: parallel(WIDTH) });
    const cases = [
      ["shared", shared],
      ["recomputed", (rate: number) => separate(shared(rate))],
    ] as const;
    for (const id of ["vllm", "quire"] as const) {
      const samples = new Map<string, number>();
      for (const [caseId, traceAt] of cases) {
        const system = id === "vllm" ? new Vllm({ model, seed }) : new Quire({ model, seed });
        const { averages, throughput } = await saturate(system, traceAt);
        const computed = system instanceof Vllm ? system.computedTokens : system.executor.rows;
        const perSecond = throughput * (caseId === "shared" ? WIDTH : 1);
        samples.set(caseId, perSecond);
        rows.push(row(id, "rows", caseId, computed, "rows"));
        rows.push(row(id, "sample-throughput", caseId, perSecond, "samples/s"));
        rows.push(row(id, "logical-blocks", caseId, averages.logicalBlocks, "blocks"));
        rows.push(row(id, "physical-blocks", caseId, averages.physicalBlocks, "blocks"));
      }
      const gain = samples.get("shared")! / samples.get("recomputed")!;
      rows.push(row(id, "sharing-gain", `n=${WIDTH}`, gain, "x"));
    }
    return {
      rows,
      notes: [
        "recomputed: every sample is a request of its own that shares nothing. vLLM V1 is between the two: it shares full blocks only, through its prefix cache.",
      ],
      plots: [],
    };
  },
};

/** Each sample as a request. */
function separate(trace: Trace): Trace {
  return trace.flatMap((request) =>
    Array.from({ length: request.width }, (_, i) => ({
      ...request,
      index: request.firstSequence + i,
      firstSequence: request.firstSequence + i,
      width: 1,
    })),
  );
}
