import { afterAll, expect, test } from "vitest";
import { ORACLE_CASES } from "../fixtures/oracleCases.ts";
import { checkOracleCase } from "../suites/oracle.ts";
import { openBackend, testedIcd } from "./device.ts";

/**
 * Each tensor type once, on the architectures in turn; each way to scale RoPE, head size and special shape once.
 * The reference back end runs all cases in every test run, the GPU in oracleAll.slow.test.ts.
 */
const CASES = [
  "llama F32",
  "llama Q4_1",
  "llama Q8_0",
  "qwen2 Q4_K",
  "qwen2 mixed",
  "llama rope factors",
  "qwen2 rope linear",
  "qwen3 rope yarn",
  "llama head 80",
  "llama head 96",
  "qwen3 head 128",
  "llama head 256",
  "llama heads 9/3",
  "qwen3 untied",
  "llama width 160",
];

/** Lavapipe takes seconds to compile each of these types' kernels: there, `mixed` has them all. */
const SWIFTSHADER_CASES = [
  "qwen2 F16",
  "qwen3 Q4_0",
  "qwen2 Q5_0",
  "qwen3 Q5_1",
  "qwen3 Q5_K",
  "llama Q6_K",
  "qwen3 BF16",
];

/** For the attention that real adapters get. Their other kernels give the bits of the flat ones (linear.test.ts). */
const WORKGROUP_CASES = ["llama heads 9/3", "llama head 80", "qwen3 head 128", "llama width 160"];

const backend = await openBackend();
const workgroup = await openBackend({ kernels: { family: "workgroup" } });
afterAll(() => {
  backend.dispose();
  workgroup.dispose();
});

// One row a step, so that only the kernels for one row are compiled; linear.test.ts shows that the kernels for
// more rows make the same bits.
const cases = testedIcd === "swiftshader" ? [...CASES, ...SWIFTSHADER_CASES] : CASES;

test.each(cases)(`%s: logits equal llama.cpp's, on ${testedIcd}`, async (name) => {
  await checkOracleCase(backend, oracleCase(name), 1);
});

test.each(WORKGROUP_CASES)(
  `%s: workgroups' logits equal llama.cpp's, on ${testedIcd}`,
  async (name) => {
    await checkOracleCase(workgroup, oracleCase(name), 1);
  },
);

function oracleCase(name: string) {
  const found = ORACLE_CASES.find((known) => known.name === name);
  expect(found, name).toBeDefined();
  return found!;
}
