import { describe, expect, test } from "vitest";
import type { QuireError } from "../errors.ts";
import { createChatCompletions } from "./chat.ts";
import { delta, lastDelta, ScriptedConnection } from "./testing/scriptedConnection.ts";
import type { ChatCompletion, ChatCompletionParamsNonStreaming } from "./types.ts";

const hello = [{ role: "user", content: "Hello" }] as const;

/** Of a call that is refused before anything is submitted. */
async function refusalOf(fields: object): Promise<QuireError> {
  const script = new ScriptedConnection();
  const params = { messages: hello, ...fields } as ChatCompletionParamsNonStreaming;
  const asked = createChatCompletions(script.connection, "tiny").create(params);
  const error = await asked.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(script.submitted).toEqual([]);
  return error as QuireError;
}

/** What comes of a call whose request brings nothing but its end. */
function complete(fields: object): Promise<ChatCompletion> {
  const script = new ScriptedConnection();
  const params = { messages: hello, ...fields } as ChatCompletionParamsNonStreaming;
  const asked = createChatCompletions(script.connection, "tiny").create(params);
  script.submitted[0]!.sink.accepted(3);
  script.submitted[0]!.sink.delta(lastDelta());
  return asked;
}

/** A list with a hole at its end. */
const holed = (...entries: unknown[]): unknown[] => {
  const list = [...entries];
  list.length++;
  return list;
};

describe("messages that are none are refused, with their place", () => {
  const text = { type: "text", text: "a" };
  const content = (...parts: unknown[]) => ({ messages: [{ role: "user", content: parts }] });

  test.each<[string, object, RegExp, string?]>([
    ["a hole", { messages: holed(...hello) }, /`messages\[1\]` is undefined/],
    ["only a hole", { messages: holed() }, /`messages\[0\]` is undefined/],
    ["a Map", { messages: [new Map()] }, /`messages\[0\]` is an object \(Map\)/],
    ["no parts", content(), /`messages\[0\].content` is an empty list/],
    ["a hole among parts", { messages: [{ role: "user", content: holed(text) }] }, /content\[1\]/],
    ["a part without type", content(text, { text: "b" }), /`messages\[0\].content\[1\].type`/],
    ["a part of type 5", content({ type: 5, text: "b" }), /content\[0\].type` is 5/],
    ["a part without text", content({ type: "text" }), /content\[0\].text` is undefined/],
    ["an image", content({ type: "image_url", image_url: {} }), /content\[0\].type/, "unsupported"],
    [
      "a part with more",
      content({ ...text, cache_control: { type: "ephemeral" } }),
      /`messages\[0\].content\[0\].cache_control` is not supported/,
      "unsupported",
    ],
  ])("%s", async (_, fields, message, code = "invalid-argument") => {
    const error = await refusalOf(fields);
    expect(error.code).toBe(code);
    expect(error.message).toMatch(message);
  });

  test("parts with empty fields, as OpenAI's answers have, are fine", async () => {
    const part = { ...text, annotations: null };
    await complete({ messages: [{ role: "user", content: [part, text] }] });
  });
});

describe("logprobs", () => {
  test("are an empty list where they were asked for and no token came", async () => {
    const { choices } = await complete({ logprobs: true });
    expect(choices[0]!.logprobs).toEqual({ content: [], refusal: null });
    expect((await complete({})).choices[0]!.logprobs).toBeNull();
  });

  test("of all tokens are one list", async () => {
    const script = new ScriptedConnection();
    const asked = createChatCompletions(script.connection, "tiny").create({
      messages: hello,
      logprobs: true,
    });
    const { sink } = script.submitted[0]!;
    sink.accepted(3);
    for (const [text, offset] of [
      ["a", 0],
      ["b", 1],
    ] as const) {
      sink.delta(delta(text, { logprobs: [{ text, bytes: [], logprob: -1, top: [], offset }] }));
    }
    sink.delta(lastDelta());
    const { content } = (await asked).choices[0]!.logprobs!;
    expect(content.map(({ token }) => token)).toEqual(["a", "b"]);
  });
});
