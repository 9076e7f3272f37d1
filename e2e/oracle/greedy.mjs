// @ts-nocheck: the packages of this folder are not installed with the project's.
/** @file Computes e2e/fixtures/smollm2-greedy.json: what llama.cpp says to ten chats, token by token. */
import { writeFileSync } from "node:fs";
import { Template } from "@huggingface/jinja";
import { evaluate, withModel } from "./llama.mjs";
import { MODEL_FILE, writeSmolLm2Twin } from "./smollm2Twin.mjs";
import { importTypeScript } from "./typescript.mjs";

const NUM_TOKENS = 32;

const { parseGguf } = await importTypeScript("src/weights/gguf.ts");
const { GREEDY_CHATS } = await importTypeScript("e2e/fixtures/greedyChats.ts");

const { source, twinPath, modelSha256 } = await writeSmolLm2Twin();
const { metadata } = await parseGguf(source);
const vocabulary = metadata.get("tokenizer.ggml.tokens");
const endTokens = new Set(["<|im_end|>", "<|endoftext|>"].map((text) => vocabulary.indexOf(text)));
const template = new Template(metadata.get("tokenizer.chat_template"));

const chats = [];
await withModel(twinPath, 1024, async (model, sequence) => {
  for (const { name, messages } of GREEDY_CHATS) {
    const rendered = template.render({ messages, add_generation_prompt: true });
    const promptTokens = model.tokenize(rendered, true);
    await sequence.clearHistory();
    let input = promptTokens;
    const tokens = [];
    const gaps = []; // between the two best logits, one for each token and for the end of the turn
    let finishReason = "length";
    while (tokens.length < NUM_TOKENS) {
      const last = input.length - 1;
      const logits = (await evaluate(sequence, input, new Set([last]))).get(last);
      const { best, gap } = twoBest(logits);
      gaps.push(Number(gap.toFixed(5)));
      if (endTokens.has(best)) {
        finishReason = "stop";
        break;
      }
      tokens.push(best);
      input = [best];
    }
    chats.push({ name, messages, promptTokens: [...promptTokens], tokens, gaps, finishReason });
    console.log(
      `${name}: ${promptTokens.length} + ${tokens.length} tokens, smallest gap ${Math.min(...gaps)}`,
    );
    console.log(`  ${JSON.stringify(model.detokenize(tokens))}`);
  }
});

const header = {
  oracle: "node-llama-cpp 3.22.1, F32 twin, F32 KV",
  model: MODEL_FILE,
  modelSha256,
};
const lines = chats.map((chat) => `  ${JSON.stringify(chat)}`).join(",\n");
writeFileSync(
  new URL("../fixtures/smollm2-greedy.json", import.meta.url),
  `${JSON.stringify(header).slice(0, -1)},"chats":[\n${lines}\n]}\n`,
);
process.exit(0);

function twoBest(logits) {
  let best = 0;
  let second = -1;
  for (let id = 1; id < logits.length; id++) {
    if (logits[id] > logits[best]) {
      second = best;
      best = id;
    } else if (second < 0 || logits[id] > logits[second]) {
      second = id;
    }
  }
  return { best, gap: logits[best] - logits[second] };
}
