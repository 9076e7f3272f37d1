import { describe, expect, test } from "vitest";
import { UsageError } from "./errors.mjs";
import { parseFlags } from "./flags.mjs";

const flags = {
  count: { type: "integer", min: 1, max: 9, help: "" },
  heat: { type: "number", min: 0, help: "" },
  part: { type: "number", min: 0, above: true, max: 1, help: "" },
  kind: { type: "choice", choices: ["a", "b"], help: "" },
  text: { type: "string", value: "TEXT", help: "" },
  json: { type: "boolean", help: "" },
} as const;

const parse = (...argv: string[]) => parseFlags(argv, flags, { positionals: "words" });

describe("parseFlags", () => {
  test("reads values, positionals and what was left out", () => {
    const { values, positionals } = parse("one", "--count", "3", "two", "--kind=b", "--json");
    expect(values).toEqual({ count: 3, kind: "b", json: true });
    expect(values.heat).toBeUndefined();
    expect(positionals).toEqual(["one", "two"]);
  });

  test("takes everything after -- and lone dashes and numbers as positionals", () => {
    expect(parse("-5 + 3", "-", "--", "--json").positionals).toEqual(["-5 + 3", "-", "--json"]);
    expect(parse("--", "--json").values.json).toBe(false);
  });

  test("keeps = and line breaks in a value", () => {
    expect(parse("--text=a=b\nc").values.text).toBe("a=b\nc");
    expect(parse("--text", "-x").values.text).toBe("-x");
  });

  test.each([
    [["--cuont", "3"], /Unknown flag --cuont\. Valid flags: --count, --heat/],
    [["-j"], /Unknown flag -j/],
    [["--toString", "3"], /Unknown flag/],
    [["--count"], /--count needs a value: a whole number from 1 to 9/],
    [["--count", "--json"], /--count needs a value/],
    [["--count", "0"], /--count 0 is not supported\. Valid: a whole number from 1 to 9/],
    [["--count", "2.5"], /is not supported/],
    [["--count", "1e1"], /is not supported/],
    [["--heat", "warm"], /Valid: a number from 0/],
    [["--heat", "-0.1"], /is not supported/],
    [["--heat", "Infinity"], /is not supported/],
    [["--heat="], /is not supported/],
    [["--part", "0"], /a number above 0 to 1/],
    [["--kind", "c"], /--kind c is not supported\. Valid: a, b/],
    [["--text="], /--text is empty/],
    [["--json=yes"], /--json takes no value/],
    [["--json", "--json"], /given twice/],
  ])("refuses %j", (argv, message) => {
    expect(() => parse(...argv)).toThrow(UsageError);
    expect(() => parse(...argv)).toThrow(message);
  });

  test("refuses positionals where none are taken", () => {
    expect(() => parseFlags(["word"], flags)).toThrow(
      /Unexpected argument "word"\. Valid flags: --c/,
    );
  });

  test("says where there are no flags", () => {
    const none = "There are no flags but --help.";
    expect(() => parseFlags(["--fast"], {})).toThrow(`Unknown flag --fast. ${none}`);
    expect(() => parseFlags(["word"], {})).toThrow(`Unexpected argument "word". ${none}`);
  });
});
