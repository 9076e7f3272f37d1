import type { Backend, Plan } from "../backends/ops.ts";
import type { Step } from "../engine/step.ts";
import { QuireError, type QuireErrorData } from "../errors.ts";
import { EXPECTED_DRAW, EXPECTED_NORMED, EXPECTED_PLAIN } from "./numericsExpected.ts";
import {
  makeWeights,
  NORMED_MODEL,
  type NumericsModel,
  PLAIN_MODEL,
  recordModel,
  VOCABULARY,
} from "./numericsModel.ts";
import { makeSteps } from "./numericsSteps.ts";

/**
 * Largest error of a logit; they reach about 15, and a wrong kernel is off by that much. exact: f16 KV
 * accounts for about 1e-3, an adapter that rounds f16 towards zero for twice that. fast: activations in
 * 8 bits account for 0.38.
 */
const NUMERICS_TOLERANCE: Readonly<Record<Backend["precision"], number>> = {
  exact: 1e-2,
  fast: 1,
};

/** Which of the rows behind the prompt are compared with float64's; the others must be the same bits as these. */
const COMPARED_ROWS = [0, 4];

/** What the check found of a back end that computes right. */
export interface NumericsReport {
  /** The same rows have the same bits in steps of 1, 2, 4 and 8 rows. */
  readonly isBatchInvariant: boolean;
}

/** A model with what it must come to. */
export interface NumericsCase {
  readonly model: NumericsModel;
  readonly hasPrompt: boolean;
  /** Logits computed once in float64: of the prompt's last row, if there is one, and of COMPARED_ROWS. */
  readonly logits: readonly number[];
  /** Tokens drawn with noise. */
  readonly draws: readonly number[];
}

export const NUMERICS_CASES: readonly NumericsCase[] = [
  { model: PLAIN_MODEL, hasPrompt: true, logits: EXPECTED_PLAIN, draws: [EXPECTED_DRAW] },
  { model: NORMED_MODEL, hasPrompt: false, logits: EXPECTED_NORMED, draws: [] },
];

/** What a back end made of a model. */
export interface NumericsRun extends NumericsReport {
  /** As in `NumericsCase.logits`. */
  readonly logits: readonly number[];
  readonly draws: readonly number[];
  /** Tokens that were sampled greedily, and the likeliest ones by the very logits that they were sampled from. */
  readonly greedy: readonly { readonly token: number; readonly likeliest: number }[];
}

/**
 * Runs small models and compares their logits and tokens with the right ones. Throws `adapter-numerics` if
 * the back end computes wrong results on this adapter, or in this browser.
 */
export async function checkNumerics(backend: Backend): Promise<NumericsReport> {
  let isBatchInvariant = true;
  // The second model's own kernels take software adapters seconds to compile; tests run those that there are.
  const cases = backend.adapter?.isFallback ? NUMERICS_CASES.slice(0, 1) : NUMERICS_CASES;
  for (const expected of cases) {
    const found = await runNumerics(backend, expected);
    checkLogits(backend, found.logits, expected.logits);
    for (const { token, likeliest } of found.greedy) {
      if (token === likeliest) continue;
      throw wrongResults(backend, `a test model's next token is ${token} instead of ${likeliest}`);
    }
    for (const [i, right] of expected.draws.entries()) {
      const draw = found.draws[i];
      if (draw === right) continue;
      throw wrongResults(backend, `a test model's draw is the token ${draw} instead of ${right}`);
    }
    isBatchInvariant &&= found.isBatchInvariant;
  }
  return { isBatchInvariant };
}

/** The error for a back end whose rows have other bits in larger steps: a request's tokens would depend on others. */
export function batchDependence(backend: Backend): QuireError {
  return wrongResults(backend, "a row comes out differently in steps of other sizes");
}

/** Runs one of the models. For tests too: everybody else wants the verdict. */
export async function runNumerics(
  backend: Backend,
  { model, hasPrompt }: Pick<NumericsCase, "model" | "hasPrompt">,
): Promise<NumericsRun> {
  const builder = backend.createPlanBuilder(model.spec);
  const tensors = recordModel(builder, model);
  const plan = await builder.finish();
  try {
    for (const [i, tensor] of tensors.entries()) {
      await plan.writeRows(tensor, 0, makeWeights(tensor, i + 1));
    }
    const { prompt, ways } = makeSteps(hasPrompt);
    const greedy: { token: number; likeliest: number }[] = [];
    const logits: number[] = [];
    const draws: number[] = [];
    if (prompt !== undefined) {
      const [own, drawing] = await run(plan, prompt);
      greedy.push({ token: own!.token, likeliest: argmax(own!.logits) });
      logits.push(...own!.logits);
      draws.push(drawing!.token);
    }
    const bits: string[] = [];
    for (const [i, steps] of ways.entries()) {
      const rows: SampledRow[] = [];
      for (const step of steps) rows.push(...(await run(plan, step)));
      for (const row of rows) greedy.push({ token: row.token, likeliest: argmax(row.logits) });
      if (i === 0) for (const row of COMPARED_ROWS) logits.push(...rows[row]!.logits);
      bits.push(rows.map((row) => new Uint32Array(row.logits.slice().buffer).join()).join());
    }
    return { logits, draws, greedy, isBatchInvariant: new Set(bits).size === 1 };
  } finally {
    plan.dispose();
  }
}

interface SampledRow {
  readonly token: number;
  readonly logits: Float32Array; // [VOCABULARY]
}

async function run(plan: Plan, step: Step): Promise<readonly SampledRow[]> {
  const { result } = plan.submit(step);
  // Asked for at once, not when the result has come: that is one wait a step.
  const [{ tokens }, logits] = await Promise.all([result, plan.readLogits()]);
  return tokens.map((token, i) => {
    return { token, logits: logits.slice(i * VOCABULARY, (i + 1) * VOCABULARY) };
  });
}

function checkLogits(
  backend: Backend,
  found: readonly number[],
  expected: readonly number[],
): void {
  let worst = 0;
  for (const [i, right] of expected.entries()) {
    const error = Math.abs(found[i]! - right);
    worst = error > worst || Number.isNaN(error) ? error : worst;
  }
  const allowed = NUMERICS_TOLERANCE[backend.precision];
  if (worst <= allowed) return;
  const what = `a test model's logits are off by ${worst}, where ${allowed} is allowed`;
  throw wrongResults(backend, what, { worst: String(worst), allowed });
}

function wrongResults(backend: Backend, what: string, data: QuireErrorData = {}): QuireError {
  const { vendor = "", architecture = "", description = "" } = backend.adapter ?? {};
  const adapter = [vendor, architecture, description].filter((part) => part !== "").join(" ");
  const subject =
    backend.adapter === null
      ? `The ${backend.name} back end computes`
      : `The adapter "${adapter}" computes`;
  return new QuireError(
    "adapter-numerics",
    `${subject} wrong results: ${what}. Update the browser and the GPU driver, or use another browser.`,
    { ...data, adapter },
  );
}

/** Ties go to the lowest id. A token's, whatever the logits: where none is a number, nothing is sampled. */
function argmax(logits: Float32Array): number {
  let best = 0;
  for (const [token, logit] of logits.entries()) if (logit > logits[best]!) best = token;
  return best;
}
