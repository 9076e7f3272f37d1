import { describe, expect, test } from "vitest";
import type { Backend, Plan } from "../backends/ops.ts";
import { createReferenceBackend } from "../backends/reference/backend.ts";
import { sample } from "../backends/reference/sampler.ts";
import type { SamplingParams } from "../engine/sampling.ts";
import type { Step, StepResult } from "../engine/step.ts";
import { checkNumerics, NUMERICS_CASES, runNumerics } from "./numerics.ts";
import { EXPECTED_DRAW, EXPECTED_PLAIN } from "./numericsExpected.ts";
import { PROMPT_TOKENS, VOCABULARY } from "./numericsModel.ts";
import { DRAWING } from "./numericsSteps.ts";

test.each(NUMERICS_CASES)("what is expected is the float64 reference's: %#", async (expected) => {
  const { logits, draws, greedy, isBatchInvariant } = await runNumerics(
    createReferenceBackend(),
    expected,
  );
  expect(logits.length).toBe(expected.logits.length);
  for (const [i, logit] of logits.entries()) expect(expected.logits[i]).toBeCloseTo(logit, 4);
  // Wide enough to tell a wrong kernel, and not so wide that only one token counts.
  expect(Math.max(...logits) - Math.min(...logits)).toBeGreaterThan(2);
  expect(draws).toEqual(expected.draws);
  expect(greedy.length).toBe(expected.hasPrompt ? 33 : 32);
  expect(greedy.every(({ token, likeliest }) => token === likeliest)).toBe(true);
  expect(isBatchInvariant).toBe(true);
});

describe("the drawn token", () => {
  const logits = Float64Array.from(EXPECTED_PLAIN.slice(0, VOCABULARY));
  const counts = { prompt: new Set<number>(), output: new Map<number, number>() };
  const draw = (changes: Partial<SamplingParams>, from = logits): number =>
    sample(from, { ...DRAWING, ...changes }, counts, PROMPT_TOKENS);

  test("is another one without noise, top-k or top-p", () => {
    expect(draw({})).toBe(EXPECTED_DRAW);
    for (const changes of [{ temperature: 0 }, { topK: 0 }, { topP: 1 }]) {
      expect(draw(changes), JSON.stringify(changes)).not.toBe(EXPECTED_DRAW);
    }
  });

  test("is the same where logits are off by what is allowed", () => {
    for (let i = 0; i < 500; i++) {
      const off = logits.map((logit, token) => logit + Math.sin(i * 12.9898 + token * 78.233));
      expect(draw({}, off)).toBe(EXPECTED_DRAW);
    }
  });
});

test("a back end that computes right passes", async () => {
  await expect(checkNumerics(createReferenceBackend())).resolves.toEqual({
    isBatchInvariant: true,
  });
});

test("a back end whose rows depend on their company is right, and told apart", async () => {
  for (const size of [2, 4, 8]) {
    const backend = spoiled((logits, { rows }) => {
      if (rows.length === size) flipLastBit(logits, 70);
    });
    expect(await checkNumerics(backend), `${size} rows`).toEqual({ isBatchInvariant: false });
  }
});

test.each<[string, Spoil, RegExp]>([
  ["one logit off", (logits) => logits.fill(logits[7]! + 0.02, 7, 8), /off by 0\.0.*0\.01 is/],
  ["not a number", (logits) => logits.fill(Number.NaN, 39, 40), /off by NaN/],
  ["all zero", (logits) => logits.fill(0), /off by/],
  [
    "another token than the likeliest",
    (_, { rows }, tokens) => {
      if (rows.length === 4) tokens[2] = (tokens[2]! + 1) % VOCABULARY;
    },
    /next token is \d+ instead of \d+/,
  ],
  [
    "another draw",
    (_, { rows }, tokens) => {
      if (rows.length === PROMPT_TOKENS) tokens[1] = 31;
    },
    /draw is the token 31 instead of 36/,
  ],
])("%s is refused by code", async (_, spoil, message) => {
  await expect(checkNumerics(spoiled(spoil))).rejects.toMatchObject({
    code: "adapter-numerics",
    message: expect.stringMatching(message),
  });
});

test("a software adapter is spared the second model", async () => {
  const numWidths = async (isFallback: boolean) => {
    const reference = createReferenceBackend();
    const widths = new Set<number>();
    const adapter = { vendor: "", architecture: "", description: "", isFallback };
    const createPlanBuilder: Backend["createPlanBuilder"] = (spec) => {
      widths.add(spec.width);
      return reference.createPlanBuilder(spec);
    };
    await checkNumerics({ ...reference, adapter, createPlanBuilder });
    return widths.size;
  };
  expect(await numWidths(true)).toBe(1);
  expect(await numWidths(false)).toBe(2);
});

describe("the second model tells", () => {
  test.each(["q bias", "k bias", "v bias", "q norm", "k norm"])("a wrong %s", async (name) => {
    const backend = changed((plan) => {
      const writeRows = plan.writeRows.bind(plan);
      plan.writeRows = (tensor, rowStart, bytes) =>
        writeRows(tensor, rowStart, tensor.name === name ? new Uint8Array(bytes.length) : bytes);
      return plan;
    });
    await expect(checkNumerics(backend)).rejects.toMatchObject({ code: "adapter-numerics" });
  });

  test("a wrong pairing of the rotated dimensions", async () => {
    const reference = createReferenceBackend();
    const createPlanBuilder: Backend["createPlanBuilder"] = (spec) => {
      const rope = { ...spec.rope, pairing: "adjacent" } as const;
      return reference.createPlanBuilder({ ...spec, rope });
    };
    await expect(checkNumerics({ ...reference, createPlanBuilder })).rejects.toMatchObject({
      code: "adapter-numerics",
    });
  });
});

/** Changes what a step gives: its logits, its tokens. */
type Spoil = (logits: Float32Array<ArrayBuffer>, step: Step, tokens: number[]) => void;

function flipLastBit(values: Float32Array<ArrayBuffer>, index: number): void {
  new Uint32Array(values.buffer)[index]! ^= 1;
}

/** The reference back end on an adapter that spoils what it computes. */
function spoiled(spoil: Spoil): Backend {
  return changed((plan) => spoilPlan(plan, spoil));
}

/** The reference back end with other plans. */
function changed(change: (plan: Plan) => Plan): Backend {
  const reference = createReferenceBackend();
  return {
    ...reference,
    createPlanBuilder: (spec) => {
      const builder = reference.createPlanBuilder(spec);
      const finish = builder.finish.bind(builder);
      builder.finish = async (signal) => change(await finish(signal));
      return builder;
    },
  };
}

function spoilPlan(plan: Plan, spoil: Spoil): Plan {
  const submit = plan.submit.bind(plan);
  const readLogits = plan.readLogits.bind(plan);
  let spoiling: Promise<{ logits: Float32Array; result: StepResult }>;
  plan.submit = (step) => {
    const { result } = submit(step);
    spoiling = Promise.all([result, readLogits()]).then(([found, logits]) => {
      const [own, tokens] = [Float32Array.from(logits), [...found.tokens]];
      spoil(own, step, tokens);
      return { logits: own, result: { ...found, tokens } };
    });
    return { result: spoiling.then((spoilt) => spoilt.result) };
  };
  plan.readLogits = async () => (await spoiling).logits;
  return plan;
}
