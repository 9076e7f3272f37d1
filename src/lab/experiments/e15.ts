import { A10G_7B, A100_13B } from "../costModel.ts";
import { type Experiment, type Row, read, remembered, row } from "../experiment.ts";
import { saturate } from "../measure.ts";
import type { SystemId } from "../system.ts";
import { createSystem } from "../systems.ts";
import { independentTrace, parallel, SHAREGPT } from "../workloads.ts";

const COUNT = 1000;
const SYSTEMS: readonly SystemId[] = ["hf", "tgi", "vllm", "quire"];

const MACHINES = [
  { name: "7b-a10g", model: A10G_7B },
  { name: "13b-a100", model: A100_13B },
];

/** The blog's ranges over both machines: from its least to its most. */
const RANGES = [
  { n: 1, over: "hf", figure: read(24), target: { min: 14, max: 24 } },
  { n: 1, over: "tgi", figure: remembered(2.5), target: { min: 2.2, max: 2.5 } },
  { n: 3, over: "hf", figure: remembered(15), target: { min: 8.5, max: 15 } },
  { n: 3, over: "tgi", figure: read(3.5), target: { min: 3.3, max: 3.5 } },
] as const;

/** Throughput over Hugging Face Transformers and TGI, as the blog of June 2023 has it (H13). */
export const e15: Experiment = {
  id: "E15",
  title: "Throughput over HF and TGI: LLaMA-7B on A10G, LLaMA-13B on A100-40, ShareGPT-like",
  async run({ seed }) {
    const rows: Row[] = [];
    for (const { name, model } of MACHINES) {
      for (const n of [1, 3]) {
        const count = Math.ceil(COUNT / n);
        const traceAt = (rate: number) =>
          independentTrace(SHAREGPT, { seed, count, rate, mixture: parallel(n) });
        const throughputs = new Map<SystemId, number>();
        for (const id of SYSTEMS) {
          const { throughput } = await saturate(createSystem(id, { model, seed }), traceAt);
          throughputs.set(id, throughput);
          rows.push(row(id, "throughput", `${name} n=${n}`, throughput, "requests/s"));
        }
        for (const { n: of, over, figure, target } of RANGES) {
          if (of !== n) continue;
          for (const id of ["vllm", "quire"] as const) {
            const ratio = throughputs.get(id)! / throughputs.get(over)!;
            const caseId = `${name} n=${n} ${over}`;
            const wanted = id === "quire" ? target : undefined;
            rows.push(row(id, "throughput-over", caseId, ratio, "x", figure, wanted));
          }
        }
      }
    }
    return {
      rows,
      notes: [
        "The blog gives ranges over both machines; the table has their upper ends, the targets both.",
        "TGI is what it was in June 2023: contiguous K and V for prompt and longest answer, copied whenever batches are joined, so that no more than half of the pool can be reserved; prompts run alone.",
        "Over TGI with n=3 the gain is smaller than the blog's: sharing saves what E3 says, a fifth of the blocks, and no more than that can be gained here over three requests of their own.",
        "HF's step overhead (0.5 ms a layer for Python and unfused kernels) and its tripled K and V traffic (it concatenates) are estimates.",
      ],
      plots: [],
    };
  },
};
