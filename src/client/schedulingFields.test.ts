import { describe, expect, test } from "vitest";
import { readScheduling } from "./schedulingFields.ts";

describe("readScheduling", () => {
  test("leaves what is absent to the engine", () => {
    for (const fields of [{}, { priority: null, keep: null, session: null }, { keep: false }]) {
      expect(Object.values(readScheduling(fields)).filter((value) => value !== undefined)).toEqual(
        [],
      );
    }
  });

  test("reads every field", () => {
    const asked = {
      ...{ priority: -3, cache_salt: "user 1", deadline_ms: 0.5 },
      ...{ keep: { ttl_ms: 60_000 }, session: "\ud800", num_speculative_tokens: 8 },
    };
    expect(readScheduling(asked)).toEqual({
      priority: -3,
      cacheSalt: "user 1",
      deadlineMs: 0.5,
      keep: { ttlMs: 60_000 },
      session: "\ufffd",
      numSpeculativeTokens: 8,
    });
    expect(readScheduling({ keep: true }).keep).toEqual({ ttlMs: Number.POSITIVE_INFINITY });
  });

  test.each<[object, RegExp, string?]>([
    [{ priority: 0.5 }, /`priority`.*integer/],
    [{ priority: "high" }, /`priority`/],
    [{ cache_salt: "" }, /`cache_salt` is "".*1 to 1024 characters/],
    [{ cache_salt: 5 }, /`cache_salt`/],
    [{ cache_salt: "x".repeat(1025) }, /`cache_salt`/],
    [{ deadline_ms: 0 }, /`deadline_ms`.*above 0/],
    [{ deadline_ms: Number.POSITIVE_INFINITY }, /`deadline_ms`/],
    [{ keep: 5 }, /`keep` is 5.*true, false or \{ ttl_ms \}/],
    [{ keep: {} }, /`keep`.*ttl_ms/],
    [{ keep: { ttl_ms: 0 } }, /`ttl_ms`.*above 0/],
    [{ keep: { ttl: 5 } }, /`keep.ttl` is not supported/, "unsupported"],
    [{ session: "" }, /`session`/],
    [{ num_speculative_tokens: 9 }, /`num_speculative_tokens`.*0 to 8/],
    [{ num_speculative_tokens: -1 }, /`num_speculative_tokens`/],
  ])("refuses %j", (fields, message, code = "invalid-argument") => {
    expect(() => readScheduling({ ...fields })).toThrow(message);
    expect(() => readScheduling({ ...fields })).toThrow(expect.objectContaining({ code }));
  });
});
