import { expect, test } from "vitest";
import { describeAdapter } from "./browsers.mjs";

test("a software adapter is never called a GPU", () => {
  const adapter = { vendor: "", architecture: "", description: "", isFallback: true };
  expect(describeAdapter(adapter)).toBe("software adapter (unnamed), no GPU");
  expect(describeAdapter({ ...adapter, vendor: "acme", isFallback: false })).toBe("GPU (acme)");
  expect(describeAdapter(null)).toBe("no adapter");
});
