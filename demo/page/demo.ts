import { effect, signal } from "@preact/signals";
import { checkSupport, QuireError, type Support } from "quire";
import type { Answer, AnswerState } from "../chat/answer.ts";
import type { Chat } from "../chat/chat.ts";
import { Chats } from "../chat/chats.ts";
import type { Turn } from "../chat/turn.ts";
import { fetchDefaultModel } from "../engine/defaultModel.ts";
import { EngineSession } from "../engine/engineSession.ts";
import { choiceOfUrl, type ModelChoice } from "../engine/modelChoice.ts";
import { StoredModels } from "../engine/storedModels.ts";
import type { Machine } from "../text/machineLine.ts";
import { CHAT_COUNT, type PageOptions } from "./pageOptions.ts";

/** How an answer ended, in a word. */
const ENDS: Partial<Record<AnswerState, string>> = {
  stop: "finished",
  length: "cut off",
  stopped: "stopped",
  failed: "failed",
};

/** All that the page knows; components show it and call its methods. */
export class Demo {
  readonly options: PageOptions;
  readonly session: EngineSession;
  readonly chats: Chats;
  readonly stored = new StoredModels();
  /** What the server offers; undefined if nothing, or not known yet. */
  readonly defaultModel = signal<ModelChoice | undefined>(undefined);
  /** What this browser can do; undefined until it was asked. */
  readonly support = signal<Support | undefined>(undefined);
  readonly isDialogOpen = signal(false);
  /** What is wrong with the address or the server's answer; dismissed by the user. */
  readonly problems = signal<readonly string[]>([]);
  /** The newest event, for screen readers. */
  readonly announcement = signal("");

  constructor(options: PageOptions) {
    this.options = options;
    this.problems.value = options.problems;
    this.chats = new Chats(options.numChats, CHAT_COUNT.max);
    this.session = new EngineSession({
      backend: options.backend,
      kvCacheDtype: options.kv,
      maxSequences: CHAT_COUNT.max,
    });
    effect(() => this.#announceEngine());
    effect(() => {
      if (this.isDialogOpen.value) void this.stored.refresh();
    });
  }

  /** Loads the model of the address, else the server's; else asks for one. */
  async start(): Promise<void> {
    const [support, offered] = await Promise.all([
      checkSupport(),
      fetchDefaultModel(document.baseURI).catch((error: unknown) => {
        this.problems.value = [...this.problems.value, String(error)];
        return undefined;
      }),
    ]);
    this.support.value = support;
    this.defaultModel.value = offered;
    const asked = this.options.model;
    const choice =
      asked === undefined || (offered?.kind === "url" && offered.url === asked)
        ? offered
        : choiceOfUrl(asked);
    if (choice === undefined) {
      this.isDialogOpen.value = true;
      return;
    }
    const obstacle = this.#obstacle(support);
    if (obstacle === undefined) return this.load(choice);
    // Nothing is downloaded for a machine that cannot run it.
    const error = new QuireError(obstacle.code, obstacle.message);
    this.session.state.value = { phase: "failed", choice, error };
    this.isDialogOpen.value = true;
  }

  /** What will compute, as far as it is known before a model is loaded. */
  expectedMachine(): Omit<Machine, "features"> {
    const support = this.support.value;
    const { backend: asked, kv } = this.options;
    const backend = asked === "auto" ? (support?.backend ?? undefined) : asked;
    return {
      backend,
      reason: asked === "auto" ? support?.reasons[0]?.message : undefined,
      threads: undefined,
      adapter: support?.adapter ?? null,
      precision: backend === "wasm" ? "fast" : "exact",
      kv,
    };
  }

  /** Why the back end that the address asks for cannot run here. */
  #obstacle({ ok, adapter, wasm, reasons }: Support): Support["reasons"][number] | undefined {
    const { backend } = this.options;
    const canRun = { auto: ok, webgpu: adapter !== null, wasm: wasm.ok }[backend];
    if (canRun) return undefined;
    const code = backend === "wasm" ? "wasm-unavailable" : "webgpu-unavailable";
    return reasons.find((reason) => reason.code === code);
  }

  /** Loads a model in place of the present one and notes it in the address, for a reload. */
  async load(choice: ModelChoice): Promise<void> {
    this.isDialogOpen.value = false;
    this.#noteInAddress(choice);
    this.chats.stopAll();
    await this.session.load(choice);
    if (this.session.state.value.phase === "failed") this.isDialogOpen.value = true;
  }

  /** Loads what was loaded, or failed to load. */
  async reload(): Promise<void> {
    const state = this.session.state.value;
    if (state.phase !== "none") await this.load(state.choice);
  }

  /** Sends a chat's draft, or the text given. */
  async send(chat: Chat, text?: string): Promise<void> {
    const { engine } = this.session;
    const said = text ?? chat.draft.value;
    if (chat.isBusy.value || said.trim() === "") return;
    if (engine === undefined) return this.#announce("No model is loaded yet.");
    if (text === undefined) chat.draft.value = "";
    this.#announceEnd(chat, await chat.send(engine, said));
  }

  async retry(chat: Chat, turn: Turn): Promise<void> {
    const { engine } = this.session;
    if (engine === undefined) return this.#announce("No model is loaded yet.");
    this.#announceEnd(chat, await chat.retry(engine, turn));
  }

  /** Sends a text to every chat that is not answering just now. True if one took it. */
  sendToAll(text: string): boolean {
    const idle = this.chats.list.value.filter((chat) => !chat.isBusy.value);
    if (this.session.engine === undefined || text.trim() === "" || idle.length === 0) return false;
    for (const chat of idle) void this.send(chat, text);
    return true;
  }

  async deleteStored(url: string): Promise<void> {
    if (await this.stored.delete(url)) this.#announce("The stored model was deleted.");
  }

  #noteInAddress(choice: ModelChoice): void {
    const url = new URL(location.href);
    const offered = this.defaultModel.value;
    const isOffered =
      offered?.kind === "url" && choice.kind === "url" && offered.url === choice.url;
    if (choice.kind === "url" && !isOffered) url.searchParams.set("model", choice.url);
    else url.searchParams.delete("model");
    history.replaceState(null, "", url);
  }

  #announceEngine(): void {
    const state = this.session.state.value;
    if (state.phase === "ready") this.#announce(`${state.choice.name} is ready.`);
    else if (state.phase === "failed") this.#announce(`Loading failed: ${state.error.code}.`);
    else if (state.phase === "stopped") this.#announce(`The engine stopped: ${state.error.code}.`);
    else if (state.phase === "loading" && state.progress === undefined) {
      this.#announce(`Loading ${state.choice.name}.`);
    }
  }

  /** Goes on with one of several answers: the message field is where. */
  choose(chat: Chat, turn: Turn, answer: Answer): void {
    if (chat.isBusy.value) return;
    const count = turn.answers.value.length;
    turn.choose(answer);
    document.getElementById(`message-${chat.id}`)?.focus();
    this.#announce(`Chat ${chat.id}: goes on with answer ${answer.number} of ${count}.`);
  }

  #announceEnd(chat: Chat, turn: Turn | undefined): void {
    const [first, second] = turn?.answers.value ?? [];
    if (first === undefined) return;
    const word = ENDS[first.state];
    if (second !== undefined) this.#announce(`Chat ${chat.id}: the answers have ended.`);
    else if (word !== undefined) this.#announce(`Chat ${chat.id}: answer ${word}.`);
  }

  #announce(text: string): void {
    // The same words twice are two events: a trailing space makes them differ.
    this.announcement.value = text === this.announcement.peek() ? `${text}\u00a0` : text;
  }
}
