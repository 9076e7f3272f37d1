// @ts-nocheck: the packages of this folder are not installed with the project's.
/**
 * @file Makes the tokenizer fixtures: two small vocabularies, trained here, and the tokens that
 * llama.cpp cuts 3,000 nasty strings into with each pre-tokenizer.
 *
 *   cd e2e/oracle && npm ci --ignore-scripts --omit=optional && node tokenizer.mjs [--check]
 *
 * `--check` writes nothing and exits 1 if the committed fixtures differ from what it makes.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { getLlama, LlamaLogLevel } from "node-llama-cpp";
import { CONTROL_TEXTS, nastyStrings } from "./nastyStrings.mjs";

const FIXTURES = fileURLToPath(new URL("../../src/text/fixtures/", import.meta.url));
const SMOLLM2 = fileURLToPath(
  new URL("../../models/SmolLM2-135M-Instruct.Q4_1.gguf", import.meta.url),
);
const NUM_STRINGS = 3000;
const TRAINING_SEED = 1000;

/**
 * What to compare: the fixture's name, its vocabulary and pre-tokenizer, the seed of its strings.
 * The test reads the same list.
 * @type {{ name: string, vocabulary: string, pre?: string, seed: number }[]}
 */
const CASES = JSON.parse(readFileSync(join(FIXTURES, "cases.json"), "utf8"));

const check = process.argv.includes("--check");
const unknown = process.argv.slice(2).filter((argument) => argument !== "--check");
if (unknown.length > 0) {
  console.error(`Unknown argument ${unknown[0]}. The only one is --check.`);
  process.exit(2);
}

// --- Training ---

// Plain English beside the nasty strings, so that whole words become tokens.
const PROSE = `Every morning the ferryman counted his passengers twice. The first count was for the company,
which paid him for each of them; the second was for himself, because he didn't trust the river. He'd seen it
take things: a hat, a basket of pears, once a small dog that swam out again by itself and never forgave him.
"You're early," said the woman with the blue umbrella. "I'm always early," he answered, "it's the bridge that's
late." They had been promising a bridge since 1987. There were drawings of it in the town hall, there was a
committee of twelve people who met on the 3rd of each month, and there were 4,500 signed letters in favour of it.
What there wasn't was a bridge. In the evening, when the lamps were lit on the other side and the water had
become quite black, he would tie up the boat, take off his boots and write the two numbers into a book. They were
always the same. Nobody had ever asked to see them, and he wouldn't have known what to say if they had.
    for (let day = 0; day < days.length; day++) {
        const crossed = count(days[day]);
        if (crossed !== days[day].expected) { throw new Error("someone is missing"); }
    }
`;

function trainingTexts() {
  const isMarked = (/** @type {string} */ text) =>
    CONTROL_TEXTS.some((control) => text.includes(control));
  return [...nastyStrings(TRAINING_SEED, 2000).filter((text) => !isMarked(text)), PROSE];
}

/**
 * Merges the most frequent pair of symbols, `count` times. Words are not cut, on purpose: merges
 * then reach over every boundary that a pre-tokenizer draws, and a boundary drawn wrong shows.
 * @param {string[][]} sequences
 * @param {number} count
 */
function train(sequences, count) {
  /** @type {[string, string][]} */
  const merges = [];
  let current = sequences;
  while (merges.length < count) {
    /** @type {Map<string, { left: string, right: string, count: number }>} */
    const pairs = new Map();
    for (const symbols of current) {
      symbols.slice(1).forEach((right, i) => {
        const left = symbols[i] ?? "";
        const key = `${left.length} ${left}${right}`;
        const pair = pairs.get(key);
        if (pair) pair.count++;
        else pairs.set(key, { left, right, count: 1 });
      });
    }
    // The map keeps the order of the texts, and ties go to what came first.
    const best = [...pairs.values()].reduce((a, b) => (b.count > a.count ? b : a));
    if (best.count < 2) break;
    const { left, right } = best;
    merges.push([left, right]);
    current = current.map((symbols) => {
      const out = [];
      for (let i = 0; i < symbols.length; i++) {
        if (symbols[i] === left && symbols[i + 1] === right) {
          out.push(left + right);
          i++;
        } else out.push(symbols[i] ?? "");
      }
      return out;
    });
  }
  return merges;
}

// Values of `tokenizer.ggml.token_type`.
const NORMAL = 1;
const UNKNOWN = 2;
const CONTROL = 3;
const USER_DEFINED = 4;
const UNUSED = 5;
const BYTE = 6;

const CONTROL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|ab|>", "<|ab|>cd<|"];
const USER_TOKENS = ["<think>", "</think>", "<tool>", "|>cd", "\n\n\n", "   "];

function byteLetters() {
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) =>
    String.fromCharCode(
      (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae
        ? byte
        : next++,
    ),
  );
}

function trainBpe() {
  const letters = byteLetters();
  const encoder = new TextEncoder();
  const sequences = trainingTexts().map((text) =>
    Array.from(encoder.encode(text), (byte) => letters[byte] ?? ""),
  );
  const pairs = train(sequences, 2200);
  const tokens = [...CONTROL_TOKENS, ...letters];
  /** @type {number[]} */
  const types = tokens.map((_, id) => (id < CONTROL_TOKENS.length ? CONTROL : NORMAL));
  const known = new Set(tokens);
  for (const [left, right] of pairs) {
    if (known.has(left + right)) continue; // two merges may make one token
    known.add(left + right);
    tokens.push(left + right);
    types.push(NORMAL);
  }
  for (const text of USER_TOKENS) {
    tokens.push(text);
    types.push(USER_DEFINED);
  }
  tokens.push("[unused]");
  types.push(UNUSED);
  return {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.tokens": tokens,
    "tokenizer.ggml.token_type": types,
    "tokenizer.ggml.merges": pairs.map((pair) => pair.join(" ")),
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.add_bos_token": false,
  };
}

function trainSpm() {
  // llama.cpp reads tokens as C strings, which a NUL would end.
  const texts = trainingTexts().map((text) =>
    text
      .replaceAll("\0", "")
      .replace(/\p{Surrogate}/gu, "\uFFFD")
      .replaceAll(" ", "\u2581"),
  );
  const counts = new Map();
  for (const text of texts) for (const c of text) counts.set(c, (counts.get(c) ?? 0) + 1);
  const pairs = train(
    texts.map((text) => [...text]),
    2000,
  );
  const tokens = ["<unk>", "<s>", "</s>"];
  const types = [UNKNOWN, CONTROL, CONTROL];
  const scores = [0, 0, 0];
  const add = (
    /** @type {string} */ text,
    /** @type {number} */ type,
    /** @type {number} */ score,
  ) => {
    tokens.push(text);
    types.push(type);
    scores.push(score);
  };
  for (let byte = 0; byte < 256; byte++) {
    add(`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`, BYTE, 0);
  }
  const known = new Set(tokens);
  // Every third score is shared by three tokens: equal scores have to merge from the left.
  for (const [rank, pair] of pairs.entries()) {
    const text = pair.join("");
    if (known.has(text)) continue;
    known.add(text);
    add(text, NORMAL, -Math.floor(rank / 3));
  }
  // Rare characters have no token and end as bytes.
  for (const [character, n] of counts) {
    if (n >= 4 && !known.has(character)) add(character, NORMAL, -5000);
  }
  for (const text of [...CONTROL_TOKENS.slice(1), "<|eot_id|>"]) add(text, CONTROL, 0);
  for (const text of USER_TOKENS) {
    if (!known.has(text)) add(text, USER_DEFINED, 0);
  }
  return {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": tokens,
    "tokenizer.ggml.token_type": types,
    "tokenizer.ggml.scores": scores,
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 0,
  };
}

// --- A GGUF of metadata alone, as llama.cpp reads it for `vocabOnly` ---

/** @typedef {Record<string, string | number | boolean | string[] | number[]>} Metadata */

/** @param {Metadata} metadata */
function ggufBytes(metadata) {
  const u32 = (/** @type {number} */ value) => Buffer.from(Uint32Array.of(value).buffer);
  const u64 = (/** @type {number} */ value) => Buffer.from(BigUint64Array.of(BigInt(value)).buffer);
  const string = (/** @type {string} */ value) => {
    const bytes = Buffer.from(value, "utf8");
    return Buffer.concat([u64(bytes.length), bytes]);
  };
  const field = (/** @type {string} */ key, /** @type {Metadata[string]} */ value) => {
    if (typeof value === "string") return [u32(8), string(value)];
    if (typeof value === "boolean") return [u32(7), Buffer.of(Number(value))];
    if (key.endsWith("epsilon")) return [u32(6), Buffer.from(Float32Array.of(value).buffer)];
    if (typeof value === "number") return [u32(4), u32(value)];
    const head = (/** @type {number} */ type) => [u32(9), u32(type), u64(value.length)];
    if (isStrings(value)) return [...head(8), ...value.map(string)];
    if (key.endsWith("scores")) return [...head(6), Buffer.from(Float32Array.from(value).buffer)];
    return [...head(5), Buffer.from(Int32Array.from(value).buffer)];
  };
  const all = {
    "general.architecture": "llama",
    "llama.context_length": 128,
    "llama.embedding_length": 32,
    "llama.block_count": 1,
    "llama.feed_forward_length": 32,
    "llama.attention.head_count": 1,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    ...metadata,
  };
  const parts = [Buffer.from("GGUF"), u32(3), u64(0), u64(Object.keys(all).length)];
  for (const [key, value] of Object.entries(all)) parts.push(string(key), ...field(key, value));
  return Buffer.concat(parts);
}

/** @param {string[] | number[]} value @returns {value is string[]} */
function isStrings(value) {
  return typeof value[0] === "string";
}

// --- Token ids as varints ---

/**
 * For each string: the number of its plain tokens and the tokens; then, with control tokens parsed,
 * 0 if they are the same, else their number + 1 and the tokens. All as LEB128.
 * @param {{ plain: number[], special: number[] }[]} results
 */
function packIds(results) {
  /** @type {number[]} */
  const bytes = [];
  const push = (/** @type {number} */ value) => {
    let rest = value;
    while (rest >= 0x80) {
      bytes.push((rest & 0x7f) | 0x80);
      rest >>>= 7;
    }
    bytes.push(rest);
  };
  for (const { plain, special } of results) {
    push(plain.length);
    for (const id of plain) push(id);
    if (plain.length === special.length && plain.every((id, i) => id === special[i])) push(0);
    else {
      push(special.length + 1);
      for (const id of special) push(id);
    }
  }
  return Buffer.from(bytes);
}

/**
 * llama.cpp takes tokens with certain names (`</s>`, `<|fim_prefix|>`, ...) for control tokens though
 * the file says otherwise. Quire does so with start and end tokens only, and never makes one of text.
 * Strings with such names could not be compared; the vocabularies here have none, and it must stay so.
 */
function refuseRetyped(model, metadata) {
  for (const [id, type] of metadata["tokenizer.ggml.token_type"].entries()) {
    if (type !== CONTROL && model.getTokenAttributes(id).control) {
      throw new Error(`llama.cpp re-types ${metadata["tokenizer.ggml.tokens"][id]}; rename it.`);
    }
  }
}

let differing = 0;

/** @param {string} name @param {string | Buffer} content */
function emit(name, content) {
  const path = join(FIXTURES, name);
  const bytes = typeof content === "string" ? Buffer.from(content) : content;
  const same = existsSync(path) && readFileSync(path).equals(bytes);
  console.log(`${name}: ${bytes.length} bytes${same ? ", as committed" : ", changed"}`);
  if (same) return;
  differing++;
  if (!check) writeFileSync(path, bytes);
}

/** @type {Record<string, Metadata>} */
const vocabularies = { bpe: trainBpe(), spm: trainSpm() };
for (const [name, metadata] of Object.entries(vocabularies))
  emit(`${name}.json`, `${JSON.stringify(metadata)}\n`);

const llama = await getLlama({
  gpu: false,
  build: "never",
  skipDownload: true,
  logLevel: LlamaLogLevel.error,
});
const scratch = mkdtempSync(join(tmpdir(), "quire-tokenizer-"));
try {
  for (const { name, vocabulary, pre, seed } of CASES) {
    let modelPath = SMOLLM2;
    if (vocabulary !== "smollm2") {
      modelPath = join(scratch, `${name}.gguf`);
      const extra = pre === undefined ? {} : { "tokenizer.ggml.pre": pre };
      writeFileSync(modelPath, ggufBytes({ ...vocabularies[vocabulary], ...extra }));
    } else if (!existsSync(SMOLLM2)) {
      console.log(`${name}: left as it is, models/ has no SmolLM2`);
      continue;
    }
    const model = await llama.loadModel({ modelPath, vocabOnly: true });
    if (vocabulary !== "smollm2") refuseRetyped(model, vocabularies[vocabulary]);
    const results = nastyStrings(seed, NUM_STRINGS).map((text) => ({
      plain: model.tokenize(text, false),
      special: model.tokenize(text, true),
    }));
    emit(`${name}.ids`, packIds(results));
    await model.dispose();
  }
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
process.exit(check && differing > 0 ? 1 : 0);
