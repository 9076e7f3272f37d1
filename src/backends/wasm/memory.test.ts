import { afterEach, describe, expect, it, vi } from "vitest";
import { makePlan } from "../../../e2e/fixtures/drivePlan.ts";
import { makeTinyModel } from "../../../e2e/fixtures/tinyModel.ts";
import { createWasmBackend } from "./backend.ts";
import { allocateMemory } from "./memory.ts";

/** The next `count` memories are refused: `thrown` is what the browser throws. */
function refuseMemory(count: number, thrown: unknown): void {
  const { Memory } = WebAssembly;
  let left = count;
  vi.spyOn(WebAssembly, "Memory").mockImplementation(function make(descriptor) {
    if (left-- > 0) throw thrown;
    return new Memory(descriptor);
  });
}

/** What browsers throw; Firefox's is no Error. */
const REFUSALS = [
  new RangeError("could not allocate memory"),
  new TypeError("initial pages exceed what there is"),
  "out of memory",
];

afterEach(() => {
  vi.restoreAllMocks();
});

describe.each(REFUSALS)("memory that is refused with %o", (refusal) => {
  it("is undefined", () => {
    refuseMemory(1, refusal);
    expect(allocateMemory(65536, false)).toBeUndefined();
    expect(allocateMemory(65537, false)?.buffer.byteLength).toBe(2 * 65536);
  });

  it("makes the pool smaller, and is a coded error where that does not help", async () => {
    const backend = await createWasmBackend({
      precision: "fast",
      simd: "plain",
      threads: 1,
      openThreads: () => Promise.reject(new Error("One thread needs no other.")),
    });
    const gguf = makeTinyModel({ layers: 1 });
    refuseMemory(2, refusal);
    const plan = await makePlan(gguf, { kvBlocks: 64 }, backend);
    expect(plan.numBlocks).toBe(16);
    refuseMemory(100, refusal);
    await expect(makePlan(gguf, { kvBlocks: 64 }, backend)).rejects.toMatchObject({
      code: "out-of-memory",
    });
    backend.dispose();
  });
});
