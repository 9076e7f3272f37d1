import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import ts from "typescript";
import { afterEach, beforeEach, expect, test } from "vitest";
import { checkImports, findCircles, listImports, type Part } from "./imports.mjs";

const parts: readonly Part[] = [
  { path: "src/top/", mayImport: ["src/low/", "src/mid.ts?worker"], packages: ["@scope/lib"] },
  { path: "src/mid.ts", mayImport: ["src/low/", "art/"], packages: [] },
  { path: "src/low/", mayImport: [], packages: [] },
  { path: "src/errors.ts", mayImport: [], packages: [] },
];

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "quire-imports-"));
});
afterEach(() => rmSync(root, { recursive: true }));

/** Writes the files and says what the check finds. */
function check(files: Readonly<Record<string, string>>): string[] {
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, name)), { recursive: true });
    writeFileSync(join(root, name), text);
  }
  return checkImports(root, Object.keys(files), ts, parts);
}

test("finds every form of import", () => {
  const text = `
    import a, { type B } from "./a.ts";
    import type { C } from "./c.ts";
    import "./d.ts";
    export * from "./e.ts";
    export type { F } from "./f.ts";
    const g = await import("./g.ts");
    type H = import("./h.ts").H;
    const i = new URL("./i.ts", import.meta.url);
    const j = import.meta.glob("./j/*.wgsl", { eager: true });
    const none = 'import "./no.ts"'; // import "./no.ts"
    new URL("./no.ts", base); import(name);
  `;
  const found = listImports(ts, "x.ts", text).map(({ specifier }) => specifier);
  expect(found).toEqual(
    "abcdefghij"
      .replace("b", "")
      .split("")
      .map((name) => (name === "j" ? "./j/*.wgsl" : `./${name}.ts`)),
  );
});

test("allows imports down the list and within a part", () => {
  const faults = check({
    "src/top/a.ts": `import "../low/c.ts"; import "./b.ts"; import "../errors.ts"; import "@scope/lib/sub";`,
    "src/top/b.ts": `import Worker from "../mid.ts?worker&inline";`,
    "src/mid.ts": `import type { C } from "./low/c.ts"; import.meta.glob("../art/**/*.wgsl");`,
    "src/low/c.ts": `import "../errors.ts";`,
    "src/low/c.test.ts": `import "../top/a.ts"; import "vitest";`,
    "src/errors.ts": "",
  });
  expect(faults).toEqual([]);
});

test.each([
  ["upwards", "src/low/c.ts", `import "../top/a.ts";`, /src\/low\/c\.ts:1: .* src\/top\/a\.ts/],
  ["upwards, types only", "src/low/c.ts", `\nimport type { A } from "../mid.ts";`, /c\.ts:2/],
  ["a worker's code", "src/top/b.ts", `import "../mid.ts";`, /may not import src\/mid\.ts/],
  ["a package", "src/low/c.ts", `import "left-pad";`, /may not import the package left-pad/],
  ["a built-in", "src/top/b.ts", `import "node:fs";`, /package node:fs/],
  ["outside", "src/top/b.ts", `import "../../scripts/x.mjs";`, /may not import scripts\/x\.mjs/],
  ["a helper of tests", "src/low/c.ts", `import "./testing/help.ts";`, /testing\/help\.ts/],
  ["nothing", "src/low/c.ts", `import "./gone.ts";`, /gone\.ts does not exist/],
])("refuses to import %s", (_, file, text, message) => {
  const faults = check({
    "src/top/a.ts": "",
    "src/mid.ts": "",
    "src/low/testing/help.ts": "",
    [file]: text,
  });
  expect(faults).toHaveLength(1);
  expect(faults[0]).toMatch(message);
});

test("a file outside every part is a fault", () => {
  expect(check({ "src/stray.ts": "" })).toEqual([expect.stringMatching(/belongs to no part/)]);
});

test("circles are found, types-only ones too", () => {
  const faults = check({
    "src/low/a.ts": `import type { B } from "./b.ts";`,
    "src/low/b.ts": `import "./c.ts";`,
    "src/low/c.ts": `import "./a.ts";`,
  });
  expect(faults).toEqual(["circle: src/low/a.ts -> src/low/b.ts -> src/low/c.ts -> src/low/a.ts"]);
  expect(findCircles(new Map([["a", ["a"]]]))).toEqual([["a", "a"]]);
  expect(
    findCircles(
      new Map([
        ["a", ["b", "c"]],
        ["b", ["c"]],
        ["c", []],
      ]),
    ),
  ).toEqual([]);
});
