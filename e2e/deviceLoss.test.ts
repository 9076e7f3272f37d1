import { afterEach, expect, it, vi } from "vitest";
import type { AdapterSummary, Backend, Plan } from "../src/backends/ops.ts";
import { createReferenceBackend } from "../src/backends/reference/backend.ts";
import { createEngine } from "../src/client/createEngine.ts";
import type { EngineOptions, QuireEngine } from "../src/client/types.ts";
import { QuireError } from "../src/errors.ts";
import { createLoopbackWorker } from "./fixtures/loopbackWorker.ts";
import { makeTinyModel } from "./fixtures/tinyModel.ts";

const model = makeTinyModel({ layers: 1, width: 64, contextLength: 256 }).buffer;
const ADAPTER: AdapterSummary = {
  vendor: "test",
  architecture: "",
  description: "",
  isFallback: false,
};

/** What a step does that is under way when its device is lost. */
type LastStep = "rejects" | "never settles";

/** A back end whose device can be lost. */
class Losable {
  readonly backend: Backend;
  lose: (message?: string) => void = () => {};
  numSubmitted = 0;
  isDisposed = false;
  #isLost = false;

  constructor(lastStep: LastStep, adapter: AdapterSummary = ADAPTER, kernels = "usual") {
    const inner = createReferenceBackend();
    const lost = new Promise<Error>((resolve) => {
      this.lose = (message = "gone") => {
        this.#isLost = true;
        resolve(new QuireError("device-lost", `The GPU device was lost: ${message}`));
      };
    });
    const losable = (plan: Plan): Plan =>
      new Proxy(plan, {
        get: (target, key) => {
          if (key === "submit") {
            return (step: Parameters<Plan["submit"]>[0]) => {
              this.numSubmitted += 1;
              const { result } = target.submit(step);
              return { result: this.#unlessLost(result, lastStep) };
            };
          }
          const value = Reflect.get(target, key) as unknown;
          return typeof value === "function" ? value.bind(target) : value;
        },
      });
    this.backend = {
      name: "reference",
      precision: "exact",
      threads: 1,
      simd: null,
      adapter,
      kernels,
      lost,
      createPlanBuilder: (spec) => {
        const builder = inner.createPlanBuilder(spec);
        const finish = builder.finish.bind(builder);
        builder.finish = async (signal) => losable(await finish(signal));
        return builder;
      },
      dispose: () => {
        this.isDisposed = true;
        inner.dispose();
      },
    };
  }

  async #unlessLost<T>(result: Promise<T>, lastStep: LastStep): Promise<T> {
    const value = await result;
    // A step takes a while, so that a device can be lost meanwhile.
    await new Promise((resolve) => setImmediate(resolve));
    if (!this.#isLost) return value;
    if (lastStep === "never settles") return new Promise(() => {});
    throw new QuireError("device-lost", "The GPU did not finish a step.");
  }
}

/** An engine whose devices come from `open`, which says what happens at the n-th opening. */
async function create(
  open: (n: number) => Losable,
  options: Partial<EngineOptions> = {},
): Promise<{ engine: QuireEngine; devices: Losable[] }> {
  const devices: Losable[] = [];
  const openNext = () => {
    const device = open(devices.length);
    devices.push(device);
    return device.backend;
  };
  const engine = await createEngine({
    model,
    worker: () => createLoopbackWorker(openNext),
    ...options,
  });
  return { engine, devices };
}

const prompts = ["Once upon a time", "The quick brown fox", "1 2 3 4"];

/** Token counts and texts of three requests at once; `onToken` is told how many tokens have come. */
function generate(engine: QuireEngine, onToken: (count: number) => void = () => {}) {
  let count = 0;
  return Promise.all(
    prompts.map(async (prompt, i) => {
      const stream = await engine.completions.create({
        prompt,
        stream: true,
        max_tokens: 24,
        temperature: i,
        top_p: 0.9,
        presence_penalty: i === 2 ? 1 : 0,
        seed: 7 + i,
        ignore_eos: true,
      });
      let text = "";
      for await (const chunk of stream) {
        text += chunk.choices[0]?.text ?? "";
        count += 1;
        onToken(count);
      }
      return text;
    }),
  );
}

async function expected(): Promise<string[]> {
  const { engine } = await create(() => new Losable("rejects"));
  const texts = await generate(engine);
  await engine.dispose();
  return texts;
}

afterEach(() => {
  vi.useRealTimers();
});

it.each<LastStep>(["rejects", "never settles"])(
  "goes on with the same tokens when a device is lost and its last step %s",
  async (lastStep) => {
    const { engine, devices } = await create(() => new Losable(lastStep));
    const texts = await generate(engine, (count) => {
      if (count === 20 || count === 50) devices.at(-1)!.lose();
    });
    expect(texts).toEqual(await expected());
    const { totals, kv } = await engine.stats();
    expect(totals.deviceLosses).toBe(2);
    expect(kv.blocksUsed).toBe(0);
    expect(devices.map(({ isDisposed }) => isDisposed)).toEqual([true, true, false]);
    await engine.dispose();
    expect(devices[2]!.isDisposed).toBe(true);
  },
);

it("replaces a device that is lost while nobody asks for anything", async () => {
  const { engine, devices } = await create(() => new Losable("rejects"));
  devices[0]!.lose();
  const texts = await generate(engine);
  expect(texts).toEqual(await expected());
  expect(devices).toHaveLength(2);
  expect(devices[0]!.numSubmitted).toBe(0);
  await engine.dispose();
});

it("waits for a browser that starts its GPU process anew", async () => {
  const { engine, devices } = await create((n) => {
    if (n === 1 || n === 2) devices.push(undefined as never);
    if (n === 1 || n === 2) throw new QuireError("webgpu-unavailable", "No adapter.");
    return new Losable("rejects");
  });
  devices[0]!.lose();
  expect(await generate(engine)).toEqual(await expected());
  expect(devices).toHaveLength(4);
  await engine.dispose();
});

it("tells everyone with `device-lost` when no device comes back", async () => {
  const { engine, devices } = await create((n) => {
    if (n === 0) return new Losable("rejects");
    throw new QuireError("webgpu-unavailable", "No adapter.");
  });
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"], shouldAdvanceTime: true });
  vi.setTimerTickMode("nextTimerAsync");
  const outcome = generate(engine, (count) => {
    if (count === 10) devices[0]!.lose("it crashed");
  });
  await expect(outcome).rejects.toMatchObject({
    code: "device-lost",
    message: expect.stringMatching(/it crashed.*could not be replaced: No adapter\./),
  });
  await expect(engine.stats()).rejects.toMatchObject({ code: "device-lost" });
  await engine.dispose();
});

it.each([
  [
    "another adapter",
    () => new Losable("rejects", { ...ADAPTER, vendor: "other" }),
    /"vendor":"other"/,
  ],
  ["other kernels", () => new Losable("rejects", ADAPTER, "other"), /were "usual".* are "other"/],
])("does not go on with %s, whose bits differ", async (_, openOther, message) => {
  const { engine, devices } = await create((n) => (n === 0 ? new Losable("rejects") : openOther()));
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"], shouldAdvanceTime: true });
  vi.setTimerTickMode("nextTimerAsync");
  devices[0]!.lose();
  await expect(generate(engine)).rejects.toMatchObject({
    code: "device-lost",
    message: expect.stringMatching(message),
  });
  expect(devices.every(({ isDisposed }) => isDisposed)).toBe(true);
  await engine.dispose();
});

it("gives up on a device that is lost again and again", async () => {
  const { engine, devices } = await create(() => new Losable("rejects"));
  const outcome = generate(engine, () => devices.at(-1)!.lose());
  await expect(outcome).rejects.toMatchObject({
    code: "device-lost",
    message: expect.stringContaining("4 times within 10 minutes"),
  });
  expect(devices).toHaveLength(4);
  expect(devices.every(({ isDisposed }) => isDisposed)).toBe(true);
  await engine.dispose();
});

it("can be disposed while it waits for a device", async () => {
  const { engine, devices } = await create((n) => {
    if (n === 0) return new Losable("rejects");
    throw new QuireError("webgpu-unavailable", "No adapter.");
  });
  devices[0]!.lose();
  await new Promise((resolve) => setTimeout(resolve, 20));
  await engine.dispose();
  await expect(engine.stats()).rejects.toMatchObject({ code: "disposed" });
});

it("fails to start with a device that is lost while the model loads", async () => {
  const bytes = new Uint8Array(model);
  const device = new Losable("rejects");
  const source = {
    name: "tiny.gguf",
    byteLength: bytes.byteLength,
    read: async (offset: number, length: number) => {
      if (offset > bytes.byteLength / 2) device.lose();
      return bytes.slice(offset, offset + length);
    },
  };
  const started = create(() => device, { model: source });
  await expect(started).rejects.toMatchObject({ code: "device-lost" });
  expect(device.isDisposed).toBe(true);
});
