import { QuireError } from "../errors.ts";
import type { EngineEvent, EngineStats, LoadedModel } from "../worker/protocol.ts";
import { createChatCompletions } from "./chat.ts";
import { createCompletions } from "./completions.ts";
import type { WorkerConnection } from "./connection.ts";
import { checkTokenIds } from "./samplingFields.ts";
import { readName } from "./schedulingFields.ts";
import type { ChatCompletions, Completions, ModelInfo, QuireEngine } from "./types.ts";
import { invalidField, readBoolean, readObject, refuseUnknown, wellFormed } from "./validate.ts";

const TOKENIZE_FIELDS = new Set(["specialTokens"]);
/** UTF-16 units of a text to tokenize: while it is, no request goes on. */
const MAX_TEXT_LENGTH = 1_000_000;

/** The page's handle of a loaded engine. */
export class ClientEngine implements QuireEngine {
  readonly model: ModelInfo;
  readonly backend: LoadedModel["backend"];
  readonly backendReason: string;
  readonly precision: LoadedModel["precision"];
  readonly threads: number;
  readonly simd: LoadedModel["simd"];
  readonly adapter: LoadedModel["adapter"];
  readonly chat: { readonly completions: ChatCompletions };
  readonly completions: Completions;
  readonly #connection: WorkerConnection;
  #disposal: Promise<void> | undefined;

  constructor(connection: WorkerConnection, loaded: LoadedModel) {
    this.#connection = connection;
    this.model = loaded.model;
    this.backend = loaded.backend;
    this.backendReason = loaded.backendReason;
    this.precision = loaded.precision;
    this.threads = loaded.threads;
    this.simd = loaded.simd;
    this.adapter = loaded.adapter;
    this.chat = { completions: createChatCompletions(connection, loaded.model.name) };
    this.completions = createCompletions(connection, loaded.model.name);
  }

  async tokenize(text: string, options: { specialTokens?: boolean } = {}): Promise<number[]> {
    if (typeof text !== "string" || text.length > MAX_TEXT_LENGTH) {
      const found = typeof text === "string" ? `a text of ${text.length} characters` : text;
      throw invalidField("text", found, `a text of at most ${MAX_TEXT_LENGTH} characters`);
    }
    const fields = readObject(options, "options");
    refuseUnknown(fields, TOKENIZE_FIELDS);
    const specialTokens = readBoolean(fields, "specialTokens") ?? false;
    return this.#connection.call((control) => control.tokenize(wellFormed(text), specialTokens));
  }

  async detokenize(tokens: readonly number[]): Promise<string> {
    const ids = checkTokenIds(tokens, "tokens");
    return this.#connection.call((control) => control.detokenize(ids));
  }

  stats(): Promise<EngineStats> {
    return this.#connection.call((control) => control.stats());
  }

  events(): Promise<readonly EngineEvent[]> {
    return this.#connection.call((control) => control.events());
  }

  async endSession(session: string): Promise<void> {
    const name = readName({ session }, "session");
    if (name === undefined) throw invalidField("session", session, "a text");
    return this.#connection.call((control) => control.endSession(name));
  }

  resetPrefixCache(): Promise<boolean> {
    return this.#connection.call((control) => control.resetPrefixCache());
  }

  dispose(): Promise<void> {
    this.#disposal ??= this.#connection.close(
      new QuireError("disposed", "The engine was disposed. Create a new one."),
    );
    return this.#disposal;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }
}
