import { GREEDY } from "../../engine/sampling.ts";
import { A100_13B } from "../costModel.ts";
import { type Experiment, type Row, row } from "../experiment.ts";
import { Quire } from "../policies/quire.ts";
import { createRandom } from "../random.ts";

const TURNS = 6;
const BLOCK_SIZE = 16;
const MAX_USER_TOKENS = 120;
const MAX_ANSWER_TOKENS = 200;

/** Tokens of a conversation that its next turn computes. */
export const e11: Experiment = {
  id: "E11",
  title: "Prefix caching over the turns of a chat",
  async run({ seed }) {
    const quire = new Quire({ model: A100_13B, seed, blockSize: BLOCK_SIZE });
    const random = createRandom(seed, "turns");
    const rows: Row[] = [];
    const history: number[] = [];
    for (let turn = 1; turn <= TURNS; turn++) {
      // All but the last token of what was said before have been computed.
      const known = Math.max(0, history.length - 1);
      const userTokens = 1 + random.integer(MAX_USER_TOKENS);
      for (let i = 0; i < userTokens; i++) history.push(random.integer(2 ** 16));
      const promptLength = history.length;
      const maxTokens = 2 + random.integer(MAX_ANSWER_TOKENS);
      const before = quire.executor.rows;
      history.push(...(await answer(quire, turn, history, maxTokens)));
      const promptRows = quire.executor.rows - before - (maxTokens - 1);
      const ofBlocks = promptLength - Math.floor(known / BLOCK_SIZE) * BLOCK_SIZE;
      const target = { max: promptLength - known };
      const caseId = `turn-${turn}`;
      rows.push(row("quire", "prompt-tokens", caseId, promptLength, "tokens"));
      rows.push(row("quire", "prompt-rows", caseId, promptRows, "rows", undefined, target));
      rows.push(row("vllm", "prompt-rows", caseId, ofBlocks, "rows"));
    }
    return {
      rows,
      notes: [
        "prompt-rows: tokens of the prompt that are computed. Ours finds single tokens of a partly equal block, so a turn computes what is new and the last token of the answer before, which was sampled and never run.",
        "vllm here is vLLM V1's rule, full blocks only: the tokens of a partly filled block are computed again. The paper's vLLM computes all of every prompt.",
      ],
      plots: [],
    };
  },
};

async function answer(
  { engine }: Quire,
  id: number,
  promptTokens: readonly number[],
  maxTokens: number,
): Promise<number[]> {
  engine.add({
    id,
    promptTokens: [...promptTokens],
    n: 1,
    maxTokens,
    stopTokenIds: [],
    ignoreEos: true,
    sampling: { ...GREEDY, seed: [0, id] },
  });
  const tokens: number[] = [];
  while (engine.hasWork) {
    for (const output of await engine.step()) tokens.push(...output.tokens);
  }
  return tokens;
}
