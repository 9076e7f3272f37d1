/** Fewest and most chats; the engine is made for as many sequences. */
export const CHAT_COUNT = { min: 1, max: 16, default: 2 } as const;

const BACKENDS = ["auto", "webgpu", "wasm"] as const;
const KV_TYPES = ["f16", "f32"] as const;
const NAMES = ["model", "backend", "kv", "chats"] as const;

/** What the page's address asks for. */
export interface PageOptions {
  /** Absolute URL of a GGUF file. */
  readonly model: string | undefined;
  readonly backend: (typeof BACKENDS)[number];
  readonly kv: (typeof KV_TYPES)[number];
  readonly numChats: number;
  /** What could not be read, for the user; the defaults stand in. */
  readonly problems: readonly string[];
}

/**
 * Reads the query of the page's address: `?model=URL&backend=...&kv=...&chats=N`.
 * @param base what a relative model URL starts from
 */
export function readPageOptions(search: string, base: string): PageOptions {
  const params = new URLSearchParams(search);
  const problems: string[] = [];
  for (const name of new Set(params.keys())) {
    if (!(NAMES as readonly string[]).includes(name)) {
      problems.push(`?${name} is unknown. Valid: ${NAMES.map((known) => `?${known}`).join(", ")}.`);
    } else if (params.getAll(name).length > 1) {
      problems.push(`?${name} is given more than once; the first counts.`);
    }
  }
  return {
    model: readModel(params.get("model"), base, problems),
    backend: readChoice("backend", params.get("backend"), BACKENDS, problems),
    kv: readChoice("kv", params.get("kv"), KV_TYPES, problems),
    numChats: readCount(params.get("chats"), problems),
    problems,
  };
}

/** The absolute form of a model's URL, or undefined where it is none that can be fetched. */
export function modelUrl(text: string, base: string): string | undefined {
  if (!URL.canParse(text.trim(), base)) return undefined;
  const url = new URL(text.trim(), base);
  return /^https?:$/.test(url.protocol) ? url.href : undefined;
}

function readModel(text: string | null, base: string, problems: string[]): string | undefined {
  if (text === null) return undefined;
  const url = text.trim() === "" ? undefined : modelUrl(text, base);
  if (url === undefined) problems.push(`?model=${text} is no http or https URL.`);
  return url;
}

/** The first choice is the default. */
function readChoice<const T extends string>(
  name: string,
  text: string | null,
  choices: readonly [T, ...T[]],
  problems: string[],
): T {
  if (text === null) return choices[0];
  const found = choices.find((choice) => choice === text);
  if (found === undefined) problems.push(`?${name}=${text}: valid are ${choices.join(", ")}.`);
  return found ?? choices[0];
}

function readCount(text: string | null, problems: string[]): number {
  if (text === null) return CHAT_COUNT.default;
  const count = /^\d{1,4}$/.test(text) ? Number(text) : Number.NaN;
  if (count >= CHAT_COUNT.min && count <= CHAT_COUNT.max) return count;
  problems.push(`?chats=${text}: valid are ${CHAT_COUNT.min} to ${CHAT_COUNT.max}.`);
  return CHAT_COUNT.default;
}
