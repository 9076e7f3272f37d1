import { GREEDY, type SamplingParams } from "../engine/sampling.ts";
import type { Step } from "../engine/step.ts";
import {
  BLOCK_SIZE,
  MAX_SEQUENCES,
  NUM_BLOCKS,
  PROMPT_TOKENS,
  VOCABULARY,
} from "./numericsModel.ts";

/** Rows a step, for each of the ways in which the same rows are run. The last is the widest kernel's. */
const ROWS_A_STEP = [1, 2, 4, 8] as const;

/** The rows that are run in each of these ways. */
export const NUM_ROWS = MAX_SEQUENCES;

/** The slot of the sequence, and the one that draws with noise from its prompt's last row. */
const OWN_SLOT = 1;
const DRAWING_SLOT = 0;

/**
 * A draw that tells: without its noise, its top-k or its top-p another token would come, and logits that are
 * off by 1, as they may be, give the same.
 */
export const DRAWING: SamplingParams = {
  ...GREEDY,
  temperature: 4,
  topK: 10,
  topP: 0.7,
  seed: [315, 0],
};

/** The steps of one sequence. */
export interface NumericsSteps {
  /** None, or the one before all others, which samples its last row, greedily and by drawing. */
  readonly prompt: Step | undefined;
  /** The NUM_ROWS rows that follow it, in the steps of each of the ways; every row is sampled. */
  readonly ways: readonly (readonly Step[])[];
}

/**
 * With a long prompt, or none. With one, blocks are copied and swapped between the first steps behind it,
 * which must not show.
 */
export function makeSteps(hasPrompt: boolean): NumericsSteps {
  const numPrompt = hasPrompt ? PROMPT_TOKENS : 0;
  const blocks = Array.from({ length: NUM_BLOCKS }, (_, i) => (i * 7 + 3) % NUM_BLOCKS);
  const table = blocks.slice(0, Math.ceil((numPrompt + NUM_ROWS) / BLOCK_SIZE));
  const [lastCopy, fullCopy, swapped] = blocks.slice(table.length) as [number, number, number];
  let id = 0;
  /** Rows from position `first` on; the last `numSampled` of them are sampled. */
  const step = (first: number, count: number, numSampled: number): Step => ({
    id: id++,
    hostReleases: [],
    swapOuts: [],
    swapIns: [],
    copies: [],
    slotResets: [],
    blockTableEntries: [],
    rows: Array.from({ length: count }, (_, i) => {
      const position = first + i;
      const block = table[Math.floor(position / BLOCK_SIZE)]!;
      return {
        slot: OWN_SLOT,
        token: (position * position + 5) % VOCABULARY,
        position,
        kvSlot: block * BLOCK_SIZE + (position % BLOCK_SIZE),
      };
    }),
    samples: Array.from({ length: numSampled }, (_, i) => {
      const row = count - numSampled + i;
      return { row, slot: OWN_SLOT, position: first + row + 1 };
    }),
    scores: [],
  });
  /** Steps of `rows` rows each. */
  const way = (rows: number): Step[] =>
    Array.from({ length: NUM_ROWS / rows }, (_, i) => step(numPrompt + i * rows, rows, rows));
  /** The table's entry `index` is `block` from now on. */
  const moveTo = (index: number, block: number) => {
    const source = table[index]!;
    table[index] = block;
    return { source, target: block, entry: { slot: OWN_SLOT, index, block } };
  };
  const reset = (slot: number, sampling: SamplingParams) => {
    return { slot, sampling, promptTokens: [], outputTokens: [] };
  };
  const entering: Pick<Step, "slotResets" | "blockTableEntries"> = {
    slotResets: [reset(OWN_SLOT, GREEDY)],
    blockTableEntries: table.map((block, index) => ({ slot: OWN_SLOT, index, block })),
  };
  if (!hasPrompt) {
    const ways = ROWS_A_STEP.map(way);
    const [single] = ways as [Step[]];
    single[0] = { ...single[0]!, ...entering };
    return { prompt: undefined, ways };
  }
  const last = step(0, numPrompt, 1);
  const prompt: Step = {
    ...last,
    ...entering,
    slotResets: [...entering.slotResets, reset(DRAWING_SLOT, DRAWING)],
    samples: [...last.samples, { ...last.samples[0]!, slot: DRAWING_SLOT }],
  };
  // The sequence goes on in copies of its last block and of a full one, while another goes to the host
  const copies = [moveTo(table.length - 1, lastCopy), moveTo(5, fullCopy)];
  const swapOuts = [{ block: table[2]!, hostBlock: 0 }];
  const { entry } = moveTo(2, swapped); // and comes back elsewhere in the next step.
  const ways = ROWS_A_STEP.map(way);
  const [single] = ways as [Step[]];
  single[0] = {
    ...single[0]!,
    swapOuts,
    copies: copies.map(({ source, target }) => ({ source, target })),
    blockTableEntries: copies.map((copy) => copy.entry),
  };
  const swapIns = [{ block: swapped, hostBlock: 0 }];
  single[1] = { ...single[1]!, swapIns, blockTableEntries: [entry] };
  return { prompt, ways };
}
