import { describe, expect, test } from "vitest";
import { samePackages } from "./packages.mjs";

describe("samePackages", () => {
  const wanted = {
    "": { version: "1.0.0" },
    "node_modules/a": { version: "1.0.0", integrity: "x" },
    "node_modules/b": { version: "1.0.0", integrity: "y", optional: true },
  };
  test.each([
    ["the same", { "node_modules/a": { version: "1.0.0", integrity: "x" } }, true],
    ["another version", { "node_modules/a": { version: "1.0.1", integrity: "x" } }, false],
    ["other bytes", { "node_modules/a": { version: "1.0.0", integrity: "z" } }, false],
    ["nothing", {}, false],
    [
      "something more",
      {
        "node_modules/a": { version: "1.0.0", integrity: "x" },
        "node_modules/c": { version: "1.0.0" },
      },
      false,
    ],
  ])("%s", (_, installed, same) => {
    expect(samePackages(wanted, installed)).toBe(same);
  });
});
