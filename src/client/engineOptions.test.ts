import { afterEach, describe, expect, test, vi } from "vitest";
import { readEngineOptions, readWorkerOptions } from "./engineOptions.ts";

const model = new Blob([]);
const readRequest = (options: object) => readEngineOptions({ model, ...options }).request;

afterEach(() => vi.unstubAllGlobals());

describe("what computes", () => {
  test("has defaults; the back end chooses its precision", () => {
    vi.stubGlobal("navigator", { hardwareConcurrency: 6 });
    expect(readRequest({})).toMatchObject({
      backend: "auto",
      precision: undefined,
      threads: 6,
      canOpenThreads: true,
      simd: "auto",
    });
  });

  test.each([
    [2, 2],
    [8, 8],
    [64, 8],
    [undefined, 1],
  ])("of %s processors it takes %s threads", (hardwareConcurrency, threads) => {
    vi.stubGlobal("navigator", { hardwareConcurrency });
    expect(readRequest({}).threads).toBe(threads);
  });

  test.each(["auto", "wasm"])("backend %s takes what is WASM's", (backend) => {
    const asked = { backend, precision: "fast", threads: 64, simd: "plain" };
    expect(readRequest(asked)).toMatchObject(asked);
    expect(readRequest({ backend, precision: "exact" }).precision).toBe("exact");
  });

  test.each<[object, string, RegExp]>([
    [{ backend: "webgpu", precision: "fast" }, "unsupported", /precision.*WebGPU computes exactly/],
    [{ backend: "webgpu", threads: 2 }, "unsupported", /`threads`.*WASM/],
    [{ backend: "webgpu", simd: "plain" }, "unsupported", /`simd`.*WASM/],
    [{ backend: "cuda" }, "invalid-argument", /auto.*webgpu.*wasm/],
    [{ precision: "half" }, "invalid-argument", /exact.*fast/],
    [{ threads: 0 }, "invalid-argument", /threads.*1 to 64/],
    [{ threads: 65 }, "invalid-argument", /threads.*1 to 64/],
    [{ threads: 1.5 }, "invalid-argument", /threads/],
    [{ threads: "2" }, "invalid-argument", /threads/],
    [{ simd: "relaxed" }, "invalid-argument", /simd.*auto.*plain/],
  ])("refuses %j", (options, code, message) => {
    const read = () => readRequest(options);
    expect(read).toThrow(message);
    expect(read).toThrow(expect.objectContaining({ code }));
  });
});

test("a URL or a template that is empty is refused", () => {
  for (const empty of ["", " \n"]) {
    expect(() => readRequest({ model: empty })).toThrow(/`model` is .*a valid URL/);
  }
  expect(() => readRequest({ chatTemplate: "" })).toThrow(/`chatTemplate` is "".*not empty/);
});

test("waitingOrder is one of two", () => {
  expect(readRequest({}).waitingOrder).toBeUndefined();
  expect(readRequest({ waitingOrder: "longest-prefix" }).waitingOrder).toBe("longest-prefix");
  expect(() => readRequest({ waitingOrder: "lifo" })).toThrow(/`waitingOrder`.*"fcfs"/);
});

test("swapBytes may be nothing at all", () => {
  expect(readRequest({}).swapBytes).toBeUndefined();
  expect(readRequest({ swapBytes: 0 }).swapBytes).toBe(0);
  expect(readRequest({ swapBytes: 2 ** 32 }).swapBytes).toBe(2 ** 32);
  for (const swapBytes of [-1, 1.5, "1", Number.NaN]) {
    expect(() => readRequest({ swapBytes })).toThrow(/`swapBytes`.*integer from 0/);
  }
});

describe("worker", () => {
  const makeWorker = () => Object.assign(new EventTarget(), { postMessage() {}, terminate() {} });

  test("a Worker is the only one there is", () => {
    const worker = makeWorker();
    expect(readRequest({ worker }).canOpenThreads).toBe(false);
    const { createWorker, canStartMore } = readWorkerOptions({ worker });
    expect(canStartMore).toBe(false);
    expect(createWorker()).toBe(worker);
    expect(createWorker).toThrow(/one that an engine has had/);
  });

  test("one that an engine has had is no other's", () => {
    const worker = makeWorker();
    readWorkerOptions({ worker }).createWorker();
    for (const again of [worker, () => worker]) {
      const { createWorker } = readWorkerOptions({ worker: again });
      expect(createWorker).toThrow(/`worker` is "one that an engine has had"/);
    }
  });

  test("a function makes as many as are needed, each its own", () => {
    expect(readRequest({ worker: makeWorker }).canOpenThreads).toBe(true);
    const { createWorker } = readWorkerOptions({ worker: makeWorker });
    expect(createWorker()).not.toBe(createWorker());
    const same = makeWorker();
    const { createWorker: createSame } = readWorkerOptions({ worker: () => same });
    createSame();
    expect(createSame).toThrow(/returns a new one each time/);
  });

  test("a URL names the script, relative to the page", () => {
    const made: unknown[][] = [];
    class FakeWorker {
      constructor(...args: unknown[]) {
        made.push(args);
      }
    }
    vi.stubGlobal("Worker", FakeWorker);
    vi.stubGlobal("document", { baseURI: "https://example.org/app/" });
    for (const worker of ["quire/worker.js", new URL("https://cdn.example.org/w.js")]) {
      const { createWorker, canStartMore } = readWorkerOptions({ worker });
      expect(canStartMore).toBe(true);
      createWorker();
    }
    expect(made.map(([url]) => url)).toEqual([
      "https://example.org/app/quire/worker.js",
      "https://cdn.example.org/w.js",
    ]);
    expect(made[0]![1]).toMatchObject({ type: "module" });
  });

  test("what is none is refused", () => {
    expect(readWorkerOptions({ worker: 5 }).createWorker).toThrow(/`worker` is 5/);
    const halfWorker = { postMessage() {}, terminate() {} };
    expect(readWorkerOptions({ worker: halfWorker }).createWorker).toThrow(/`worker` is an object/);
    // An empty URL would be the page itself.
    for (const worker of ["http://", "", " "]) {
      expect(() => readWorkerOptions({ worker })).toThrow(/a valid URL/);
    }
  });
});
