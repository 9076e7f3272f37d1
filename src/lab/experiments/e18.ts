import { A100_13B } from "../costModel.ts";
import { type Experiment, type Row, read, row } from "../experiment.ts";
import { saturate } from "../measure.ts";
import type { Series } from "../plot.ts";
import { MAX_MODEL_TOKENS } from "../policies/limits.ts";
import type { SystemId } from "../system.ts";
import { createSystem } from "../systems.ts";
import { independentTrace, SHAREGPT } from "../workloads.ts";

const COUNT = 500;
const SYSTEMS: readonly SystemId[] = ["orca-max", "orca-pow2", "orca-oracle", "vllm", "quire"];
const GB = 1e9;

/** Where 40 GB go, and how they are filled as the batch grows (figure 1). */
export const e18: Experiment = {
  id: "E18",
  title: "Memory layout: 13B on A100-40",
  async run({ seed }) {
    const model = A100_13B;
    const kvBytes = model.kvSlots * model.kvBytesPerToken;
    const part = (bytes: number) => (100 * bytes) / model.memoryBytes;
    const other = model.memoryBytes - model.weightBytes - kvBytes;
    const rows: Row[] = [
      row("vllm", "memory-weights", "13b", part(model.weightBytes), "%", read(65)),
      row("vllm", "memory-kv", "13b", part(kvBytes), "%", read(30), { min: 30 }),
      row("vllm", "memory-other", "13b", part(other), "%"),
    ];
    const series: Series[] = [];
    const traceAt = (rate: number) => independentTrace(SHAREGPT, { seed, count: COUNT, rate });
    for (const id of SYSTEMS) {
      const { averages, throughput } = await saturate(createSystem(id, { model, seed }), traceAt);
      const { batchSize, total, tokenStates, reserved, internal } = averages;
      // Orca's chunks are what is taken from everybody else: all of the pool, when it is saturated.
      const isOrca = id.startsWith("orca");
      const held = isOrca ? total : tokenStates + reserved + internal;
      const gigabytes = (held * model.kvBytesPerToken) / batchSize / GB;
      rows.push(row(id, "kv-per-request", "sharegpt", gigabytes, "GB"));
      rows.push(row(id, "mean-batch", "sharegpt", batchSize, "requests"));
      rows.push(row(id, "throughput", "sharegpt", throughput, "requests/s"));
      series.push({
        name: id,
        points: [
          [0, model.weightBytes / GB],
          [batchSize, model.weightBytes / GB + gigabytes * batchSize],
        ],
      });
    }
    const perToken = (model.kvBytesPerToken / 1e6).toFixed(2);
    const longest = ((MAX_MODEL_TOKENS * model.kvBytesPerToken) / GB).toFixed(2);
    return {
      rows,
      notes: [
        `A token takes ${perToken} MB of K and V, ${MAX_MODEL_TOKENS} of them ${longest} GB. The paper: 65 % for weights, over 30 % for K and V.`,
        "kv-per-request: memory that nobody else can use, a request, at saturation.",
      ],
      plots: [
        {
          name: "E18-memory-growth",
          title: "Weights, K and V as the batch grows, 13B",
          xLabel: "requests in a batch",
          yLabel: "GB of 40",
          kind: { type: "lines", series, yMax: 40 },
        },
      ],
    };
  },
};
