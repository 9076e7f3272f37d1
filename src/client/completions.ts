import type {
  GenerateRequest,
  PromptInput,
  WireLogprob,
  WirePromptLogprob,
} from "../worker/protocol.ts";
import { completionUsage, logprobOf } from "./chat.ts";
import type { WorkerConnection } from "./connection.ts";
import { Generation } from "./generation.ts";
import { promptLogprobsOf } from "./promptLogprobs.ts";
import { randomHex } from "./randomHex.ts";
import {
  type CallOptions,
  COMMON_FIELDS,
  checkTokenIds,
  readCallOptions,
  readLogprobCount,
  readSettings,
} from "./samplingFields.ts";
import { type ChunkShape, ChunkStream, readAll } from "./stream.ts";
import type {
  Completion,
  CompletionChoice,
  CompletionChunk,
  CompletionLogprobs,
  Completions,
} from "./types.ts";
import { invalidField, readEach, readObject, refuseUnknown, wellFormed } from "./validate.ts";

const COMPLETION_FIELDS = new Set([...COMMON_FIELDS, "prompt"]);
/** Most prompts of one call. */
const MAX_PROMPTS = 1024;

/** `engine.completions` over a connection: the legacy API, for raw prompts. */
export function createCompletions(connection: WorkerConnection, modelName: string): Completions {
  async function create(params: unknown): Promise<Completion | ChunkStream<CompletionChunk>> {
    const fields = readObject(params, "params");
    refuseUnknown(fields, COMPLETION_FIELDS);
    const prompts = readPrompts(fields["prompt"]);
    const requests = prompts.map((prompt): Omit<GenerateRequest, "requestId"> => {
      return { prompt, ...readSettings(fields, readLogprobCount(fields, "logprobs")) };
    });
    const options = readCallOptions(fields);
    const generation = new Generation(connection, requests, options.signal);
    const head = {
      id: `cmpl-${randomHex(12)}`,
      object: "text_completion",
      created: Math.floor(Date.now() / 1000),
      model: modelName,
    } as const;
    await generation.accepted();
    const { n } = requests[0]!;
    if (options.stream) return new ChunkStream(generation, createChunkShape(head, n, options));
    const choices = await collect(generation, requests, options);
    return { ...head, choices, usage: completionUsage(generation.usage) };
  }
  return { create: create as Completions["create"] };
}

async function collect(
  generation: Generation,
  requests: readonly Omit<GenerateRequest, "requestId">[],
  options: CallOptions,
): Promise<CompletionChoice[]> {
  const { n, sampling } = requests[0]!;
  const choices = Array.from({ length: requests.length * n }, (_, index): CompletionChoice => {
    const tokenIds = options.returnTokenIds ? { token_ids: [] } : {};
    return {
      index,
      text: "",
      logprobs: sampling.logprobs === undefined ? null : completionLogprobs([]),
      finish_reason: "stop",
      stop_reason: null,
      ...tokenIds,
    };
  });
  await readAll(generation, ({ choice, text, tokens, logprobs, promptLogprobs, finish }) => {
    const target = choices[choice]!;
    target.text += text;
    if (promptLogprobs !== undefined) {
      for (const sibling of choices.slice(choice, choice + n)) {
        sibling.prompt_logprobs = promptLogprobsOf(promptLogprobs);
      }
    }
    target.token_ids?.push(...tokens);
    if (logprobs !== undefined && target.logprobs !== null) {
      const more = completionLogprobs(logprobs);
      target.logprobs.tokens.push(...more.tokens);
      target.logprobs.token_logprobs.push(...more.token_logprobs);
      target.logprobs.top_logprobs.push(...more.top_logprobs);
      target.logprobs.text_offset.push(...more.text_offset);
    }
    if (finish !== undefined) {
      target.finish_reason = finish.reason;
      target.stop_reason = finish.stop;
      Object.assign(target, logprobOf(finish));
    }
  });
  return choices;
}

function createChunkShape(
  head: Pick<CompletionChunk, "id" | "object" | "created" | "model">,
  n: number,
  options: CallOptions,
): ChunkShape<CompletionChunk> {
  const noUsage = options.includeUsage ? { usage: null } : {};
  const begun = new Set<number>();
  const prompts = new Map<number, readonly WirePromptLogprob[]>(); // by their first choice
  /** The prompt's log-probabilities, which come with its first choice, once for each choice. */
  const takePrompt = (choice: number, news: readonly WirePromptLogprob[] | undefined) => {
    const first = choice - (choice % n);
    if (news !== undefined) prompts.set(first, news);
    if (begun.has(choice)) return undefined;
    begun.add(choice);
    return prompts.get(first);
  };
  return {
    delta({ choice, text, tokens, logprobs, promptLogprobs, finish }) {
      const prompt = takePrompt(choice, promptLogprobs);
      const hasNews =
        text !== "" ||
        finish !== undefined ||
        logprobs !== undefined ||
        prompt !== undefined ||
        (options.returnTokenIds && tokens.length > 0);
      if (!hasNews) return undefined;
      return {
        ...head,
        choices: [
          {
            index: choice,
            text,
            logprobs: logprobs === undefined ? null : completionLogprobs(logprobs),
            ...(prompt === undefined ? {} : { prompt_logprobs: promptLogprobsOf(prompt) }),
            finish_reason: finish?.reason ?? null,
            ...(finish === undefined ? {} : { stop_reason: finish.stop, ...logprobOf(finish) }),
            ...(options.returnTokenIds ? { token_ids: [...tokens] } : {}),
          },
        ],
        ...noUsage,
      };
    },
    end(usage) {
      if (!options.includeUsage) return undefined;
      return { ...head, choices: [], usage: completionUsage(usage) };
    },
  };
}

function completionLogprobs(logprobs: readonly WireLogprob[]): CompletionLogprobs {
  return {
    tokens: logprobs.map((token) => token.text),
    token_logprobs: logprobs.map((token) => token.logprob),
    top_logprobs: logprobs.map(topLogprobs),
    text_offset: logprobs.map((token) => token.offset),
  };
}

/** The likeliest tokens by their texts, and the chosen one. Of several with one text the first counts. */
function topLogprobs({ top, ...chosen }: WireLogprob): Record<string, number> {
  const found = new Map<string, number>();
  for (const { text, logprob } of [...top, chosen]) {
    if (!found.has(text)) found.set(text, logprob);
  }
  return Object.fromEntries(found);
}

function readPrompts(value: unknown): PromptInput[] {
  const allowed = `a text, a list of token ids, or a list of 1 to ${MAX_PROMPTS} texts or lists of token ids`;
  if (typeof value === "string") return [{ kind: "text", text: wellFormed(value) }];
  if (!Array.isArray(value) || value.length === 0) throw invalidField("prompt", value, allowed);
  if (typeof value[0] === "number") {
    return [{ kind: "tokens", tokens: checkTokenIds(value, "prompt") }];
  }
  if (value.length > MAX_PROMPTS) throw invalidField("prompt", value, allowed);
  return readEach(value, (entry, i): PromptInput => {
    const field = `prompt[${i}]`;
    if (typeof entry === "string") return { kind: "text", text: wellFormed(entry) };
    if (!Array.isArray(entry)) throw invalidField(field, entry, allowed);
    return { kind: "tokens", tokens: checkTokenIds(entry, field) };
  });
}
