import { A100_13B } from "../costModel.ts";
import { type Experiment, type Figure, type Row, read, row } from "../experiment.ts";
import { kneeOf, saturate, type TraceAt } from "../measure.ts";
import { Vllm } from "../policies/vllm.ts";
import type { System, SystemId } from "../system.ts";
import { createSystem } from "../systems.ts";
import { documentTrace, sharedPrefixTrace, WMT16 } from "../workloads.ts";

const SYSTEMS: readonly SystemId[] = ["orca-oracle", "vllm", "quire"];

const PREFIX_COUNT = 1500;
/** Tokens of the prefix, and the paper's throughput over Orca (Oracle). */
const PREFIXES = [
  { tokens: 80, figure: read(1.67) },
  { tokens: 341, figure: read(3.58) },
];

/** Five documents are half of the pool. */
const DOCUMENTS = { documentTokens: 1500, questionsEach: 8, documentsAtOnce: 5 };
const NUM_DOCUMENTS = 40;

/** Translations with the same examples before each (H8, figure 16), and questions about documents. */
export const e4: Experiment = {
  id: "E4",
  title: "Shared prefixes: LLaMA-13B on A100-40",
  async run({ seed }) {
    const model = A100_13B;
    const rows: Row[] = [];
    for (const { tokens, figure } of PREFIXES) {
      const traceAt = (rate: number) =>
        sharedPrefixTrace(WMT16, tokens, { seed, count: PREFIX_COUNT, rate });
      const create = (id: SystemId) => createSystem(id, { model, seed });
      rows.push(...(await compare(`prefix-${tokens}`, traceAt, create, figure)));
    }
    const count = NUM_DOCUMENTS * DOCUMENTS.questionsEach;
    const documents = (rate: number) => documentTrace(DOCUMENTS, { seed, count, rate });
    const create = (id: SystemId) =>
      id === "vllm"
        ? new Vllm({ model, seed, reservesPrefixes: false })
        : createSystem(id, { model, seed });
    rows.push(...(await compare(`documents-${DOCUMENTS.documentTokens}`, documents, create)));
    return {
      rows,
      notes: [
        "Prefixes of 80 tokens (one example) and 341 (five) before WMT16-like sentences. vLLM's is reserved by the provider and never computed; ours is found by the prefix cache. Orca computes and keeps it for every request.",
        "The paper does not print the lengths of WMT16's sentences: 35 tokens in and 45 out on average are our estimate, on which the ratios depend.",
        `documents: ${DOCUMENTS.questionsEach} questions about each of ${NUM_DOCUMENTS} documents of ${DOCUMENTS.documentTokens} tokens, ${DOCUMENTS.documentsAtOnce} documents at a time. No provider reserves them, so the paper's vLLM shares nothing.`,
      ],
      plots: [],
    };
  },
};

async function compare(
  caseId: string,
  traceAt: TraceAt,
  create: (id: SystemId) => System,
  figure?: Figure,
): Promise<Row[]> {
  const rows: Row[] = [];
  const knees = new Map<SystemId, number>();
  for (const id of SYSTEMS) {
    const { throughput } = await saturate(create(id), traceAt);
    const knee = await kneeOf(A100_13B, () => create(id), traceAt, throughput);
    knees.set(id, knee.rate);
    rows.push(row(id, "knee", caseId, knee.rate, "requests/s"));
  }
  for (const id of ["vllm", "quire"] as const) {
    const ratio = knees.get(id)! / knees.get("orca-oracle")!;
    rows.push(row(id, "knee-over", `${caseId} orca-oracle`, ratio, "x", figure));
  }
  return rows;
}
