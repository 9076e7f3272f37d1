import type {
  ChatMessage,
  GenerateRequest,
  SequenceFinish,
  WireLogprob,
  WireTokenText,
  WireUsage,
} from "../worker/protocol.ts";
import type { WorkerConnection } from "./connection.ts";
import { Generation } from "./generation.ts";
import { promptLogprobsOf } from "./promptLogprobs.ts";
import { randomHex } from "./randomHex.ts";
import {
  type CallOptions,
  COMMON_FIELDS,
  readCallOptions,
  readLogprobCount,
  readSettings,
} from "./samplingFields.ts";
import { type ChunkShape, ChunkStream, readAll } from "./stream.ts";
import type {
  ChatChoice,
  ChatCompletion,
  ChatCompletionChunk,
  ChatCompletions,
  ChatLogprobs,
  CompletionUsage,
  PromptLogprobs,
  TopLogprob,
} from "./types.ts";
import {
  type Fields,
  invalidField,
  readBoolean,
  readEach,
  readObject,
  refuseUnknown,
  unsupportedField,
  wellFormed,
} from "./validate.ts";

const CHAT_FIELDS = new Set([
  ...COMMON_FIELDS,
  "messages",
  "max_completion_tokens",
  "top_logprobs",
]);
const MESSAGE_FIELDS = new Set(["role", "content"]);
const PART_FIELDS = new Set(["type", "text"]);
const ROLES = ["system", "developer", "user", "assistant"];

/** `engine.chat.completions` over a connection. */
export function createChatCompletions(
  connection: WorkerConnection,
  modelName: string,
): ChatCompletions {
  async function create(
    params: unknown,
  ): Promise<ChatCompletion | ChunkStream<ChatCompletionChunk>> {
    const fields = readObject(params, "params");
    refuseUnknown(fields, CHAT_FIELDS);
    const request: Omit<GenerateRequest, "requestId"> = {
      prompt: { kind: "chat", messages: readMessages(fields["messages"]) },
      ...readSettings(fields, readChatLogprobs(fields)),
    };
    const options = readCallOptions(fields);
    const generation = new Generation(connection, [request], options.signal);
    const head = {
      id: `chatcmpl-${randomHex(12)}`,
      created: Math.floor(Date.now() / 1000),
      model: modelName,
    };
    await generation.accepted();
    if (options.stream) return new ChunkStream(generation, createChunkShape(head, options));
    return {
      ...head,
      object: "chat.completion",
      ...(await collect(generation, request, options)),
    };
  }
  return { create: create as ChatCompletions["create"] };
}

async function collect(
  generation: Generation,
  { n, sampling }: Pick<GenerateRequest, "n" | "sampling">,
  options: CallOptions,
): Promise<Pick<ChatCompletion, "choices" | "usage" | "prompt_logprobs">> {
  const choices = Array.from({ length: n }, (_, index): ChatChoice => {
    const message: ChatChoice["message"] = { role: "assistant", content: "", refusal: null };
    const tokenIds = options.returnTokenIds ? { token_ids: [] } : {};
    return {
      index,
      message,
      logprobs: sampling.logprobs === undefined ? null : { content: [], refusal: null },
      finish_reason: "stop",
      stop_reason: null,
      ...tokenIds,
    };
  });
  let prompt: { prompt_logprobs?: PromptLogprobs } = {};
  await readAll(generation, ({ choice, text, tokens, logprobs, promptLogprobs, finish }) => {
    if (promptLogprobs !== undefined)
      prompt = { prompt_logprobs: promptLogprobsOf(promptLogprobs) };
    const target = choices[choice]!;
    target.message.content += text;
    target.token_ids?.push(...tokens);
    if (logprobs !== undefined) target.logprobs?.content.push(...chatLogprobs(logprobs).content);
    if (finish !== undefined) {
      target.finish_reason = finish.reason;
      target.stop_reason = finish.stop;
      Object.assign(target, logprobOf(finish));
    }
  });
  return { choices, usage: completionUsage(generation.usage), ...prompt };
}

function createChunkShape(
  head: Pick<ChatCompletionChunk, "id" | "created" | "model">,
  options: CallOptions,
): ChunkShape<ChatCompletionChunk> {
  const begun = new Set<number>();
  const base = { ...head, object: "chat.completion.chunk" } as const;
  const noUsage = options.includeUsage ? { usage: null } : {};
  return {
    delta({ choice, text, tokens, logprobs, promptLogprobs, finish }) {
      const isFirst = !begun.has(choice);
      const hasNews =
        isFirst ||
        text !== "" ||
        finish !== undefined ||
        logprobs !== undefined ||
        (options.returnTokenIds && tokens.length > 0);
      if (!hasNews) return undefined;
      begun.add(choice);
      return {
        ...base,
        choices: [
          {
            index: choice,
            delta: {
              ...(isFirst ? { role: "assistant" } : {}),
              ...(isFirst || text !== "" ? { content: text } : {}),
            },
            logprobs: logprobs === undefined ? null : chatLogprobs(logprobs),
            finish_reason: finish?.reason ?? null,
            ...(finish === undefined ? {} : { stop_reason: finish.stop, ...logprobOf(finish) }),
            ...(options.returnTokenIds ? { token_ids: [...tokens] } : {}),
          },
        ],
        ...(promptLogprobs === undefined
          ? {}
          : { prompt_logprobs: promptLogprobsOf(promptLogprobs) }),
        ...noUsage,
      };
    },
    end(usage) {
      if (!options.includeUsage) return undefined;
      return { ...base, choices: [], usage: completionUsage(usage) };
    },
  };
}

/** Usage in OpenAI's shape. */
export function completionUsage(usage: WireUsage): CompletionUsage {
  const { promptTokens, completionTokens, cachedTokens } = usage;
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: cachedTokens },
  };
}

/** vLLM's field of a choice, where the engine has it. */
export function logprobOf({ cumulativeLogprob }: SequenceFinish): { cumulative_logprob?: number } {
  return cumulativeLogprob === undefined ? {} : { cumulative_logprob: cumulativeLogprob };
}

function chatLogprobs(logprobs: readonly WireLogprob[]): ChatLogprobs {
  const entry = ({ text, logprob, bytes }: WireTokenText): TopLogprob => {
    return { token: text, logprob, bytes: [...bytes] };
  };
  const content = logprobs.map((token) => {
    return { ...entry(token), top_logprobs: token.top.map(entry) };
  });
  return { content, refusal: null };
}

function readChatLogprobs(fields: Fields): number | undefined {
  const isWanted = readBoolean(fields, "logprobs") ?? false;
  const top = readLogprobCount(fields, "top_logprobs");
  if (top !== undefined && !isWanted) {
    throw invalidField("top_logprobs", top, "left out unless `logprobs` is true");
  }
  return isWanted ? (top ?? 0) : undefined;
}

function readMessages(value: unknown): ChatMessage[] {
  if (!Array.isArray(value) || value.length === 0) {
    throw invalidField("messages", value, "a list of at least one message");
  }
  return readEach(value, (entry, i) => readMessage(entry, `messages[${i}]`));
}

function readMessage(value: unknown, name: string): ChatMessage {
  const fields = readObject(value, name);
  const role = fields["role"];
  if (role === "tool" || role === "function") {
    throw unsupportedField(`${name}.role`, `Tools come later. Use one of ${ROLES.join(", ")}.`);
  }
  if (typeof role !== "string" || !ROLES.includes(role)) {
    throw invalidField(`${name}.role`, role, `one of ${ROLES.join(", ")}`);
  }
  refuseUnknown(fields, MESSAGE_FIELDS, `${name}.`);
  const content = wellFormed(readContent(fields["content"], `${name}.content`));
  return { role: role === "developer" ? "system" : (role as ChatMessage["role"]), content };
}

/** Several text parts become lines of one text, as in llama.cpp and vLLM. */
function readContent(value: unknown, name: string): string {
  if (typeof value === "string") return value;
  if (!Array.isArray(value) || value.length === 0) {
    throw invalidField(name, value, "a text or a list of at least one text part");
  }
  return readEach(value, (entry, i) => readPart(entry, `${name}[${i}]`)).join("\n");
}

function readPart(value: unknown, name: string): string {
  const part = readObject(value, name);
  const { type, text } = part;
  if (typeof type === "string" && type !== "text") {
    throw unsupportedField(`${name}.type`, 'Only parts of type "text" are read.');
  }
  if (type !== "text") throw invalidField(`${name}.type`, type, '"text"');
  refuseUnknown(part, PART_FIELDS, `${name}.`);
  if (typeof text === "string") return text;
  throw invalidField(`${name}.text`, text, "a text");
}
