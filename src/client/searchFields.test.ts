import { describe, expect, test } from "vitest";
import { readSettings } from "./samplingFields.ts";

const read = (fields: object) => readSettings({ ...fields }, undefined);

describe("best_of", () => {
  test("above n asks the engine to choose; n or nothing leaves samples to come as they are", () => {
    expect(read({ n: 2, best_of: 5 })).toMatchObject({ n: 2, bestOf: 5 });
    for (const fields of [{}, { n: 2, best_of: 2 }, { best_of: null }, { n: 3 }]) {
      expect(read(fields).bestOf).toBeUndefined();
    }
    expect(read({ best_of: 2, temperature: 0.5, seed: 3, top_p: 0.9, stop: [] }).bestOf).toBe(2);
  });

  test.each<[object, RegExp]>([
    [{ n: 3, best_of: 2 }, /`best_of` is 2; it must be at least `n` \(3\)/],
    [{ best_of: 0 }, /`best_of`.*1 to 128/],
    [{ best_of: 129 }, /`best_of`.*1 to 128/],
    [{ best_of: 1.5 }, /`best_of`.*integer/],
    [{ best_of: 2, stop: "x" }, /`stop` is "x"; it must be left out with `best_of` above `n`/],
    [{ best_of: 2, prompt_logprobs: 0 }, /`prompt_logprobs`.*left out with `best_of`/],
  ])("refuses %j", (fields, message) => {
    expect(() => read(fields)).toThrow(message);
    expect(() => read(fields)).toThrow(expect.objectContaining({ code: "invalid-argument" }));
  });
});

test("logit_bias names each token once", () => {
  expect(read({ logit_bias: { 0: 1, 50: 2 } }).sampling.logitBias).toEqual([
    [0, 1],
    [50, 2],
  ]);
  for (const key of ["05", "00", "-1", "1e3", " 5", ""]) {
    expect(() => read({ logit_bias: { [key]: 1 } })).toThrow(/`logit_bias`.*keyed by token ids/);
  }
  expect(() => read({ logit_bias: new Map([[5, 100]]) })).toThrow(/object \(Map\)/);
});

describe("beam search", () => {
  test("has defaults: as many beams as choices, length penalty 1, greedy", () => {
    expect(read({ use_beam_search: true })).toMatchObject({
      n: 1,
      beam: { width: 1, lengthPenalty: 1, earlyStopping: false },
      sampling: { temperature: 0, logprobs: undefined },
    });
    expect(read({ use_beam_search: true, n: 4 }).beam?.width).toBe(4);
    expect(read({ use_beam_search: false }).beam).toBeUndefined();
    expect(read({}).sampling.temperature).toBe(1);
  });

  test("takes its fields, and values of others that change nothing", () => {
    const neutral = {
      ...{
        stop: [],
        logit_bias: {},
        temperature: 0,
        top_p: 1,
        top_k: -1,
        min_p: 0,
        presence_penalty: 0,
      },
      ...{
        frequency_penalty: 0,
        repetition_penalty: 1,
        num_speculative_tokens: 0,
        logprobs: false,
      },
    };
    const asked = { beam_width: 10, length_penalty: -0.5, early_stopping: "never" };
    expect(read({ use_beam_search: true, n: 2, ...asked, ...neutral })).toMatchObject({
      n: 2,
      beam: { width: 10, lengthPenalty: -0.5, earlyStopping: "never" },
    });
    expect(read({ use_beam_search: true, early_stopping: true }).beam?.earlyStopping).toBe(true);
  });

  test.each<[object, RegExp]>([
    [{ temperature: 0.7 }, /`temperature` is 0.7; it must be left out or 0 with `use_beam_search`/],
    [{ top_p: 0.9 }, /`top_p`.*left out or 1 with/],
    [{ top_k: 5 }, /`top_k`.*left out or 0 or -1 with/],
    [{ min_p: 0.1 }, /`min_p`/],
    [{ presence_penalty: 1 }, /`presence_penalty`/],
    [{ frequency_penalty: 1 }, /`frequency_penalty`/],
    [{ repetition_penalty: 1.1 }, /`repetition_penalty`/],
    [{ logit_bias: { 5: 1 } }, /`logit_bias`.*left out with/],
    [{ logit_bias: [] }, /`logit_bias`.*a plain object/],
    [{ stop: "" }, /`stop`/],
    [{ beam_width: [] }, /`beam_width`/],
    [{ seed: 1 }, /`seed`.*left out with/],
    [{ logprobs: true }, /`logprobs`/],
    [{ prompt_logprobs: 1 }, /`prompt_logprobs`/],
    [{ stop: "x" }, /`stop`/],
    [{ best_of: 3 }, /`best_of`/],
    [{ num_speculative_tokens: 2 }, /`num_speculative_tokens`/],
    [{ beam_width: 0 }, /`beam_width`.*1 to 10/],
    [{ beam_width: 11 }, /`beam_width`.*1 to 10/],
    [{ beam_width: 2, n: 3 }, /`n` is 3; it must be at most `beam_width` \(2\)/],
    [{ n: 11 }, /`n` is 11; it must be at most `beam_width` \(10\)/],
    [{ length_penalty: 11 }, /`length_penalty`.*-10 to 10/],
    [{ length_penalty: "1" }, /`length_penalty`/],
    [{ early_stopping: "always" }, /`early_stopping`.*one of true, false, "never"/],
  ])("refuses %j", (fields, message) => {
    const asked = () => read({ use_beam_search: true, ...fields });
    expect(asked).toThrow(message);
    expect(asked).toThrow(expect.objectContaining({ code: "invalid-argument" }));
  });

  test.each(["beam_width", "length_penalty", "early_stopping"])("%s needs it", (field) => {
    for (const use_beam_search of [undefined, false]) {
      const fields = { use_beam_search, [field]: field === "early_stopping" ? true : 1 };
      expect(() => read(fields)).toThrow(`\`${field}\``);
      expect(() => read(fields)).toThrow("without `use_beam_search`");
    }
    expect(() => read({ use_beam_search: 1 })).toThrow(/`use_beam_search`.*true or false/);
  });
});
