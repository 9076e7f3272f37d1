import type { EngineStats, QuireEngine } from "quire";
import { beforeEach, expect, test, vi } from "vitest";
import { EngineSession } from "./engineSession.ts";
import type { ModelChoice } from "./modelChoice.ts";

const createEngine = vi.hoisted(() => vi.fn());
vi.mock("quire", () => ({
  createEngine,
  QuireError: class extends Error {
    constructor(
      readonly code: string,
      message: string,
    ) {
      super(message);
    }
  },
}));

const choice: ModelChoice = { kind: "url", url: "https://example.org/m.gguf", name: "m.gguf" };
const STATS = { sequences: { running: 0, waiting: 0 } } as EngineStats;

/** An engine that is ready at once, whose numbers come when the test lets them. */
function offerEngine() {
  let tell = (_: EngineStats): void => {};
  let fail = (_: Error): void => {};
  const stats = new Promise<EngineStats>((resolve, reject) => {
    tell = resolve;
    fail = reject;
  });
  const dispose = vi.fn(async () => {});
  createEngine.mockResolvedValueOnce({ stats: () => stats, dispose } as Partial<QuireEngine>);
  return { tell, fail, dispose };
}

beforeEach(() => {
  createEngine.mockReset();
});

test("a load that is cancelled at its very end leaves no engine and no numbers", async () => {
  const { tell, dispose } = offerEngine();
  const session = new EngineSession({});
  const loading = session.load(choice);
  await vi.waitFor(() => expect(createEngine).toHaveBeenCalledOnce());
  await new Promise((resolve) => setTimeout(resolve));
  session.cancel();
  tell(STATS);
  await loading;
  expect(session.state.value).toEqual({ phase: "none" });
  expect(session.stats.value).toBeUndefined();
  expect(dispose).toHaveBeenCalledOnce();
});

test("an engine that breaks before its numbers come has not loaded, and nothing of it stays", async () => {
  const { fail, dispose } = offerEngine();
  const session = new EngineSession({});
  const loading = session.load(choice);
  fail(new Error("gone"));
  await loading;
  expect(session.state.value).toMatchObject({ phase: "failed", choice });
  expect(dispose).toHaveBeenCalledOnce();
});

test("a load that ends well is ready, with its numbers, until the next one", async () => {
  const { tell, dispose } = offerEngine();
  const session = new EngineSession({});
  const loading = session.load(choice);
  tell(STATS);
  await loading;
  expect(session.state.value).toMatchObject({ phase: "ready", choice });
  expect(session.stats.value).toBe(STATS);
  expect(dispose).not.toHaveBeenCalled();
  createEngine.mockRejectedValueOnce(new Error("no"));
  await session.load(choice);
  expect(dispose).toHaveBeenCalledOnce();
  expect(session.state.value.phase).toBe("failed");
});
