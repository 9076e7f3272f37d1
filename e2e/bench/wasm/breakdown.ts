import { STEP_IN_WORKER } from "../../../scripts/bench/rows.mjs";
import { summarize } from "../../../scripts/lib/statistics.mjs";
import { command, control, step as stepWords } from "../../../src/backends/wasm/abi.ts";
import { instantiateKernels } from "../../../src/backends/wasm/kernelModule.ts";
import type { BuilderContext } from "../../../src/backends/wasm/options.ts";
import type { PlanParts } from "../../../src/backends/wasm/plan.ts";
import { WasmPlanBuilder } from "../../../src/backends/wasm/planBuilder.ts";
import { gate, runShared } from "../../../src/backends/wasm/threads.ts";
import { SAMPLED_TOKEN, type Step } from "../../../src/engine/step.ts";
import { invariant } from "../../../src/errors.ts";
import { recordForward } from "../../../src/model/forward.ts";
import { loadWeights } from "../../../src/model/loadWeights.ts";
import { openModel } from "../../../src/model/model.ts";
import { planSpec } from "../../../src/model/planSpec.ts";
import type { ByteSource } from "../../../src/weights/byteSource.ts";
import { makeStep } from "../../fixtures/drivePlan.ts";
import { plainTokens } from "../tokens.ts";

const BLOCK_SIZE = 16;
const MAX_BATCH = 8;
const MAX_CONTEXT = 4352;
/** Rows of a prefill step. */
const CHUNK = 128;

/** What runs when, by the start of a kernel's name; the first that fits counts. */
const PARTS: readonly (readonly [prefix: string, part: string])[] = [
  ["linear_", "linear layers"],
  ["quantize_normed", "RMS norms and quantising"],
  ["quantize_gated", "SiLU, product and quantising"],
  ["quantize_", "quantising"],
  ["ropeWriteKv", "RoPE, K and V to the pool"],
  ["attend", "attention"],
  ["mergeAttention", "attention"],
  ["embed_", "embedding"],
  ["", "sampling"],
];
const HEAD = "output head";
/** What the medians of the parts leave of the program: in a quiet machine next to nothing. */
const STALLS = "waking threads and waiting for late ones";
const TYPESCRIPT = "step tables and results (TypeScript)";

/** Milliseconds a decode step by parts, the medians of `count` steps of `batch` sequences of `context` tokens. */
export type Breakdown = (
  batch: number,
  context: number,
  count: number,
) => Promise<Readonly<Record<string, number>>>;

/**
 * A plan like an engine's, whose steps are run twice: as the product runs them, and once more with a
 * look at the clock after every command. For that the caller takes one command at a time, while the
 * other threads run the whole program as ever. Commands can be repeated: they read what a step's
 * tables and the pool hold, and write the same again.
 */
export async function openBreakdown(
  source: ByteSource,
  context: BuilderContext,
): Promise<Breakdown> {
  const model = await openModel(source);
  const spec = planSpec(model.config, {
    maxContext: Math.min(MAX_CONTEXT, model.config.contextLength),
    maxSequences: MAX_BATCH,
    blockSize: BLOCK_SIZE,
  });
  let parts: PlanParts | undefined;
  const builder = new WasmPlanBuilder(spec, context, (_, made) => {
    parts = made;
  });
  recordForward(builder, model);
  const plan = await builder.finish();
  invariant(parts, "The builder made a plan.");
  await loadWeights(plan, source);

  const { recorder, memory, threads } = parts;
  const { program } = recorder;
  const words = new Int32Array(memory.buffer);
  const run = await instantiateKernels(context.kernels.modules, memory);
  const scratch = recorder.scratches[0]!;
  const partOf = partsOf(program.commands.map(({ kernel }) => kernel));

  let programMs = 0;
  const runProgram = threads.run.bind(threads);
  threads.run = (...program) => {
    const start = performance.now();
    runProgram(...program);
    programMs = performance.now() - start;
  };

  /** Runs the step whose tables are in the memory once more. Returns what each part took. */
  const runTimed = (): ReadonlyMap<string, number> => {
    const times = new Map<string, number>();
    const at = (address: number): number => words[address / 4]!;
    const { ROWS, LOGITS, ITEMS, MERGES } = stepWords;
    program.prepare(
      { rows: at(ROWS), logits: at(LOGITS), items: at(ITEMS), merges: at(MERGES) },
      context.threads,
    );
    words[control.PROGRAM / 4] = program.address;
    words[control.COMMANDS / 4] = program.numCommands;
    Atomics.store(words, control.OPEN / 4, gate.OPEN);
    Atomics.add(words, control.EPOCH / 4, 1);
    Atomics.notify(words, control.EPOCH / 4);
    let last = performance.now();
    for (const [i, part] of partOf.entries()) {
      runShared(run, words, program.address + i * command.BYTES, 1, scratch);
      const now = performance.now();
      times.set(part, (times.get(part) ?? 0) + now - last);
      last = now;
    }
    Atomics.store(words, control.OPEN / 4, gate.CLOSED);
    while (Atomics.load(words, control.ACTIVE / 4) > 0);
    return times;
  };

  const prompt = plainTokens(MAX_CONTEXT, 1, model.config.vocabularySize);
  let filled = 0;
  let id = 0;
  /** All sequences see the same first blocks, and each has blocks of its own behind them. */
  const prefill = async (numTokens: number): Promise<void> => {
    const blocks = Array.from({ length: Math.ceil(numTokens / BLOCK_SIZE) }, (_, i) => i);
    for (; filled < numTokens; filled += CHUNK) {
      const tokens = prompt.slice(filled, Math.min(filled + CHUNK, numTokens));
      await plan.submit(makeStep(id++, BLOCK_SIZE, [{ slot: 0, tokens, start: filled, blocks }]))
        .result;
    }
  };

  return async (batch, context, count) => {
    invariant(context % CHUNK === 0 && batch <= MAX_BATCH, "The context is whole chunks.");
    await prefill(context);
    const shared = context / BLOCK_SIZE;
    const firstOwn = MAX_CONTEXT / BLOCK_SIZE;
    const own = Math.ceil((count + 1) / BLOCK_SIZE);
    const stepAt = (position: number): Step => {
      const first = position === context;
      const made = makeStep(
        id++,
        BLOCK_SIZE,
        Array.from({ length: batch }, (_, slot) => ({
          slot,
          tokens: [first ? prompt[slot]! : SAMPLED_TOKEN],
          start: position,
          blocks: Array.from({ length: shared + own }, (_, i) =>
            i < shared ? i : firstOwn + slot * own + (i - shared),
          ),
          isSampled: true,
        })),
      );
      return first ? made : { ...made, blockTableEntries: [] };
    };
    invariant(firstOwn + batch * own <= plan.numBlocks, "The pool holds the sequences.");
    await plan.submit(stepAt(context)).result;
    const wholes: number[] = [];
    const programs: number[] = [];
    const samples: ReadonlyMap<string, number>[] = [];
    for (let i = 1; i <= count; i++) {
      const step = stepAt(context + i);
      const start = performance.now();
      await plan.submit(step).result;
      wholes.push(performance.now() - start);
      programs.push(programMs);
      samples.push(runTimed());
    }
    const times = [...new Set(partOf)].map(
      (part) => [part, median(samples.map((sample) => sample.get(part)!))] as const,
    );
    const inKernels = times.reduce((sum, [, time]) => sum + time, 0);
    const [whole, program] = [median(wholes), median(programs)];
    return {
      ...Object.fromEntries(times),
      [STALLS]: program - inKernels,
      [TYPESCRIPT]: whole - program,
      [STEP_IN_WORKER]: whole,
    };
  };
}

function median(values: readonly number[]): number {
  return summarize(values).median;
}

/** What each command is a part of. The last linear layer is the output head. */
function partsOf(kernels: readonly string[]): readonly string[] {
  const parts = kernels.map((kernel) => PARTS.find(([prefix]) => kernel.startsWith(prefix))![1]);
  parts[kernels.findLastIndex((kernel) => kernel.startsWith("linear_"))] = HEAD;
  return parts;
}
