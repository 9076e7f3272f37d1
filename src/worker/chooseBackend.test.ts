import { describe, expect, test } from "vitest";
import type { Backend } from "../backends/ops.ts";
import { createReferenceBackend } from "../backends/reference/backend.ts";
import type { WasmBackendOptions } from "../backends/wasm/options.ts";
import { QuireError } from "../errors.ts";
import { type BackendParts, type BackendRequest, chooseBackend } from "./chooseBackend.ts";

/** What the machine is like, and what was done with it. */
interface Machine {
  /**
   * lost: its device is, whenever it is checked. crooked: wrong with the adapter's own kernels, right with flat ones. uneven: one variant of the linear kernels
   * does not give another's bits. unsteady: nor a variant its own.
   */
  readonly gpu:
    | "real"
    | "software"
    | "wrong"
    | "none"
    | "broken"
    | "lost"
    | "crooked"
    | "uneven"
    | "uneven software"
    | "unsteady";
  readonly wasm: "right" | "wrong" | "none" | "unsteady";
  readonly isIsolated: boolean;
}

const GOOD: Machine = { gpu: "real", wasm: "right", isIsolated: true };
const ASKED: BackendRequest = {
  backend: "auto",
  precision: undefined,
  threads: 4,
  canOpenThreads: true,
  simd: "auto",
};
const OPEN_THREADS = () => Promise.reject(new Error("The choice opens no thread by itself."));

/** A machine with the reference back end under both names; notes what is opened and disposed. */
function makeParts(machine: Machine) {
  const log: string[] = [];
  const open: Backend[] = [];
  const make = (fields: Pick<Backend, "name" | "threads"> & Partial<Backend>): Backend => {
    const reference = createReferenceBackend();
    const dispose = () => {
      open.splice(open.indexOf(backend), 1);
      reference.dispose();
    };
    const backend = { ...reference, ...fields, dispose };
    open.push(backend);
    log.push(`${fields.name} ${fields.threads}`);
    return backend;
  };
  const uneven = new Set<Backend>();
  const crooked = new Set<Backend>();
  const parts: BackendParts = {
    createWebGpu: async ({ allowFallback, kernels }) => {
      const isFallback = machine.gpu.endsWith("software");
      if (machine.gpu === "broken") throw new TypeError("The GPU process is gone.");
      if (machine.gpu === "none" || (isFallback && !allowFallback)) {
        throw new QuireError("webgpu-unavailable", `The adapter is ${machine.gpu}.`);
      }
      const adapter = { vendor: "acme", architecture: "", description: "", isFallback };
      const backend = make({ name: "webgpu", threads: 1, adapter });
      if (kernels?.family !== undefined) log.push(kernels.family);
      else crooked.add(backend);
      if (kernels?.linearTokens !== undefined) log.push(`rows by ${kernels.linearTokens.join()}`);
      else uneven.add(backend);
      return backend;
    },
    createWasm: async ({ precision, simd, threads }: WasmBackendOptions) => {
      if (machine.wasm === "none") throw new QuireError("wasm-unavailable", "There is no SIMD.");
      return make({ name: "wasm", threads, precision, simd: simd === "auto" ? "relaxed" : simd });
    },
    check: async (backend) => {
      const { name } = backend;
      const kind = name === "webgpu" ? machine.gpu : machine.wasm;
      log.push(`check ${name}`);
      if (kind === "wrong" || (kind === "crooked" && crooked.has(backend))) {
        throw new QuireError("adapter-numerics", `The ${name} back end is wrong.`);
      }
      if (kind === "lost") throw new QuireError("device-lost", "The GPU device was lost.");
      const isUneven = kind.startsWith("uneven") && uneven.has(backend);
      return { isBatchInvariant: !isUneven && kind !== "unsteady" };
    },
    isIsolated: machine.isIsolated,
  };
  return { parts, log, open };
}

async function choose(machine: Partial<Machine>, asked: Partial<BackendRequest> = {}) {
  const { parts, log, open } = makeParts({ ...GOOD, ...machine });
  const { signal } = new AbortController();
  const request = { ...ASKED, ...asked };
  const outcome = await chooseBackend(request, parts, OPEN_THREADS, signal).then(
    ({ backend, reason }) => {
      expect(open).toEqual([backend]);
      const { name, precision, threads, simd } = backend;
      return { name, precision, threads, simd, reason };
    },
    (error: QuireError) => {
      expect(open).toEqual([]);
      return { code: error.code, message: error.message };
    },
  );
  return { ...outcome, log };
}

describe("auto", () => {
  test("is WebGPU on an adapter that is no software", async () => {
    const found = await choose({});
    expect(found).toMatchObject({ name: "webgpu", precision: "exact", threads: 1, simd: null });
    expect(found.log).toEqual(["webgpu 1", "check webgpu"]);
  });

  test.each<[Machine["gpu"], string, RegExp]>([
    ["software", "wasm", /^The adapter is software\.$/],
    ["none", "wasm", /^The adapter is none\.$/],
    ["wrong", "wasm", /^The webgpu back end is wrong\.$/],
    ["broken", "wasm", /^WebGPU failed: TypeError: The GPU process is gone\.$/],
  ])("with a GPU that is %s it is WASM, and says why", async (gpu, name, reason) => {
    const found = await choose({ gpu });
    expect(found).toMatchObject({ name, precision: "fast", threads: 4, simd: "relaxed" });
    expect(found).toMatchObject({ reason: expect.stringMatching(reason) });
  });

  test("stays with a GPU whose rows depend on how many there are, with one kernel for all, and says so", async () => {
    const found = await choose({ gpu: "uneven" });
    expect(found).toMatchObject({
      name: "webgpu",
      reason: expect.stringMatching(
        /^WebGPU offers an adapter.* all steps run the one for four\.$/,
      ),
    });
    expect(found.log).toEqual([
      "webgpu 1",
      "check webgpu",
      "webgpu 1",
      "flat",
      "check webgpu",
      "webgpu 1",
      "flat",
      "rows by 4",
      "check webgpu",
    ]);
  });

  test("stays with a GPU that is right without what the threads of a workgroup share, and says so", async () => {
    const found = await choose({ gpu: "crooked" });
    expect(found).toMatchObject({
      name: "webgpu",
      reason: expect.stringMatching(
        /^WebGPU offers an adapter.* share no work within a workgroup\. .* The webgpu back end is wrong\.$/,
      ),
    });
    expect(found.log).toEqual(["webgpu 1", "check webgpu", "webgpu 1", "flat", "check webgpu"]);
  });

  test("takes no other kernels for an accident: the next time it might not happen", async () => {
    const found = await choose({ gpu: "lost" });
    expect(found).toMatchObject({ name: "wasm", reason: "The GPU device was lost." });
    expect(found.log).not.toContain("flat");
  });

  test("is WASM where one kernel for all does not help, and says why", async () => {
    const found = await choose({ gpu: "unsteady" });
    expect(found).toMatchObject({
      name: "wasm",
      reason: expect.stringMatching(/"acme" computes wrong results: a row comes out differently/),
    });
  });

  test.each<[Machine["wasm"], string]>([
    ["none", "wasm-unavailable"],
    ["wrong", "adapter-numerics"],
    ["unsteady", "adapter-numerics"],
  ])("fails with both reasons where WASM is %s too", async (wasm, code) => {
    const found = await choose({ gpu: "software", wasm });
    expect(found).toMatchObject({ code });
    expect(found).toMatchObject({
      message: expect.stringMatching(
        /(no SIMD|wasm back end is wrong|a row comes out differently).*The adapter is software\./,
      ),
    });
  });

  test("takes `fast` as leave: WebGPU stays exact", async () => {
    expect(await choose({}, { precision: "fast" })).toMatchObject({
      name: "webgpu",
      precision: "exact",
    });
  });
});

describe("by name", () => {
  test.each<[Machine["gpu"], string]>([
    ["real", "webgpu"],
    ["software", "webgpu"],
  ])("webgpu takes an adapter that is %s", async (gpu, name) => {
    const found = await choose({ gpu }, { backend: "webgpu" });
    expect(found).toMatchObject({ name, reason: "It was asked for by name." });
  });

  test.each<[Machine["gpu"], string]>([
    ["none", "webgpu-unavailable"],
    ["wrong", "adapter-numerics"],
    ["unsteady", "adapter-numerics"],
  ])("webgpu does not turn into WASM where it is %s", async (gpu, code) => {
    const found = await choose({ gpu }, { backend: "webgpu" });
    expect(found).toMatchObject({ code });
    expect(found.log).not.toContain("wasm 1");
  });

  test("webgpu on software, which has the flat kernels anyway, is tried once more and in one variant", async () => {
    const found = await choose({ gpu: "uneven software" }, { backend: "webgpu" });
    expect(found).toMatchObject({
      reason: expect.stringMatching(/all steps run the one for four/),
    });
    expect(found.log).toEqual([
      "webgpu 1",
      "check webgpu",
      "webgpu 1",
      "flat",
      "rows by 4",
      "check webgpu",
    ]);
  });

  test("wasm looks at no adapter", async () => {
    const asked = { backend: "wasm", precision: "exact", simd: "plain", threads: 2 } as const;
    const found = await choose({}, asked);
    expect(found).toMatchObject({ name: "wasm", precision: "exact", simd: "plain", threads: 2 });
    expect(found.log).toEqual(["wasm 1", "check wasm", "wasm 2"]);
  });

  test("wasm fails with its own reason alone", async () => {
    const found = await choose({ wasm: "none" }, { backend: "wasm" });
    expect(found).toMatchObject({ code: "wasm-unavailable", message: "There is no SIMD." });
  });
});

describe("threads", () => {
  const wasm = { backend: "wasm" } as const;

  test("one where the page is not isolated, and it says so", async () => {
    const found = await choose({ isIsolated: false }, wasm);
    expect(found).toMatchObject({ threads: 1, reason: expect.stringContaining("COOP and COEP") });
    expect(found.log).toEqual(["wasm 1", "check wasm"]);
  });

  test("one where the page can start no more workers, and it says so", async () => {
    const found = await choose({}, { ...wasm, canOpenThreads: false });
    expect(found).toMatchObject({ threads: 1, reason: expect.stringContaining("`worker` option") });
  });

  test("one because one was asked for needs no reason", async () => {
    const found = await choose({ isIsolated: false }, { ...wasm, threads: 1 });
    expect(found).toMatchObject({ threads: 1, reason: "It was asked for by name." });
  });
});

test("an abort opens no second back end", async () => {
  const { parts, log, open } = makeParts({ ...GOOD, gpu: "software" });
  const signal = AbortSignal.abort("enough");
  const choosing = chooseBackend(ASKED, parts, OPEN_THREADS, signal);
  await expect(choosing).rejects.toMatchObject({ code: "aborted" });
  expect(log).toEqual([]);
  expect(open).toEqual([]);
});
