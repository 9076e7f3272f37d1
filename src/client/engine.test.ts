import { describe, expect, test } from "vitest";
import type { ControlApi, LoadedModel } from "../worker/protocol.ts";
import type { WorkerConnection } from "./connection.ts";
import { ClientEngine } from "./engine.ts";

/** An engine whose worker answers with what it was asked for. */
function makeEngine(): ClientEngine {
  const tokenize = (...asked: unknown[]) => asked;
  const control = { tokenize } as unknown as ControlApi;
  const call = async (run: (control: ControlApi) => unknown) => run(control);
  const loaded = { model: { name: "tiny" } } as LoadedModel;
  return new ClientEngine({ call } as unknown as WorkerConnection, loaded);
}

describe("tokenize", () => {
  const tokenize = (...args: unknown[]) =>
    (makeEngine().tokenize as (...args: unknown[]) => Promise<unknown>)(...args);

  test("plain text has no control tokens unless they are asked for", async () => {
    expect(await tokenize("x")).toEqual(["x", false]);
    expect(await tokenize("x", {})).toEqual(["x", false]);
    expect(await tokenize("x", { specialTokens: null })).toEqual(["x", false]);
    expect(await tokenize("x", { specialTokens: true })).toEqual(["x", true]);
    expect(await tokenize("a\ud800")).toEqual(["a\ufffd", false]);
  });

  test.each<[string, unknown[], RegExp, string?]>([
    ["no text", [5], /`text` is 5/],
    ["null for options", ["x", null], /`options` is null/],
    ["a function as option", ["x", { specialTokens: () => 1 }], /`specialTokens` is a function/],
    ["a text as option", ["x", { specialTokens: "no" }], /`specialTokens` is "no"/],
    ["another option", ["x", { addBos: true }], /`addBos` is not supported/, "unsupported"],
    ["a text without end", ["x".repeat(1_000_001)], /1000001 characters.*at most 1000000/],
  ])("refuses %s", async (_, args, message, code = "invalid-argument") => {
    await expect(tokenize(...args)).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
  });

  test("takes the longest text that it says it takes", async () => {
    const text = "x".repeat(1_000_000);
    expect(await tokenize(text)).toEqual([text, false]);
  });
});
