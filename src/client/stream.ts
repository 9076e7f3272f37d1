import { QuireError } from "../errors.ts";
import type { WireUsage } from "../worker/protocol.ts";
import type { ChoiceDelta, Generation } from "./generation.ts";
import type { CompletionStream } from "./types.ts";

/** Turns what arrives into chunks of one API. */
export interface ChunkShape<Chunk> {
  /** The chunk of a delta; undefined where the delta holds nothing to show. */
  delta(delta: ChoiceDelta): Chunk | undefined;
  /** The chunk after the last delta, if one is wanted. */
  end(usage: WireUsage): Chunk | undefined;
}

// Ends the requests of streams that were dropped unread or half read. The stream itself is reachable
// only from its consumer and its iterator; the connection holds no more than the generation.
let dropped: FinalizationRegistry<Generation> | undefined;

function abortWhenDropped(stream: object, generation: Generation): void {
  dropped ??= new FinalizationRegistry((held: Generation) => held.abort());
  dropped.register(stream, generation);
}

/** The stream of one `create({ stream: true })`. */
export class ChunkStream<Chunk> implements CompletionStream<Chunk> {
  readonly #generation: Generation;
  readonly #shape: ChunkShape<Chunk>;
  #isTaken = false;
  #isDone = false;
  /** Settles when the newest call of `next` has. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(generation: Generation, shape: ChunkShape<Chunk>) {
    this.#generation = generation;
    this.#shape = shape;
    abortWhenDropped(this, generation);
  }

  abort(): void {
    this.#generation.abort();
  }

  [Symbol.asyncIterator](): AsyncIterator<Chunk, undefined> {
    if (this.#isTaken) {
      const message = "The stream has a reader already; its chunks can be read once.";
      throw new QuireError("invalid-argument", message, { field: "stream" });
    }
    this.#isTaken = true;
    return {
      // Calls that overlap take their turns, as an async generator's do; leaving waits for nothing.
      next: () => {
        const result = this.#turn.then(() => this.#next());
        this.#turn = result.catch(() => {});
        return result;
      },
      return: async () => {
        this.#isDone = true;
        this.#generation.abort();
        return { done: true, value: undefined };
      },
    };
  }

  toReadableStream(): ReadableStream<Chunk> {
    const iterator = this[Symbol.asyncIterator]();
    return new ReadableStream<Chunk>(
      {
        async pull(controller) {
          const result = await iterator.next();
          if (result.done) controller.close();
          else controller.enqueue(result.value);
        },
        async cancel() {
          await iterator.return?.();
        },
      },
      { highWaterMark: 0 },
    );
  }

  async #next(): Promise<IteratorResult<Chunk, undefined>> {
    while (!this.#isDone) {
      const delta = await this.#read();
      if (this.#isDone) break;
      if (delta === undefined) {
        this.#isDone = true;
        const last = this.#shape.end(this.#generation.usage);
        if (last !== undefined) return { done: false, value: last };
        break;
      }
      const chunk = this.#shape.delta(delta);
      if (chunk !== undefined) return { done: false, value: chunk };
    }
    return { done: true, value: undefined };
  }

  /** A reader that has left by `return` knows why nothing comes. */
  async #read(): Promise<ChoiceDelta | undefined> {
    try {
      return await this.#generation.next();
    } catch (error) {
      if (this.#isDone) return undefined;
      throw error;
    }
  }
}

/** Reads a generation to its end. */
export async function readAll(
  generation: Generation,
  take: (delta: ChoiceDelta) => void,
): Promise<void> {
  for (;;) {
    const delta = await generation.next();
    if (delta === undefined) return;
    take(delta);
  }
}
