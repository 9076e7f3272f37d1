import { expect, it } from "vitest";
import { reachableContext } from "./reachableContext.ts";

it("is the context where the pool holds it, else what the pool holds", () => {
  const blocks = { numBlocks: 512, blockSize: 16 } as const;
  expect(reachableContext({ ...blocks, maxContext: 8191 })).toBe(8191);
  expect(reachableContext({ ...blocks, maxContext: 131_072 })).toBe(8192);
  expect(reachableContext({ ...blocks, maxContext: 131_072, numBlocks: 1 })).toBe(16);
});
