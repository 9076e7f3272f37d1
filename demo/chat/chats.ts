import { computed, effect, signal } from "@preact/signals";
import { Chat } from "./chat.ts";

const TICK_MS = 500;

/** The chats on the page. */
export class Chats {
  readonly list = signal<readonly Chat[]>([]);
  readonly max: number;
  readonly isAnyBusy = computed(() => this.list.value.some((chat) => chat.isBusy.value));
  /** Tokens a second of all together; undefined while there are none. */
  readonly rate = computed(() => {
    const rates = this.list.value
      .map((chat) => chat.rate.value)
      .filter((rate) => rate !== undefined);
    return rates.length === 0 ? undefined : rates.reduce((sum, rate) => sum + rate, 0);
  });

  constructor(count: number, max: number) {
    this.max = max;
    this.list.value = Array.from({ length: count }, (_, i) => new Chat(i + 1));
    effect(() => this.#tickWhileBusy());
  }

  get isFull(): boolean {
    return this.list.value.length >= this.max;
  }

  /** The new chat; undefined if there are as many as the engine runs at once. */
  add(): Chat | undefined {
    if (this.isFull) return undefined;
    const taken = new Set(this.list.value.map((chat) => chat.id));
    let id = 1;
    while (taken.has(id)) id++;
    const chat = new Chat(id);
    this.list.value = [...this.list.value, chat];
    return chat;
  }

  remove(chat: Chat): void {
    chat.stop();
    this.list.value = this.list.value.filter((other) => other !== chat);
  }

  stopAll(): void {
    for (const chat of this.list.value) chat.stop();
  }

  #tickWhileBusy(): (() => void) | undefined {
    if (!this.isAnyBusy.value) return undefined;
    const timer = setInterval(() => {
      const now = performance.now();
      for (const chat of this.list.value) chat.tick(now);
    }, TICK_MS);
    return () => clearInterval(timer);
  }
}
