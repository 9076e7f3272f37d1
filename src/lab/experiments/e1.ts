import { A100_13B } from "../costModel.ts";
import {
  type Experiment,
  type Figure,
  near,
  type Row,
  read,
  remembered,
  row,
} from "../experiment.ts";
import { saturate } from "../measure.ts";
import { Quire } from "../policies/quire.ts";
import type { Averages } from "../simulation.ts";
import type { System, SystemId } from "../system.ts";
import { createSystem } from "../systems.ts";
import { independentTrace, SHAREGPT } from "../workloads.ts";

const COUNT = 1200;

interface Split {
  readonly id: SystemId;
  readonly use: Figure;
  readonly reserved?: Figure;
  readonly internal?: Figure;
  readonly external?: Figure;
}

/** The paper's figure 2, in percent of the KV pool. */
const SPLITS: readonly Split[] = [
  {
    id: "orca-max",
    use: read(20.4),
    reserved: remembered(13.3),
    internal: remembered(57.3),
    external: remembered(8.9),
  },
  {
    id: "orca-pow2",
    use: read(26.8),
    reserved: remembered(17.9),
    internal: remembered(13.6),
    external: remembered(41.6),
  },
  {
    id: "orca-oracle",
    use: read(38.2),
    reserved: remembered(25.2),
    external: remembered(36.6),
  },
  { id: "vllm", use: read(96.3) },
];

/** Points that ours may be away from the paper's use. */
const TOLERANCE = 3;

/** What the KV pool holds at saturation (H1, figure 2). */
export const e1: Experiment = {
  id: "E1",
  title: "What the KV memory holds: OPT-13B on A100-40, ShareGPT-like, saturated",
  async run({ seed }) {
    const model = A100_13B;
    const rows: Row[] = [];
    const bars: { readonly name: string; readonly parts: readonly number[] }[] = [];
    const measure = async (system: System) => {
      const traceAt = (rate: number) => independentTrace(SHAREGPT, { seed, count: COUNT, rate });
      const { averages } = await saturate(system, traceAt);
      return averages;
    };
    for (const { id, use, reserved, internal, external } of SPLITS) {
      const parts = percentages(await measure(createSystem(id, { model, seed })));
      rows.push(row(id, "kv-use", "sharegpt", parts[0], "%", use, near(use.value, TOLERANCE)));
      rows.push(row(id, "kv-reserved", "sharegpt", parts[1], "%", reserved));
      rows.push(row(id, "kv-internal", "sharegpt", parts[2], "%", internal));
      rows.push(row(id, "kv-external", "sharegpt", parts[3], "%", external));
      bars.push({ name: id, parts });
    }
    for (const [blockSize, min] of [
      [16, 97],
      [8, 98],
    ] as const) {
      const averages = await measure(new Quire({ model, seed, blockSize }));
      const parts = percentages(averages);
      const caseId = `sharegpt blocks-of-${blockSize}`;
      const ceiling = (100 * averages.tokenStates) / (averages.physicalBlocks * blockSize);
      rows.push(row("quire", "kv-use", caseId, parts[0], "%", undefined, { min }));
      rows.push(row("quire", "kv-ceiling", caseId, ceiling, "%"));
      const ofCeiling = (100 * parts[0]) / ceiling;
      rows.push(row("quire", "kv-of-ceiling", caseId, ofCeiling, "%", undefined, { min: 98 }));
      bars.push({ name: `quire, ${blockSize}`, parts });
    }
    return {
      rows,
      notes: [
        "All requests wait from the start; averages over time from a fifth of the requests until the queue is empty.",
        "kv-use: slots with a token's K and V. kv-reserved: held and still to be written. kv-internal: held and never to be written. kv-external: the rest, which is rounding to powers of two and chunks that nobody fits.",
        "kv-ceiling: the use if every block were held, which only the last, partly filled blocks of the sequences lower.",
        "Orca's figures depend on the spread of the lengths, of which the paper prints histograms only: within 3 points.",
      ],
      plots: [
        {
          name: "E1-kv-memory",
          title: "KV memory at saturation, OPT-13B, ShareGPT-like",
          xLabel: "system",
          yLabel: "% of the KV pool",
          kind: {
            type: "stacks",
            bars: bars.map(({ name }) => name),
            parts: ["token states", "reserved", "internal", "external"].map((name, part) => ({
              name,
              values: bars.map(({ parts }) => parts[part]!),
            })),
          },
        },
      ],
    };
  },
};

/** Token states, reserved, internal and external, of the whole pool. */
function percentages(averages: Averages): [number, number, number, number] {
  const { total, tokenStates, reserved, internal } = averages;
  const external = total - tokenStates - reserved - internal;
  const [a, b, c, d] = [tokenStates, reserved, internal, external].map((x) => (100 * x) / total);
  return [a!, b!, c!, d!];
}
