import { expect, test } from "vitest";
import { createReferenceBackend } from "../src/backends/reference/backend.ts";
import { createEngine } from "../src/client/createEngine.ts";
import type { EngineOptions } from "../src/client/types.ts";
import type { QuireError } from "../src/errors.ts";
import type { ServeOptions } from "../src/worker/serve.ts";
import {
  createLoopbackWorker,
  createWorkerShell,
  type LoopbackWorker,
} from "./fixtures/loopbackWorker.ts";
import { makeTinyModel } from "./fixtures/tinyModel.ts";

// How an engine worker comes by its threads, over real ports: it asks the page, which starts them.

const model = makeTinyModel({ layers: 1, width: 64, contextLength: 256 }).buffer;
const greeting = { messages: [{ role: "user" as const, content: "Hello" }], ignore_eos: true };

/** A back end that greets each of its threads when it comes up, and notes their answers. */
function makeFleet(numThreads: number, made: (index: number) => LoopbackWorker | undefined) {
  const workers: LoopbackWorker[] = [];
  const answers: unknown[] = [];
  const requests: unknown[] = [];
  const options: Partial<ServeOptions> = {
    createBackend: async (request, openThreads, signal) => {
      requests.push(request);
      const ports = await openThreads(numThreads, signal);
      for (const [i, port] of ports.entries()) {
        const answer = new Promise((resolve) => {
          port.onmessage = ({ data }) => resolve(data);
        });
        port.postMessage(`greeting ${i}`);
        answers.push(await answer);
        port.close();
      }
      return { backend: createReferenceBackend(), reason: "It is a test." };
    },
    serveThread: (port) => {
      port.onmessage = ({ data }) => port.postMessage(`echo of ${data}`);
    },
  };
  const worker = () => {
    const index = workers.length;
    const next = made(index) ?? createLoopbackWorker(createReferenceBackend, options);
    workers.push(next);
    return next;
  };
  const start = (more: Partial<EngineOptions> = {}) => createEngine({ model, worker, ...more });
  return { workers, answers, requests, start };
}

const failure = (promise: Promise<unknown>): Promise<QuireError> =>
  promise.then(
    () => {
      throw new Error("It did not fail.");
    },
    (error: QuireError) => error,
  );

test("threads are further workers of the same script, joined to the engine's; dispose ends all", async () => {
  const { workers, answers, start } = makeFleet(3, () => undefined);
  const engine = await start();
  expect(workers).toHaveLength(4);
  expect(answers).toEqual([0, 1, 2].map((i) => `echo of greeting ${i}`));
  const { usage } = await engine.chat.completions.create({ ...greeting, max_tokens: 2 });
  expect(usage.completion_tokens).toBe(2);
  await engine.dispose();
  expect(workers.every(({ isTerminated }) => isTerminated)).toBe(true);
});

test("what is asked for crosses; a Worker leaves one thread", async () => {
  const { requests, start } = makeFleet(0, () => undefined);
  const asked = { backend: "wasm", precision: "exact", threads: 3, simd: "plain" } as const;
  await (await start(asked)).dispose();
  expect(requests[0]).toMatchObject({ ...asked, canOpenThreads: true });

  let found: unknown;
  const worker = createLoopbackWorker(createReferenceBackend, {
    createBackend: async (request) => {
      found = request;
      return { backend: createReferenceBackend(), reason: "It is a test." };
    },
  });
  const engine = await createEngine({ model, worker });
  expect(found).toMatchObject({ backend: "auto", precision: undefined, canOpenThreads: false });
  const info = { backend: "reference", backendReason: "It is a test.", precision: "exact" };
  expect(engine).toMatchObject({ ...info, threads: 1, simd: null, adapter: null });
  expect(await engine.stats()).toMatchObject({ ...info, threads: 1, simd: null, adapter: null });
  await engine.dispose();
});

test("a thread that crashes ends the engine with `worker-failed`; another one works", async () => {
  const { workers, start } = makeFleet(2, () => undefined);
  const engine = await start();
  const pending = failure(engine.chat.completions.create({ ...greeting, max_tokens: 200 }));
  workers[2]!.crash("Uncaught RangeError");
  const error = await pending;
  expect(error).toMatchObject({ code: "worker-failed" });
  expect(error.message).toMatch(/thread of the engine crashed: Uncaught RangeError/);
  expect((await failure(engine.stats())).code).toBe("worker-failed");
  expect(workers.every(({ isTerminated }) => isTerminated)).toBe(true);

  const other = makeFleet(2, () => undefined);
  await (await other.start()).dispose();
});

/** What may become of the third of four workers, a thread. */
const DEAD: readonly [string, () => LoopbackWorker, RegExp][] = [
  ["never answers", () => createWorkerShell(() => {}), /thread of the engine did not answer/],
  [
    "fails to start",
    () => {
      const worker = createWorkerShell(() => worker.crash("404"));
      return worker;
    },
    /thread of the engine did not start: 404/,
  ],
  [
    "cannot be made",
    () => {
      throw new Error("SecurityError");
    },
    /thread of the engine could not be made/,
  ],
];

test.each(DEAD)(
  "a thread that %s is `worker-failed`, and nothing is left",
  async (_, make, why) => {
    const fleet = makeFleet(3, (index) => (index === 2 ? make() : undefined));
    const error = await failure(fleet.start({ workerTimeoutMs: 300 }));
    expect(error.code).toBe("worker-failed");
    expect(error.message).toMatch(why);
    expect(fleet.workers.length).toBeGreaterThanOrEqual(2);
    expect(fleet.workers.every(({ isTerminated }) => isTerminated)).toBe(true);
  },
);

test("a function that returns the same worker again is refused", async () => {
  const { workers, start } = makeFleet(1, () => undefined);
  const first = await failure(
    start({
      worker: (() => {
        let only: LoopbackWorker | undefined;
        return () => {
          only ??= createLoopbackWorker(createReferenceBackend, {
            createBackend: async (_, openThreads, signal) => {
              await openThreads(1, signal);
              return { backend: createReferenceBackend(), reason: "It is a test." };
            },
          });
          workers.push(only);
          return only;
        };
      })(),
    }),
  );
  expect(first).toMatchObject({ code: "invalid-argument" });
  expect(first.message).toContain("returns a new one each time");
  expect(workers[0]!.isTerminated).toBe(true);
});

test("an abort while threads start ends all of them", async () => {
  const abort = new AbortController();
  const fleet = makeFleet(2, (index) => {
    if (index !== 2) return undefined;
    abort.abort("enough");
    return createWorkerShell(() => {});
  });
  const error = await failure(fleet.start({ signal: abort.signal }));
  expect(error).toMatchObject({ code: "aborted", cause: "enough" });
  expect(fleet.workers).toHaveLength(3);
  expect(fleet.workers.every(({ isTerminated }) => isTerminated)).toBe(true);
});
