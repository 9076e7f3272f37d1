import { QuireError } from "../errors.ts";
import { type ChatMessage, checkMessages } from "./chatMessages.ts";
import { MarkedTokens } from "./markedTokens.ts";
import { StandIns } from "./standIns.ts";
import { parseTemplate, renderTemplate } from "./templateInterpreter.ts";
import type { Tokenizer } from "./tokenizer.ts";

export interface ChatTemplateOptions {
  /** The Jinja template. Without one, encoding a chat fails; everything else about the model works. */
  readonly source: string | undefined;
  readonly tokenizer: Tokenizer;
  /** Where the template is from, for messages. */
  readonly name?: string;
}

export interface ChatEncodeOptions {
  /** Whether the prompt ends with the beginning of the assistant's next message. */
  readonly addGenerationPrompt: boolean;
}

/** Turns conversations into prompts. */
export interface ChatTemplate {
  /**
   * Tokens of the whole prompt, with the start token if the model wants one. What users wrote never
   * becomes a control token, whatever it looks like.
   * Throws `invalid-argument` or `unsupported` for bad messages, `chat-template` if there is no
   * template or it fails.
   */
  encode(messages: readonly ChatMessage[], options: ChatEncodeOptions): number[];
}

/** The template that a GGUF file brings along. */
export function readChatTemplate(metadata: ReadonlyMap<string, unknown>): string | undefined {
  const source = metadata.get("tokenizer.chat_template");
  return typeof source === "string" ? source : undefined;
}

/** The template is parsed when it is first used. */
export function createChatTemplate(options: ChatTemplateOptions): ChatTemplate {
  const { source, tokenizer, name = "of the model file" } = options;
  const { bosToken, eosToken, addBos, controlTexts } = tokenizer;
  const marks = new MarkedTokens(controlTexts);
  const textOf = (id: number | undefined) => (id === undefined ? "" : tokenizer.tokenText(id));
  let program: ReturnType<typeof parseTemplate> | undefined;

  return {
    encode(messages, { addGenerationPrompt }) {
      const checked = checkMessages(messages);
      if (source === undefined) {
        throw new QuireError(
          "chat-template",
          "The model file has no chat template. Pass one as chatTemplate, or use completions, which take plain text.",
        );
      }
      const standIns = new StandIns(controlTexts.keys(), [
        source,
        ...controlTexts.keys(),
        ...checked.map(({ content }) => content),
      ]);
      const variables = {
        messages: checked.map(({ role, content }) => ({ role, content: standIns.hide(content) })),
        add_generation_prompt: addGenerationPrompt,
        bos_token: textOf(bosToken),
        eos_token: textOf(eosToken),
        tools: null,
        documents: null,
      };
      let prompt: string;
      try {
        program ??= parseTemplate(source);
        prompt = renderTemplate(program, variables);
      } catch (cause) {
        throw failure(name, cause, program === undefined);
      }
      const ids: number[] = [];
      for (const fragment of marks.split(prompt)) {
        if (typeof fragment === "number") ids.push(fragment);
        else for (const id of tokenizer.encode(standIns.restore(fragment))) ids.push(id);
      }
      if (addBos && bosToken !== undefined && ids[0] !== bosToken) ids.unshift(bosToken);
      return ids;
    },
  };
}

function failure(name: string, cause: unknown, isParsing: boolean): QuireError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new QuireError(
    "chat-template",
    isParsing
      ? `The chat template ${name} can't be read: ${reason}. Pass another one as chatTemplate.`
      : `The chat template ${name} refused or failed on these messages: ${reason}. Change the messages, or pass another template as chatTemplate.`,
    { name },
    { cause },
  );
}
