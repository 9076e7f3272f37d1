import { signal } from "@preact/signals";
import {
  createEngine,
  type EngineOptions,
  type EngineStats,
  type LoadProgress,
  type QuireEngine,
  type QuireError,
} from "quire";
import { toQuireError } from "../text/errorAdvice.ts";
import type { ModelChoice } from "./modelChoice.ts";

/** Milliseconds between two looks at the engine's numbers: while it generates, and else. */
const STATS_INTERVAL_MS = { busy: 250, idle: 1000 } as const;

export type EngineState =
  | { readonly phase: "none" }
  | {
      readonly phase: "loading";
      readonly choice: ModelChoice;
      /** Undefined until the worker says something. */
      readonly progress: LoadProgress | undefined;
    }
  | { readonly phase: "ready"; readonly choice: ModelChoice; readonly engine: QuireEngine }
  /** It did not load. */
  | { readonly phase: "failed"; readonly choice: ModelChoice; readonly error: QuireError }
  /** It was ready and can no longer work. */
  | { readonly phase: "stopped"; readonly choice: ModelChoice; readonly error: QuireError };

/** The page's one engine: at most one model is loaded or loading; a new one takes its place. */
export class EngineSession {
  readonly state = signal<EngineState>({ phase: "none" });
  /** Newest numbers of the engine; undefined without one. */
  readonly stats = signal<EngineStats | undefined>(undefined);
  readonly #options: Pick<EngineOptions, "backend" | "kvCacheDtype" | "maxSequences">;
  #engine: QuireEngine | undefined;
  #loading: AbortController | undefined;
  /** Settles when what the newest load waits for has let go of the GPU. */
  #settled: Promise<void> = Promise.resolve();

  constructor(options: Pick<EngineOptions, "backend" | "kvCacheDtype" | "maxSequences">) {
    this.#options = options;
  }

  /** The engine, if it can take requests. */
  get engine(): QuireEngine | undefined {
    return this.state.value.phase === "ready" ? this.state.value.engine : undefined;
  }

  /** Loads a model in place of the present one. Never rejects: the outcome is in `state`. */
  load(choice: ModelChoice): Promise<void> {
    this.cancel();
    const controller = new AbortController();
    this.#loading = controller;
    this.state.value = { phase: "loading", choice, progress: undefined };
    this.stats.value = undefined;
    this.#settled = this.#settled.then(() => this.#load(choice, controller.signal));
    return this.#settled;
  }

  /** Ends a load in progress. */
  cancel(): void {
    this.#loading?.abort();
    this.#loading = undefined;
    if (this.state.value.phase === "loading") this.state.value = { phase: "none" };
  }

  async #load(choice: ModelChoice, signal: AbortSignal): Promise<void> {
    // Two models may not fit the GPU together.
    await this.#dispose();
    if (signal.aborted) return;
    try {
      this.#engine = await createEngine({
        ...this.#options,
        model: choice.kind === "url" ? choice.url : choice.file,
        signal,
        onProgress: (progress) => {
          if (!signal.aborted) this.state.value = { phase: "loading", choice, progress };
        },
      });
      const engine = this.#engine;
      const stats = await engine.stats();
      if (!signal.aborted) {
        this.stats.value = stats;
        this.state.value = { phase: "ready", choice, engine };
        return void this.#watch(choice, engine);
      }
    } catch (error) {
      if (!signal.aborted) {
        this.state.value = { phase: "failed", choice, error: toQuireError(error) };
      }
    }
    await this.#dispose();
  }

  async #dispose(): Promise<void> {
    await this.#engine?.dispose();
    this.#engine = undefined;
  }

  /** Reads the engine's numbers until it ends. An engine that broke says so here. */
  async #watch(choice: ModelChoice, engine: QuireEngine): Promise<void> {
    try {
      while (this.engine === engine) {
        const stats = await engine.stats();
        if (this.engine !== engine) return;
        this.stats.value = stats;
        const isBusy = stats.sequences.running + stats.sequences.waiting > 0;
        const interval = isBusy ? STATS_INTERVAL_MS.busy : STATS_INTERVAL_MS.idle;
        await new Promise((resolve) => setTimeout(resolve, interval));
      }
    } catch (error) {
      if (this.engine !== engine) return;
      this.state.value = { phase: "stopped", choice, error: toQuireError(error) };
    }
  }
}
