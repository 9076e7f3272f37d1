// @ts-nocheck: the packages of this folder are installed on demand only
// Writes src/weights/fixtures/quants.json: blocks of every tensor type and the f32 that ggml's own
// code makes of them. Run `node quants.mjs` here after `npm ci`; the fixture is committed.
//
// Each type has a few blocks in full (`bytes`, `weights`), of random data quantised by ggml and of
// random bits, and a digest of `numBlocks` blocks of random bits, which the test makes anew.
import { createHash } from "node:crypto";
import { writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import koffi from "koffi";

const here = dirname(fileURLToPath(import.meta.url));
const binaries = join(here, "node_modules/@node-llama-cpp/linux-x64/bins/linux-x64");
const ggml = koffi.load(join(binaries, "libggml-base.so"));
const quantizeChunk = ggml.func(
  "size_t ggml_quantize_chunk(int type, const float *from, void *to, int64_t start, int64_t rows, int64_t columns, const float *importance)",
);
const rowSize = ggml.func("size_t ggml_row_size(int type, int64_t columns)");

const SEED = 1;
const NUM_BLOCKS = 2048;

// halves: where a block holds f16 numbers. The random ones are kept finite: C leaves open which NaN
// comes out of infinity times zero.
const TYPES = {
  F16: { id: 1, blockSize: 1, halves: [0], dequantize: "ggml_fp16_to_fp32_row" },
  Q4_0: { id: 2, blockSize: 32, halves: [0], dequantize: "dequantize_row_q4_0" },
  Q4_1: { id: 3, blockSize: 32, halves: [0, 2], dequantize: "dequantize_row_q4_1" },
  Q5_0: { id: 6, blockSize: 32, halves: [0], dequantize: "dequantize_row_q5_0" },
  Q5_1: { id: 7, blockSize: 32, halves: [0, 2], dequantize: "dequantize_row_q5_1" },
  Q8_0: { id: 8, blockSize: 32, halves: [0], dequantize: "dequantize_row_q8_0" },
  Q4_K: { id: 12, blockSize: 256, halves: [0, 2], dequantize: "dequantize_row_q4_K" },
  Q5_K: { id: 13, blockSize: 256, halves: [0, 2], dequantize: "dequantize_row_q5_K" },
  Q6_K: { id: 14, blockSize: 256, halves: [208], dequantize: "dequantize_row_q6_K" },
  BF16: { id: 30, blockSize: 1, halves: [], dequantize: "ggml_bf16_to_fp32_row" },
};

const fixture = { seed: SEED, numBlocks: NUM_BLOCKS, types: {} };
for (const [name, { id, blockSize, halves, dequantize }] of Object.entries(TYPES)) {
  const toFloats = ggml.func(`void ${dequantize}(const void *from, float *to, int64_t count)`);
  const weightsOf = (bytes, count) => {
    const weights = new Float32Array(count);
    toFloats(bytes, weights, count);
    return Buffer.from(weights.buffer);
  };
  const blockBytes = Number(rowSize(id, blockSize));
  const random = randomBlocks(SEED, NUM_BLOCKS, blockBytes, halves);

  const numSamples = blockSize === 1 ? 64 : 2;
  const numbers = Float32Array.from({ length: numSamples * blockSize }, (_, i) => Math.sin(i * i));
  const quantised = new Uint8Array(numSamples * blockBytes);
  quantizeChunk(id, numbers, quantised, 0, 1, numbers.length, null);
  const bytes = Buffer.concat([quantised, random.subarray(0, quantised.length)]);

  const digest = createHash("sha256").update(weightsOf(random, NUM_BLOCKS * blockSize));
  fixture.types[name] = {
    halves,
    bytes: bytes.toString("base64"),
    weights: weightsOf(bytes, 2 * numbers.length).toString("base64"),
    sha256: digest.digest("hex"),
  };
}
writeFileSync(
  join(here, "../../src/weights/fixtures/quants.json"),
  `${JSON.stringify(fixture, null, 1)}\n`,
);

/** The same bytes as randomBlocks in src/weights/dequantize.test.ts. */
function randomBlocks(seed, numBlocks, blockBytes, halves) {
  const bytes = new Uint8Array(numBlocks * blockBytes);
  let state = seed;
  for (let i = 0; i < bytes.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
  for (let at = 0; at < bytes.length; at += blockBytes) {
    for (const half of halves) {
      const high = at + half + 1;
      if ((bytes[high] & 0x7c) === 0x7c) bytes[high] &= 0x83; // a subnormal instead of NaN
    }
  }
  return bytes;
}
