import { A100_13B, type CostModel, hostCopyMs, stepMs } from "../costModel.ts";
import { type Experiment, type Row, remembered, row } from "../experiment.ts";
import { saturate } from "../measure.ts";
import { Quire } from "../policies/quire.ts";
import { Vllm } from "../policies/vllm.ts";
import { independentTrace, SHAREGPT } from "../workloads.ts";

const BLOCK_SIZES = [1, 2, 4, 8, 16, 32, 64, 128, 256];
const END_TO_END_BLOCK_SIZES = [16, 32, 64];
/** Tokens that are brought back. */
const TOKENS = 512;
const COUNT = 500;

/** Swapping against recomputing by block size (H12, figure 19). */
export const e8: Experiment = {
  id: "E8",
  title: "Swap or recompute: OPT-13B on A100-40",
  async run({ seed }) {
    const model = A100_13B;
    const rows: Row[] = [];
    const recompute = recomputeMs(model);
    const curves = { paper: [] as [number, number][], quire: [] as [number, number][] };
    for (const blockSize of BLOCK_SIZES) {
      const caseId = `blocks-of-${blockSize}`;
      const numBlocks = TOKENS / blockSize;
      const apart = 2 * hostCopyMs(model, TOKENS, 2 * model.numLayers * numBlocks);
      const gathered = 2 * hostCopyMs(model, TOKENS, 1);
      rows.push(row("vllm", "swap-ms", caseId, apart, "ms"));
      rows.push(row("quire", "swap-ms", caseId, gathered, "ms"));
      curves.paper.push([blockSize, apart]);
      curves.quire.push([blockSize, gathered]);
    }
    rows.push(row("vllm", "recompute-ms", `tokens-${TOKENS}`, recompute, "ms"));
    const best = Math.min(...curves.paper.map(([, ms]) => ms));
    rows.push(
      row("vllm", "recompute-over-swap", "best block size", recompute / best, "x", remembered(1.2)),
    );
    for (const blockSize of END_TO_END_BLOCK_SIZES) {
      for (const recovery of ["recompute", "swap"] as const) {
        const system = new Vllm({ model, seed, blockSize, recovery });
        const traceAt = (rate: number) => independentTrace(SHAREGPT, { seed, count: COUNT, rate });
        const { throughput } = await saturate(system, traceAt);
        const caseId = `sharegpt blocks-of-${blockSize} ${recovery}`;
        rows.push(row("vllm", "throughput", caseId, throughput, "requests/s"));
      }
    }
    for (const [recovery, tuning] of [
      ["recompute", { numHostBlocks: 0 }],
      ["swap", {}],
    ] as const) {
      const traceAt = (rate: number) => independentTrace(SHAREGPT, { seed, count: COUNT, rate });
      const { throughput } = await saturate(new Quire({ model, seed, tuning }), traceAt);
      const caseId = `sharegpt blocks-of-16 ${recovery}`;
      rows.push(row("quire", "throughput", caseId, throughput, "requests/s"));
    }
    return {
      rows,
      notes: [
        `swap-ms: out and in again, ${TOKENS} tokens. The paper copies each block of each layer, K and V apart; ours gathers all blocks into one transfer, so its time does not depend on the block size.`,
        "recompute-ms: one step over the tokens, less the step that would have run anyway. The paper: never more than 20 % above swapping, and equal end to end for blocks of 16 to 64.",
        "Where the curves cross depends on what PCIe really carries, which is an estimate here (25 GB/s, 8 us a copy); that swapping explodes with small blocks does not.",
      ],
      plots: [
        {
          name: "E8-swap-recompute",
          title: `Bringing back ${TOKENS} tokens, OPT-13B`,
          xLabel: "tokens a block",
          yLabel: "ms",
          kind: {
            type: "lines",
            logX: true,
            yMax: 4 * recompute,
            series: [
              { name: "swap, paper", points: curves.paper },
              { name: "swap, gathered", points: curves.quire },
              { name: "recompute", points: BLOCK_SIZES.map((size) => [size, recompute]) },
            ],
          },
        },
      ],
    };
  },
};

function recomputeMs(model: CostModel): number {
  return stepMs(model, TOKENS, 1, TOKENS) - stepMs(model, 1, 1, 0) + stepMs(model, 1, 0, 0);
}
