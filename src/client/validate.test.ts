import { describe, expect, test } from "vitest";
import { invalidField, readEach, readObject } from "./validate.ts";

describe("readObject", () => {
  test.each<[string, object]>([
    ["an object", { a: 1 }],
    ["one without prototype", Object.assign(Object.create(null), { a: 1 })],
    ["one of another realm", Object.assign(Object.create(Object.create(null)), { a: 1 })],
  ])("takes %s", (_, value) => {
    expect(readObject(value, "it")).toBe(value);
  });

  test.each<[unknown, string]>([
    [null, "null"],
    [5, "5"],
    [[], "an empty list"],
    [new Map([[5, 100]]), "an object (Map)"],
    [new Date(0), "an object (Date)"],
    [new (class Mine {})(), "an object"],
    [() => {}, "a function"],
  ])("refuses %o", (value, found) => {
    expect(() => readObject(value, "it")).toThrow(`\`it\` is ${found}; it must be a plain object.`);
  });
});

test("a value that is refused is told in few words", () => {
  const told = (found: unknown) => invalidField("it", found, "else").data["found"];
  const long = function named() {
    return "a body that is of no interest to whoever reads the message";
  };
  expect(told(long)).toBe("a function");
  expect(told(class Mine {})).toBe("a function");
  expect(told("x".repeat(100))).toHaveLength(43);
  expect(told(Symbol("s"))).toBe("Symbol(s)");
});

test("readEach reads holes too", () => {
  const list = ["a", "b", "c"];
  delete list[1];
  expect(readEach(list, (entry, i) => `${i}:${entry}`)).toEqual(["0:a", "1:undefined", "2:c"]);
});
