import { A100_13B } from "../costModel.ts";
import { type Experiment, type Row, remembered, row } from "../experiment.ts";
import { kneeOf, saturate } from "../measure.ts";
import type { SystemId } from "../system.ts";
import { createSystem } from "../systems.ts";
import { chatbotTrace } from "../workloads.ts";

const COUNT = 500;
const SYSTEMS: readonly SystemId[] = ["orca-max", "orca-pow2", "orca-oracle", "vllm", "quire"];

/** Output tokens that all three Orcas reserve: the workload's limit. */
const RESERVED_OUTPUT = 1024;

/** The paper's: twice the rate of any Orca. */
const OVER_ORCA = remembered(2);

/** Chats whose last 1024 tokens are the prompt (H9, figure 17). */
export const e5: Experiment = {
  id: "E5",
  title: "Chatbot: OPT-13B on A100-40, prompts and answers of up to 1024 tokens",
  async run({ seed }) {
    const model = A100_13B;
    const rows: Row[] = [];
    const traceAt = (rate: number) => chatbotTrace({ seed, count: COUNT, rate });
    const knees = new Map<SystemId, number>();
    for (const id of SYSTEMS) {
      const create = () => createSystem(id, { model, seed, reservedOutput: RESERVED_OUTPUT });
      const { throughput } = await saturate(create(), traceAt);
      const knee = await kneeOf(model, create, traceAt, throughput);
      knees.set(id, knee.rate);
      rows.push(row(id, "knee", "chatbot", knee.rate, "requests/s"));
    }
    for (const id of ["vllm", "quire"] as const) {
      for (const orca of ["orca-max", "orca-pow2", "orca-oracle"] as const) {
        const ratio = knees.get(id)! / knees.get(orca)!;
        rows.push(row(id, "knee-over", `chatbot ${orca}`, ratio, "x", OVER_ORCA));
      }
    }
    return {
      rows,
      notes: [
        "No K and V are kept between the rounds of a conversation, as in the paper. All Orcas reserve 1024 output tokens: with prompts near 1024 the buddy allocator would give them that in any case.",
      ],
      plots: [],
    };
  },
};
