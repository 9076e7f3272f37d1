import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";

const here = (file: string) => readFileSync(new URL(file, import.meta.url), "utf8");

/** A test file that the README names, and parts of the names of its tests. */
interface Mention {
  readonly file: string;
  readonly names: readonly string[];
}

function mentionsIn(cell: string): Mention[] {
  const parts = cell.split(/`([\w.]+\.test\.ts)`/).slice(1);
  const mentions: Mention[] = [];
  for (let i = 0; i < parts.length; i += 2) {
    const names = parts[i + 1]!.replace(/^:/, "").split("; ");
    mentions.push({
      file: parts[i]!,
      names: names.map((name) => name.trim().replace(/;$/, "")).filter((name) => name !== ""),
    });
  }
  return mentions;
}

describe("the table of behaviours", () => {
  it("names tests that there are", () => {
    const readme = here("README.md");
    const rows = readme
      .slice(readme.indexOf("## Behaviours"))
      .split("\n")
      .filter((line) => line.startsWith("| "));
    const mentions = rows.flatMap((row) =>
      mentionsIn(row.split(" | ").slice(1).join(" | ").replace(/ \|$/, "")),
    );
    expect(mentions.length).toBeGreaterThan(50);
    const missing = mentions.flatMap(({ file, names }) => {
      const text = here(file);
      return names.filter((name) => !text.includes(name)).map((name) => `${file}: ${name}`);
    });
    expect(missing).toEqual([]);
  });
});
