import { describe, expect, test } from "vitest";
import { backportsStanza } from "./apt.mjs";
import { describeAdapter } from "./browsers.mjs";
import { ConversationPrinter } from "./conversationPrinter.mjs";
import { samePackages } from "./packages.mjs";
import { createProgress, progressLine } from "./progress.mjs";
import { summarize } from "./statistics.mjs";
import { findForbidden } from "./textRules.mjs";
import { countVitest, totalsLine } from "./totals.mjs";

describe("backportsStanza", () => {
  test("takes mirror and keys of the release's deb822 source", () => {
    const security =
      "Types: deb\nURIs: http://mirror.test/security\nSuites: bookworm-security\nComponents: main\n";
    const main =
      "Types: deb\n# a snapshot\nURIs: http://mirror.test/debian\nSuites: bookworm bookworm-updates\n" +
      "Components: main\nSigned-By: /usr/share/keyrings/test.gpg\n";
    expect(backportsStanza([`${security}\n${main}`], "bookworm")).toBe(
      "Types: deb\nURIs: http://mirror.test/debian\nSuites: bookworm-backports\nComponents: main\n" +
        "Signed-By: /usr/share/keyrings/test.gpg\n",
    );
    expect(backportsStanza([security], "bookworm")).toBeUndefined();
  });

  test("takes them of a one-line source too", () => {
    const list =
      "# deb http://old.test/ bookworm main\ndeb [signed-by=/k.gpg] http://mirror.test/debian bookworm main\n";
    expect(backportsStanza([list], "bookworm")).toContain("URIs: http://mirror.test/debian\n");
    expect(backportsStanza([list], "bookworm")).toContain("Signed-By: /k.gpg\n");
    expect(backportsStanza(["deb http://mirror.test bookworm main\n"], "bookworm")).not.toContain(
      "Signed-By",
    );
  });
});

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

describe("ConversationPrinter", () => {
  test("a single answer is printed as it comes, without a title", () => {
    const out: string[] = [];
    const printer = new ConversationPrinter(["question"], (text) => out.push(text));
    printer.push(0, "Hel");
    printer.push(0, "lo");
    printer.end(0);
    expect(out).toEqual(["Hel", "lo", "\n"]);
  });

  test("answers that come together are printed one after the other, whole", () => {
    let out = "";
    const printer = new ConversationPrinter(["a?", "b?", "c?"], (text) => {
      out += text;
    });
    printer.push(1, "B1");
    printer.push(0, "A1");
    expect(out).toBe("[1] a?\nA1");
    printer.end(2, "it failed");
    printer.push(1, "B2");
    printer.push(0, "A2\n");
    printer.end(0);
    expect(out).toBe("[1] a?\nA1A2\n\n[2] b?\nB1B2");
    printer.end(1);
    expect(out).toBe("[1] a?\nA1A2\n\n[2] b?\nB1B2\n\n[3] c?\n[it failed]\n\n");
  });
});

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

test("a software adapter is never called a GPU", () => {
  const adapter = { vendor: "", architecture: "", description: "", isFallback: true };
  expect(describeAdapter(adapter)).toBe("software adapter (unnamed), no GPU");
  expect(describeAdapter({ ...adapter, vendor: "acme", isFallback: false })).toBe("GPU (acme)");
  expect(describeAdapter(null)).toBe("no adapter");
});

test("a median of an odd and an even count", () => {
  expect(summarize([3, 1, 2])).toEqual({ median: 2, min: 1, max: 3, runs: 3 });
  expect(summarize([4, 1, 2, 10])).toEqual({ median: 3, min: 1, max: 10, runs: 4 });
});

describe("countVitest", () => {
  const report = {
    numPassedTests: 5,
    numFailedTests: 1,
    numPendingTests: 2,
    numTodoTests: 1,
    testResults: [{ name: "a", status: "failed", assertionResults: [{ status: "failed" }] }],
  };
  const broken = { name: "b", status: "failed", assertionResults: [] };
  test("counts tests", () => {
    expect(totalsLine(countVitest(report, 1))).toBe("5 passed, 1 failed, 3 skipped");
  });
  test("counts a file that did not load, and a run that failed in no file", () => {
    const testResults = [...report.testResults, broken];
    expect(countVitest({ ...report, testResults }, 1).failed).toBe(2);
    const clean = { ...report, numFailedTests: 0, testResults: [] };
    expect(countVitest(clean, 1).failed).toBe(1);
    expect(countVitest(clean, 0).failed).toBe(0);
  });
});

test("machine paths and registry hosts are found, other paths and hosts are not", () => {
  const bad = ["/home", "me/x"].join("/");
  const host = ["registry", "npmjs", "org"].join(".");
  expect(findForbidden("f", `ok\nsee ${bad}`)).toEqual([`f:2: a path of one machine: /home/m`]);
  expect(findForbidden("f", `https://${host}/x`)).toHaveLength(1);
  const fine = "/usr/bin/chromium ./home/x src/work/y https://example.com/root/x ~/x /etc/apt";
  expect(findForbidden("f", fine)).toEqual([]);
});
