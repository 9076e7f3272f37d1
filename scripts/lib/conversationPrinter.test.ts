import { describe, expect, test } from "vitest";
import { ConversationPrinter } from "./conversationPrinter.mjs";

describe("ConversationPrinter", () => {
  test("a single answer is printed as it comes, without a title", () => {
    const out: string[] = [];
    const printer = new ConversationPrinter(["question"], (text) => out.push(text));
    printer.push(0, "Hel");
    printer.push(0, "lo");
    printer.end(0, "cut short");
    expect(out).toEqual(["Hel", "lo", "\n", "[cut short]\n"]);
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
