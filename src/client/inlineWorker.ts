import InlineWorker from "../worker/entry.ts?worker&inline";

/** The worker that is bundled in the library as text and started from a blob: URL. */
export function createInlineWorker(): Worker {
  return new InlineWorker({ name: "quire" });
}
