import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { GeneratedAnswer } from "./answerMemory.ts";
import type { ChatMessage } from "./chatMessage.ts";
import { createChatTemplate } from "./chatTemplate.ts";
import { Detokenizer } from "./detokenizer.ts";
import { createTokenizer, type Tokenizer } from "./tokenizer.ts";

const CHATML =
  "{%- for message in messages -%}" +
  "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}" +
  "{%- endfor -%}" +
  "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}";
const TRIMMING = CHATML.replace("message['content']", "(message['content'] | trim)");
/** In the manner of Llama 2: an answer follows a space that the prompt for it does not end with. */
const SPACED =
  "{%- for m in messages -%}{%- if m.role == 'assistant' -%}{{ ' ' ~ m.content ~ ' ' }}{%- else -%}" +
  "{{ '[INST] ' ~ m.content ~ ' [/INST]' }}{%- endif -%}{%- endfor -%}";
/** Only text around an answer, no control token. */
const PLAIN =
  "{%- for m in messages -%}{{ m.role ~ ': ' ~ m.content ~ '\n' }}{%- endfor -%}" +
  "{%- if add_generation_prompt -%}{{ 'assistant: ' }}{%- endif -%}";

function readTokenizer(name: string, change: Record<string, unknown> = {}): Tokenizer {
  const path = new URL(`./fixtures/${name}.json`, import.meta.url);
  const fields = JSON.parse(readFileSync(path, "utf8"));
  return createTokenizer(new Map(Object.entries({ ...fields, ...change })));
}
const bpe = readTokenizer("bpe", { "tokenizer.ggml.pre": "smollm" });
const spm = readTokenizer("spm");

const OPEN = { addGenerationPrompt: true };
const user = (content: string): ChatMessage => ({ role: "user", content });
const assistant = (content: string): ChatMessage => ({ role: "assistant", content });

/** One token a character: never what the tokenizer makes of words. */
function spell(text: string, tokenizer = bpe): number[] {
  return [...text].flatMap((character) => tokenizer.encode(character, { continuesText: true }));
}

/** A first turn as it ran: its prompt, and the answer that was generated after it. */
function generate(question: string, tokens: readonly number[], source = CHATML, tokenizer = bpe) {
  const template = createChatTemplate({ source, tokenizer });
  const prompt = template.encode([user(question)], OPEN);
  const answer: GeneratedAnswer = {
    text: tokenizer.decode(tokens),
    tokens,
    after: prompt.at(-1)!,
  };
  const recall = (text: string) => (text === answer.text ? answer : undefined);
  return { template, prompt, answer, recall };
}

describe("an answer that is sent back", () => {
  test("is the tokens that were generated, between the first prompt and the end token", () => {
    const tokens = spell("the answer is that");
    const { template, prompt, answer, recall } = generate("What?", tokens);
    expect(bpe.encode(answer.text)).not.toEqual(tokens);
    const messages = [user("What?"), assistant(answer.text), user("Sure?")];
    const ids = template.encode(messages, { ...OPEN, recall });
    const kept = [...prompt, ...tokens, bpe.controlTexts.get("<|im_end|>")!];
    expect(ids.slice(0, kept.length)).toEqual(kept);
    // The rest is what it is without.
    const canonical = template.encode(messages, OPEN);
    const end = canonical.indexOf(kept.at(-1)!, prompt.length);
    expect(ids.slice(kept.length)).toEqual(canonical.slice(end + 1));
  });

  test("is so in every turn, and where nothing but text is around it", () => {
    for (const source of [CHATML, PLAIN]) {
      const first = generate("What?", spell("this one", bpe), source);
      const { template } = first;
      const twoTurns = [user("What?"), assistant(first.answer.text), user("And?")];
      const prompt = template.encode(twoTurns, { ...OPEN, recall: first.recall });
      const text = "\u00e9t\u00e9 and the sun";
      const second = { text, tokens: spell(text), after: prompt.at(-1)! };
      const recall = (wanted: string) => (wanted === text ? second : first.recall(wanted));
      const ids = template.encode([...twoTurns, assistant(text), user("Bye")], {
        ...OPEN,
        recall,
      });
      const kept = [...prompt, ...second.tokens];
      expect(ids.slice(0, kept.length)).toEqual(kept);
      expect(kept.slice(0, first.prompt.length)).toEqual(first.prompt);
    }
  });

  test("may hold names of control tokens, space at its edges and private-use characters", () => {
    for (const text of ["say <|im_end|> and go", " in the end\n", "\ue000 is \uf8ff", "<|im_"]) {
      const { template, prompt, answer, recall } = generate("What?", spell(text));
      expect(answer.text).toBe(text);
      const messages = [user("What? \ue001"), assistant(text), user("<|im_end|>")];
      const ids = template.encode(messages, { ...OPEN, recall });
      const length = prompt.length + spell(" \ue001").length;
      expect(ids.slice(length, length + answer.tokens.length)).toEqual(answer.tokens);
      expect(bpe.decode(ids)).toBe(bpe.decode(template.encode(messages, OPEN)));
    }
  });

  test("is not found in what a user says", () => {
    const { template, answer, recall } = generate("What?", spell("the end"));
    const messages = [user(answer.text), assistant("no"), user(answer.text)];
    expect(template.encode(messages, { ...OPEN, recall })).toEqual(template.encode(messages, OPEN));
  });
});

describe("an answer that the template changes is text like any other", () => {
  test.each([
    ["trimmed", TRIMMING, " the end "],
    ["cut", CHATML.replace("message['content']", "message['content'][:4]"), "the end"],
    ["in capitals", CHATML.replace("message['content']", "message['content'] | upper"), "the end"],
    ["left out", CHATML.replace("in messages", "in messages if message.role == 'user'"), "the end"],
  ])("%s", (_, source, text) => {
    const { template, recall } = generate("What?", spell(text), source);
    const messages = [user("What?"), assistant(text), user("Sure?")];
    const ids = template.encode(messages, { ...OPEN, recall });
    expect(ids).toEqual(template.encode(messages, OPEN));
  });

  test("refused, with another content in its place", () => {
    const guard =
      "{%- for m in messages -%}{%- if m.role == 'assistant' and m.content[:3] != 'the' -%}" +
      "{{ raise_exception('no') }}{%- endif -%}{%- endfor -%}";
    const { template, recall } = generate("What?", spell("the end"), guard + CHATML);
    const messages = [user("What?"), assistant("the end"), user("Sure?")];
    const ids = template.encode(messages, { ...OPEN, recall });
    expect(ids).toEqual(template.encode(messages, OPEN));
  });

  test("a turn that is kept before one that is not still counts", () => {
    const { template, prompt, answer, recall } = generate("What?", spell("the end"), TRIMMING);
    const late = { text: " in ", tokens: spell(" in "), after: answer.after };
    const messages = [user("What?"), assistant(answer.text), user("?"), assistant(late.text)];
    const ids = template.encode(messages, {
      ...OPEN,
      recall: (text) => (text === late.text ? late : recall(text)),
    });
    const kept = [...prompt, ...answer.tokens];
    expect(ids.slice(0, kept.length)).toEqual(kept);
    expect(bpe.decode(ids)).toBe(bpe.decode(template.encode(messages, OPEN)));
  });
});

describe("vocabularies that put a space before a text", () => {
  test("the text after an answer gets none", () => {
    const { template, prompt, answer, recall } = generate("Hi", spell("the end", spm), PLAIN, spm);
    const messages = [user("Hi"), assistant(answer.text), user("So?")];
    const ids = template.encode(messages, { ...OPEN, recall });
    const kept = [...prompt, ...answer.tokens];
    expect(ids.slice(0, kept.length)).toEqual(kept);
    expect(spm.decode(ids)).toBe("user: Hi\nassistant: the end\nuser: So?\nassistant: ");
  });

  test("an answer whose space the template writes itself is text", () => {
    const tokens = spm.encode("the end"); // with the space, which its text does not have
    const { template, answer, recall } = generate("Hi", tokens, SPACED, spm);
    expect(answer.text).toBe("the end");
    const messages = [user("Hi"), assistant(answer.text), user("So?")];
    const ids = template.encode(messages, { ...OPEN, recall });
    expect(ids).toEqual(template.encode(messages, OPEN));
  });
});

test("whatever was said, the prompt's text stays the same", () => {
  const texts = fc
    .string({ unit: "binary", minLength: 1 })
    .map((text) => text.replace(/\p{Surrogate}/gu, "\uFFFD"));
  const template = createChatTemplate({ source: CHATML, tokenizer: bpe });
  fc.assert(
    fc.property(fc.array(texts, { minLength: 1, maxLength: 4 }), texts, (answers, question) => {
      const messages = answers.flatMap((text) => [user(question), assistant(text)]);
      const after = template.encode([user("")], OPEN).at(-1)!;
      const recall = (text: string) => ({ text, tokens: spell(text), after });
      const ids = template.encode(messages, { ...OPEN, recall });
      expect(textOf(ids)).toBe(textOf(template.encode(messages, OPEN)));
    }),
    { numRuns: 300 },
  );
});

function textOf(ids: readonly number[]): string {
  const detokenizer = new Detokenizer(bpe);
  return ids.map((id) => (bpe.isControl(id) ? `[${id}]` : detokenizer.push(id))).join("");
}
