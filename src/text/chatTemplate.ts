import { QuireError } from "../errors.ts";
import type { GeneratedAnswer } from "./answerMemory.ts";
import { encodeAround, findAnswers } from "./answerPlaces.ts";
import type { ChatMessage } from "./chatMessage.ts";
import { type Fragment, MarkedTokens } from "./markedTokens.ts";
import { checkPromptLength } from "./promptLength.ts";
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
  /** A prompt whose text is too long for so many tokens is refused at once. Default: no limit. */
  readonly maxTokens?: number;
  /**
   * Finds the tokens of an assistant's turn by its text, if they are known: the prompt then holds these
   * and not what the tokenizer would make of the text. Default: none is known.
   */
  readonly recall?: (text: string) => GeneratedAnswer | undefined;
}

/** Turns conversations into prompts. */
export interface ChatTemplate {
  /**
   * Tokens of the whole prompt, with the start token if the model wants one. What users wrote never
   * becomes a control token, whatever it looks like.
   * Throws `chat-template` if there is no template or it fails, `context-overflow`, and
   * `invalid-argument` where what users wrote can't be kept apart from control tokens.
   */
  encode(messages: readonly ChatMessage[], options: ChatEncodeOptions): number[];
}

/** The template that a GGUF file brings along. */
export function readChatTemplate(metadata: ReadonlyMap<string, unknown>): string | undefined {
  const source = metadata.get("tokenizer.chat_template");
  return typeof source === "string" ? source : undefined;
}

/** The template is parsed when it is first used. */
export function createChatTemplate({
  source,
  tokenizer,
  name = "of the model file",
}: ChatTemplateOptions): ChatTemplate {
  const { bosToken, eosToken, addBos, controlTexts } = tokenizer;
  const marks = new MarkedTokens(controlTexts);
  const textOf = (id: number | undefined) => (id === undefined ? "" : tokenizer.tokenText(id));
  let program: ReturnType<typeof parseTemplate> | undefined;

  const render = (template: string, messages: readonly ChatMessage[], isOpen: boolean): string => {
    const variables = {
      messages: messages.map(({ role, content }) => ({ role, content })),
      add_generation_prompt: isOpen,
      bos_token: textOf(bosToken),
      eos_token: textOf(eosToken),
      tools: null,
      documents: null,
    };
    try {
      program ??= parseTemplate(template);
      return renderTemplate(program, variables);
    } catch (cause) {
      throw failure(name, cause, program === undefined);
    }
  };

  return {
    encode(messages, options) {
      const { addGenerationPrompt, maxTokens = Infinity, recall = () => undefined } = options;
      if (source === undefined) {
        throw new QuireError(
          "chat-template",
          "The model file has no chat template. Pass one as chatTemplate, or use completions, which take plain text.",
        );
      }
      const standIns = new StandIns(controlTexts.keys(), [
        source,
        ...controlTexts.keys(),
        ...messages.map(({ content }) => content),
      ]);
      const hidden = messages.map(({ role, content }) => {
        return { role, content: standIns.hide(content) };
      });
      const prompt = render(source, hidden, addGenerationPrompt);
      if (prompt === "") throw failure(name, "the prompt came out empty", false);
      // Its stand-ins are shorter than what they stand for.
      checkPromptLength(prompt, maxTokens, tokenizer);
      const answers = findAnswers({
        messages: hidden,
        prompt,
        render: (probed) => render(source, probed, addGenerationPrompt),
        standIns,
        recall,
      });
      const ids = encodeAround(prompt, answers, (text, continuesText) => {
        return encodeMarked(marks.split(text), continuesText, (fragment, continues) =>
          tokenizer.encode(standIns.restore(fragment), { continuesText: continues }),
        );
      });
      if (addBos && bosToken !== undefined && ids[0] !== bosToken) ids.unshift(bosToken);
      return ids;
    },
  };
}

/** Only text at the very beginning goes on after what was before. */
function encodeMarked(
  fragments: readonly Fragment[],
  continuesText: boolean,
  encode: (text: string, continuesText: boolean) => readonly number[],
): number[] {
  return fragments.flatMap((fragment, i) =>
    typeof fragment === "number" ? fragment : encode(fragment, continuesText && i === 0),
  );
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
