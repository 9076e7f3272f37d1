import type { Backend, PlanBuilder, PlanSpec } from "../backends/ops.ts";
import { GREEDY } from "../engine/sampling.ts";
import type { Step } from "../engine/step.ts";
import { QuireError } from "../errors.ts";
import { rowByteLength, type TensorInfo, type TensorType } from "../weights/tensorType.ts";
import { EXPECTED_LOGITS } from "./numericsExpected.ts";

// A one-layer model of made-up weights that uses every kind of kernel, with logits computed once in float64:
// an adapter that gets them wrong would talk nonsense in real models.

const WIDTH = 64;
const FFN_WIDTH = 96;
const VOCABULARY = 40;
const BLOCK_SIZE = 16;

/** Tokens of the first step. More than one KV split (256), so that attention is merged. */
const PROMPT_TOKENS = 261;

/**
 * Largest error of a logit; they reach about 15, and a wrong kernel is off by that much. exact: f16 KV
 * accounts for about 1e-3, an adapter that rounds f16 towards zero for twice that. fast: activations in
 * 8 bits account for 0.38.
 */
const NUMERICS_TOLERANCE: Readonly<Record<Backend["precision"], number>> = {
  exact: 1e-2,
  fast: 1,
};

const SPEC: PlanSpec = {
  numLayers: 1,
  numHeads: 2,
  numKvHeads: 1,
  headDim: 64,
  width: WIDTH,
  vocabularySize: VOCABULARY,
  rmsEpsilon: 1e-5,
  rope: {
    pairing: "adjacent",
    frequencies: Float64Array.from({ length: 32 }, (_, i) => 10_000 ** (-i / 32)),
    magnitude: 1,
  },
  kvCacheDtype: "f16",
  blockSize: BLOCK_SIZE,
  numBlocks: 20,
  minBlocks: 20,
  numHostBlocks: 1,
  maxSequences: 2,
  maxContext: 320,
  maxRows: PROMPT_TOKENS + 1,
};

/**
 * Runs a small model and compares its logits with the right ones. Throws `adapter-numerics` if the back
 * end computes wrong results on this adapter, or in this browser.
 */
export async function checkNumerics(backend: Backend): Promise<void> {
  const found = await computeLogits(backend);
  let worst = 0;
  for (const [i, expected] of EXPECTED_LOGITS.entries()) {
    const error = Math.abs(found[i]! - expected);
    worst = error > worst || Number.isNaN(error) ? error : worst;
  }
  const allowed = NUMERICS_TOLERANCE[backend.precision];
  if (worst <= allowed) return;
  const { vendor = "", architecture = "", description = "" } = backend.adapter ?? {};
  const adapter = [vendor, architecture, description].filter((part) => part !== "").join(" ");
  const subject =
    backend.adapter === null
      ? `The ${backend.name} back end computes`
      : `The adapter "${adapter}" computes`;
  throw new QuireError(
    "adapter-numerics",
    `${subject} wrong results: a test model's logits are off by ${worst}, where ${allowed} is allowed. Update the browser and the GPU driver, or use another browser.`,
    { worst: String(worst), allowed, adapter },
  );
}

/**
 * Logits of three rows, [3][VOCABULARY]: a long prompt, then one decoded row, then four rows at once.
 * Before the last two, blocks are copied and swapped, which must not show.
 */
export async function computeLogits(backend: Backend): Promise<readonly number[]> {
  const builder = backend.createPlanBuilder(SPEC);
  const tensors = recordModel(builder);
  const plan = await builder.finish();
  try {
    for (const [i, tensor] of tensors.entries()) {
      await plan.writeRows(tensor, 0, makeWeights(tensor, i + 1));
    }
    const logits: number[] = [];
    for (const step of makeSteps()) {
      await plan.submit(step).result;
      logits.push(...(await plan.readLogits()));
    }
    return logits;
  } finally {
    plan.dispose();
  }
}

function recordModel(builder: PlanBuilder): TensorInfo[] {
  const tensors: TensorInfo[] = [];
  const tensor = (name: string, type: TensorType, rows: number, columns: number): TensorInfo => {
    const byteLength = rows * rowByteLength({ type, columns });
    const info = { name, type, rows, columns, byteOffset: 0, byteLength };
    tensors.push(info);
    return info;
  };
  const norm = (name: string) => tensor(name, "F32", 1, WIDTH);
  const linear = (name: string, rows: number, columns: number) => ({
    weight: tensor(name, "Q4_1", rows, columns),
    bias: undefined,
  });
  const table = tensor("table", "Q8_0", VOCABULARY, WIDTH);
  let x = builder.embed(table); // [width]
  const projections = [linear("q", 128, WIDTH), linear("k", 64, WIDTH), linear("v", 64, WIDTH)];
  const qkv = builder.normLinear(x, norm("attention norm"), projections); // [(2 + 2) 64]
  const q = builder.ropeWriteKv(0, qkv, undefined); // [2 * 64]
  x = builder.linearAdd(x, builder.attention(0, q), linear("output", WIDTH, 128)); // [width]
  const gate = linear("gate", FFN_WIDTH, WIDTH);
  const up = linear("up", FFN_WIDTH, WIDTH);
  x = builder.gatedMlp(x, norm("ffn norm"), gate, up, linear("down", WIDTH, FFN_WIDTH)); // [width]
  builder.sampleLogits(x, norm("output norm"), table); // [vocabulary]
  return tensors;
}

/** Blocks of random quants with scales that keep activations near 1. */
function makeWeights(tensor: TensorInfo, seed: number): Uint8Array<ArrayBuffer> {
  let state = seed;
  const random = (): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state >>> 16; // the low bits of such a generator repeat soon
  };
  const bytes = new Uint8Array(tensor.byteLength);
  const view = new DataView(bytes.buffer);
  if (tensor.type === "F32") {
    for (let at = 0; at < bytes.length; at += 4)
      view.setFloat32(at, 0.75 + random() / 2 ** 17, true);
    return bytes;
  }
  const blockBytes = tensor.type === "Q4_1" ? 20 : 34;
  for (let i = 0; i < bytes.length; i++) bytes[i] = random();
  for (let at = 0; at < bytes.length; at += blockBytes) {
    if (tensor.type === "Q4_1") {
      view.setUint16(at, 0x2800 + (random() & 0x3ff), true); // scale 2^-5 to 2^-4
      view.setUint16(at + 2, 0xb400 + (random() & 0x3ff), true); // minimum -1/4 to -1/2
    } else {
      view.setUint16(at, 0x2000 + (random() & 0x3ff), true); // scale 2^-7 to 2^-6
    }
  }
  return bytes;
}

function makeSteps(): Step[] {
  const blocks = Array.from({ length: SPEC.numBlocks }, (_, i) => (i * 7 + 3) % SPEC.numBlocks);
  const table = blocks.slice(0, Math.ceil((PROMPT_TOKENS + 5) / BLOCK_SIZE));
  const [lastCopy, fullCopy, swapped] = blocks.slice(table.length) as [number, number, number];
  const row = (position: number) => ({
    slot: 1,
    token: (position * position + 5) % VOCABULARY,
    position,
    kvSlot: table[Math.floor(position / BLOCK_SIZE)]! * BLOCK_SIZE + (position % BLOCK_SIZE),
  });
  const step = (first: number, count: number) => ({
    swapOuts: [],
    swapIns: [],
    copies: [],
    slotResets: [],
    blockTableEntries: [],
    rows: Array.from({ length: count }, (_, i) => row(first + i)),
    samples: [{ row: count - 1, slot: 1, position: first + count }],
    scores: [],
  });
  /** The table's entry `index` is `block` from now on. */
  const moveTo = (index: number, block: number) => {
    const source = table[index]!;
    table[index] = block;
    return { source, target: block, entry: { slot: 1, index, block } };
  };

  const prompt: Step = {
    ...step(0, PROMPT_TOKENS),
    id: 0,
    slotResets: [{ slot: 1, sampling: GREEDY, promptTokens: [], outputTokens: [] }],
    blockTableEntries: table.map((block, index) => ({ slot: 1, index, block })),
  };
  // The sequence goes on in copies of its last block and of a full one, while another goes to the host.
  const copies = [moveTo(table.length - 1, lastCopy), moveTo(5, fullCopy)];
  const decode: Step = {
    ...step(PROMPT_TOKENS, 1),
    id: 1,
    swapOuts: [{ block: table[2]!, hostBlock: 0 }],
    copies: copies.map(({ source, target }) => ({ source, target })),
    blockTableEntries: copies.map(({ entry }) => entry),
  };
  const { entry } = moveTo(2, swapped);
  const rows: Step = {
    ...step(PROMPT_TOKENS + 1, 4),
    id: 2,
    swapIns: [{ block: swapped, hostBlock: 0 }],
    blockTableEntries: [entry],
  };
  return [prompt, decode, rows];
}
