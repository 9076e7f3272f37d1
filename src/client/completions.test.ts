import { describe, expect, test } from "vitest";
import type { WireLogprob } from "../worker/protocol.ts";
import { createCompletions } from "./completions.ts";
import { delta, lastDelta, ScriptedConnection } from "./testing/scriptedConnection.ts";
import type { CompletionParamsNonStreaming } from "./types.ts";

const holed = (...entries: unknown[]): unknown[] => {
  const list = [...entries];
  list.length++;
  return list;
};

function ask(fields: object) {
  const script = new ScriptedConnection();
  const params = { prompt: "a", ...fields } as CompletionParamsNonStreaming;
  return { script, asked: createCompletions(script.connection, "tiny").create(params) };
}

describe("holes in lists are refused, with their place", () => {
  test.each<[string, object, RegExp]>([
    ["prompts", { prompt: holed("a") }, /`prompt\[1\]` is undefined/],
    ["nothing but a hole", { prompt: holed() }, /`prompt\[0\]` is undefined/],
    ["token ids", { prompt: holed(5) }, /`prompt\[1\]` is undefined/],
    ["lists of token ids", { prompt: [[1], holed(5)] }, /`prompt\[1\]\[1\]` is undefined/],
    ["stop texts", { stop: holed("x") }, /`stop\[1\]` is undefined/],
    ["only a stop text", { stop: holed() }, /`stop\[0\]` is undefined/],
    ["stop tokens", { stop_token_ids: holed(5) }, /`stop_token_ids\[1\]` is undefined/],
  ])("%s", async (_, fields, message) => {
    const { script, asked } = ask(fields);
    await expect(asked).rejects.toMatchObject({
      code: "invalid-argument",
      message: expect.stringMatching(message),
    });
    expect(script.submitted).toEqual([]);
  });
});

describe("logprobs", () => {
  const token = (text: string, logprob: number) => ({ text, bytes: [], logprob });

  async function topOf(chosen: WireLogprob): Promise<Record<string, number>> {
    const { script, asked } = ask({ logprobs: 2 });
    const { sink } = script.submitted[0]!;
    sink.accepted(1);
    sink.delta(delta(chosen.text, { logprobs: [chosen] }));
    sink.delta(lastDelta());
    return (await asked).choices[0]!.logprobs!.top_logprobs[0]!;
  }

  test("of tokens with one text are the likelier one's", async () => {
    const top = [token("\ufffd", -0.5), token("\ufffd", -1.5)];
    expect(await topOf({ ...token("\ufffd", -1.5), top, offset: 0 })).toEqual({ "\ufffd": -0.5 });
  });

  test("have the chosen token beside the likeliest, likeliest first", async () => {
    const top = [token("b", -0.5), token("a", -1)];
    const found = await topOf({ ...token("z", -7), top, offset: 0 });
    expect(Object.entries(found)).toEqual([
      ["b", -0.5],
      ["a", -1],
      ["z", -7],
    ]);
    expect(await topOf({ ...token("a", -1), top, offset: 0 })).toEqual({ b: -0.5, a: -1 });
  });

  test("are empty lists where they were asked for and no token came", async () => {
    const { script, asked } = ask({ logprobs: 0 });
    script.submitted[0]!.sink.accepted(1);
    script.submitted[0]!.sink.delta(lastDelta());
    const empty = { tokens: [], token_logprobs: [], top_logprobs: [], text_offset: [] };
    expect((await asked).choices[0]!.logprobs).toEqual(empty);
  });
});
