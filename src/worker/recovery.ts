import type { Backend } from "../backends/ops.ts";
import { QuireError } from "../errors.ts";
import { pause } from "../weights/pause.ts";
import type { ChosenBackend } from "./chooseBackend.ts";
import { type PlaceableModel, type Placement, placeModel } from "./placement.ts";

/** A browser starts its GPU process anew within seconds: how long to wait before each further try. */
const WAITS_MS = [250, 500, 1000, 2000, 4000];

/** A device that is lost more often than `MAX_LOSSES` times within `WINDOW_MS` is no use to anyone. */
const MAX_LOSSES = 3;
const WINDOW_MS = 10 * 60_000;

export interface RecoveryOptions {
  /** Opens and checks WebGPU anew. */
  readonly openBackend: (signal: AbortSignal) => Promise<ChosenBackend>;
  readonly signal: AbortSignal;
  /** Milliseconds of a monotonic clock. */
  readonly now: () => number;
}

/** Brings a model back whose device was lost: a new device of the same adapter, weights from their source. */
export class Recovery {
  readonly #options: RecoveryOptions;
  #numLosses = 0;
  /** When the last MAX_LOSSES devices were lost, oldest first. */
  readonly #lostAtMs: number[] = [];

  constructor(options: RecoveryOptions) {
    this.#options = options;
  }

  /** Devices lost so far. */
  get numLosses(): number {
    return this.#numLosses;
  }

  /**
   * Frees what is left of `lost` and places the model again, with the same sizes on the same adapter, so
   * that every sequence goes on with the same tokens. Throws `device-lost` with the reason where that can't
   * be had, or the loss comes too soon after others; nothing is allocated then.
   */
  async replace(placeable: PlaceableModel, lost: Placement, error: QuireError): Promise<Placement> {
    this.#numLosses += 1;
    lost.plan.dispose();
    lost.backend.dispose();
    if (this.#isHopeless()) {
      throw gone(
        error,
        `It was lost ${MAX_LOSSES + 1} times within ${WINDOW_MS / 60_000} minutes.`,
      );
    }
    for (let tries = 0; ; tries++) {
      try {
        return await this.#tryReplace(placeable, lost);
      } catch (cause) {
        const waitMs = WAITS_MS[tries];
        const { signal } = this.#options;
        if (waitMs === undefined || signal.aborted) throw gone(error, messageOf(cause));
        await pause(waitMs, signal);
      }
    }
  }

  async #tryReplace(placeable: PlaceableModel, lost: Placement): Promise<Placement> {
    const { openBackend, signal } = this.#options;
    const chosen = await openBackend(signal);
    try {
      checkBits(lost.backend, chosen.backend);
      const placement = await placeModel(placeable, chosen, signal);
      checkSizes(lost, placement);
      return placement;
    } catch (error) {
      chosen.backend.dispose();
      throw error;
    }
  }

  #isHopeless(): boolean {
    const nowMs = this.#options.now();
    const oldest = this.#lostAtMs.length < MAX_LOSSES ? undefined : this.#lostAtMs.shift();
    this.#lostAtMs.push(nowMs);
    return oldest !== undefined && nowMs - oldest < WINDOW_MS;
  }
}

/** Another adapter, or other kernels, compute other bits: what has been said would not be what it goes on from. */
function checkBits(before: Backend, now: Backend): void {
  const [a, b] = [before, now].map(({ adapter }) => JSON.stringify(adapter));
  if (a !== b) throw new QuireError("device-lost", `The adapter was ${a}, and now there is ${b}.`);
  if (before.kernels === now.kernels) return;
  throw new QuireError(
    "device-lost",
    `The adapter's kernels were "${before.kernels}", and now they are "${now.kernels}".`,
  );
}

function checkSizes({ plan: before }: Placement, { plan: now }: Placement): void {
  if (now.numBlocks >= before.numBlocks && now.maxRows >= before.maxRows) return;
  throw new QuireError(
    "device-lost",
    `The KV pool had ${before.numBlocks} blocks and steps ${before.maxRows} rows; now there is room for ${now.numBlocks} and ${now.maxRows}.`,
  );
}

function gone(error: QuireError, why: string): QuireError {
  const message = `${error.message} It could not be replaced: ${why} Create the engine again.`;
  return new QuireError("device-lost", message, error.data, { cause: error });
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
