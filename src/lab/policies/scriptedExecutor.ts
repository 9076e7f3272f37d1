import type { SamplingParams } from "../../engine/sampling.ts";
import type {
  Step,
  StepExecutor,
  StepHandle,
  StepResult,
  StepRow,
  TokenLogprobs,
} from "../../engine/step.ts";
import { BeamParents } from "../beamParents.ts";
import { type CostModel, copyMs, hostCopyMs, stepMs } from "../costModel.ts";
import { createRandom } from "../random.ts";
import { beamRank, beamToken, requestOf, sampledToken } from "./tokens.ts";
import { PAGED_KERNEL_FACTOR } from "./vllm.ts";

export interface ScriptedExecutorOptions {
  readonly model: CostModel;
  readonly seed: number;
  readonly blockSize: number;
  /** Called with the milliseconds that a step takes, when it is submitted. */
  readonly onStep: (ms: number) => void;
}

/** Log-probabilities of a beam's continuations: those to be followed, and all others. */
const FOLLOWED = 0;
const IGNORED = -1000;

/** Where a request's beams come from at a position. */
interface BeamRanks {
  readonly position: number;
  /** By rank: the rank of the parent. */
  readonly parents: readonly number[];
}

/**
 * A back end without a model: steps take what the cost model says, tokens are made up. They depend on seed
 * and position only, as the engine wants it. Beams are steered to the parents that the model of
 * ancestry draws.
 */
export class ScriptedExecutor implements StepExecutor {
  /** Requests with a row in the last step. */
  numRequestsOfStep = 0;
  /** Rows of all steps. */
  rows = 0;
  readonly #options: ScriptedExecutorOptions;
  readonly #beamParents: BeamParents;
  /** By slot: the sampling parameters of who is in it. */
  readonly #sampling: SamplingParams[] = [];
  readonly #requests = new Set<number>();
  readonly #beamRanks = new Map<number, BeamRanks>();

  constructor(options: ScriptedExecutorOptions) {
    this.#options = options;
    this.#beamParents = new BeamParents(createRandom(options.seed, "beams"));
  }

  submit(step: Step): StepHandle {
    for (const { slot, sampling } of step.slotResets) this.#sampling[slot] = sampling;
    this.#options.onStep(this.#costOf(step));
    return { result: Promise.resolve(this.#resultOf(step)) };
  }

  #costOf({ rows, copies, swapOuts, swapIns }: Step): number {
    const { model, blockSize } = this.#options;
    let sequences = 0;
    let contextTokens = 0;
    this.#requests.clear();
    for (let i = 0; i < rows.length; i++) {
      const { slot, position, token } = rows[i]!;
      // K and V of a sequence are read once for all its rows.
      if (rows[i + 1]?.slot === slot) continue;
      sequences += 1;
      contextTokens += position + 1;
      this.#requests.add(requestOf(token) ?? this.#sampling[slot]!.seed[1]);
    }
    this.numRequestsOfStep = this.#requests.size;
    this.rows += rows.length;
    return (
      stepMs(model, rows.length, sequences, contextTokens * PAGED_KERNEL_FACTOR) +
      copyMs(model, copies.length * blockSize) +
      this.#swapMs(swapOuts.length) +
      this.#swapMs(swapIns.length)
    );
  }

  /** All blocks of a direction are gathered into one transfer. */
  #swapMs(numBlocks: number): number {
    const { model, blockSize } = this.#options;
    return numBlocks === 0 ? 0 : hostCopyMs(model, numBlocks * blockSize, 1);
  }

  #resultOf({ samples, rows }: Step): StepResult {
    const tokens = samples.map(({ slot, position }) =>
      sampledToken(this.#sampling[slot]!.seed, position),
    );
    const logprobs = samples.map(({ slot, row, position }) => {
      const top = this.#sampling[slot]!.logprobs;
      return top === undefined ? undefined : this.#steer(rows[row]!, position, top);
    });
    return { tokens, logprobs, scores: [] };
  }

  /** What may follow a beam, which its last token names: the ranks of the next step whose parent it is. */
  #steer({ token: last }: StepRow, position: number, top: number): TokenLogprobs {
    const width = top / 2;
    const request = requestOf(last)!;
    const rank = beamRank(last);
    const { parents } = this.#ranksAt(request, position, width);
    const best: { token: number; logprob: number }[] = [];
    for (let next = 0; next < width; next++) {
      // All beams begin with the prompt.
      if (rank !== undefined && parents[next] !== rank) continue;
      best.push({ token: beamToken(request, next), logprob: FOLLOWED });
    }
    for (let other = width; best.length < top; other++) {
      best.push({ token: beamToken(request, other), logprob: IGNORED });
    }
    return { logprob: best[0]!.logprob, top: best };
  }

  /** Drawn once for a position: beams that resume are sampled one after the other. */
  #ranksAt(request: number, position: number, width: number): BeamRanks {
    const known = this.#beamRanks.get(request);
    if (known?.position === position) return known;
    this.#beamParents.draw(width);
    const ranks = { position, parents: [...this.#beamParents.parents] };
    this.#beamRanks.set(request, ranks);
    return ranks;
  }
}
