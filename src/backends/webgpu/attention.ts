import type { PlanSpec } from "../ops.ts";
import { ATTENTION_SPAN, packedHeads } from "./attentionShape.ts";
import type { BuildContext } from "./buildPlan.ts";
import { type Dispatch, dispatchThreads, dispatchWorkgroups, GRID_WIDTH } from "./dispatch.ts";
import { type Kernel, type Resources, read, write } from "./kernel.ts";
import { kvConstants } from "./kvPool.ts";
import { WORKGROUP_SIZE } from "./limits.ts";
import type { ShaderConstants } from "./shader.ts";
import { KV_SPLIT, stepResources } from "./stepBuffer.ts";

/** Most groups of lanes that share the tokens of a range; 4 tokens of each at a time divide every range. */
const MAX_TOKEN_GROUPS = 16;

/** Parts of a workgroup's lanes that are reduced one by one. */
const EIGHTHS = 8;

/** Scratch buffers: f32 [rows][heads][headDim], the outputs with the partial states behind them. */
interface AttentionBuffers {
  readonly queries: string;
  readonly outputs: string;
}

/** Attention over the KV ranges of a step's rows, then the merge of rows that have several. */
export async function attentionDispatches(
  context: BuildContext,
  spec: PlanSpec,
  layer: number,
  buffers: AttentionBuffers,
): Promise<readonly Dispatch[]> {
  const { numHeads, numKvHeads, headDim, maxContext, blockSize, maxRows } = spec;
  const { kernels, stepBuffer, scratch, pool, choice } = context;
  const headVectors = headDim / 4;
  const pack = packedHeads(numHeads / numKvHeads);
  const outputs = scratch(buffers.outputs);
  const constants = {
    ...kvConstants(spec),
    HEADS: numHeads,
    PACK: pack,
    MAX_ROWS: maxRows,
    TABLE_BLOCKS: Math.ceil(maxContext / blockSize),
  };
  const resources = {
    ...stepResources(stepBuffer),
    2: read(scratch(buffers.queries)),
    3: read(pool.layer(layer)),
    4: read(scratch("blockTables")),
    5: write(outputs),
  };
  const isFlat = choice.family === "flat";
  const groups = tokenGroups(headVectors);
  const mergeConstants = { HEADS: numHeads, HEAD_VECTORS: headVectors, MAX_ROWS: maxRows };
  const mergeResources = { ...stepResources(stepBuffer), 2: write(outputs) };
  const get = async (shader: string, own: ShaderConstants, bound: Resources) => {
    const kernel = await kernels.get(shader, own, bound);
    return [kernel, kernels.bind(kernel, bound)] as const satisfies [Kernel, GPUBindGroup];
  };
  const [attention, merge] = await Promise.all([
    isFlat
      ? get(
          "attention",
          { ...constants, SPAN_TOKENS: ATTENTION_SPAN },
          { ...resources, 11: kernels.constants([headVectors]) },
        )
      : get(
          "attentionWorkgroup",
          { ...constants, ...workgroupConstants(headVectors, groups) },
          { ...resources, 11: kernels.constants([headVectors, EIGHTHS, groups]) },
        ),
    get("mergeAttention", mergeConstants, mergeResources),
  ]);
  const dispatch = isFlat ? dispatchThreads : dispatchWorkgroups;
  return [
    dispatch(...attention, ({ items }) => items * (numHeads / pack)),
    dispatchThreads(...merge, ({ merges }) => merges * numHeads * headVectors),
  ];
}

/** Groups of lanes of a workgroup, each with a lane for every vector of a head. */
function tokenGroups(headVectors: number): number {
  let groups = MAX_TOKEN_GROUPS;
  while (groups * headVectors > WORKGROUP_SIZE) groups /= 2;
  return groups;
}

function workgroupConstants(headVectors: number, groups: number): ShaderConstants {
  const unroll = headVectors % 2 === 0 ? 2 : 1;
  return { SPLIT: KV_SPLIT, EIGHTHS, GROUPS: groups, UNROLL: unroll, FOUR: 4, GRID_WIDTH };
}
