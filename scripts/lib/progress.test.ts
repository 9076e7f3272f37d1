import { expect, test } from "vitest";
import { createProgress, progressLine } from "./progress.mjs";

test("progress is redrawn on a terminal and a line a tenth elsewhere", () => {
  const write = (isTTY: boolean) => {
    const out: string[] = [];
    const progress = createProgress("file", 1000, { write: (text) => out.push(text), isTTY });
    for (let done = 0; done <= 1000; done += 10) progress.update(done);
    progress.end();
    return out;
  };
  expect(write(false)).toHaveLength(11);
  expect(write(false).at(-1)).toMatch(/100 % of 0\.0 MB\n$/);
  expect(write(true).every((text) => text.startsWith("\r") || text === "\n")).toBe(true);
  expect(progressLine("file", 5e6, 0)).toBe("file 5.0 MB");
});
