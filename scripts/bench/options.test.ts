import { expect, test } from "vitest";
import { UsageError } from "../lib/errors.mjs";
import { defaultNames } from "./benchmarks.mjs";
import { parseBench } from "./options.mjs";

function parse(...argv: string[]) {
  const options = parseBench(argv);
  if (options === "help") throw new Error("That was no call for help.");
  return options;
}

test("without names the back end decides what is measured", () => {
  expect(parse()).toMatchObject({ names: [], backend: "auto", browser: "chromium" });
  expect(defaultNames("webgpu")).toEqual(["decode", "prefill", "linear"]);
  expect(defaultNames("wasm")).toEqual(["decode", "prefill", "walk", "breakdown", "context"]);
});

test("benchmarks of one back end choose it", () => {
  expect(parse("walk", "decode").backend).toBe("wasm");
  expect(parse("linear").backend).toBe("webgpu");
  expect(parse("decode", "prefill").backend).toBe("auto");
  expect(parse("peers").backend).toBe("wasm");
});

test("flags of the WASM back end choose it", () => {
  expect(parse("decode", "--threads", "1")).toMatchObject({
    backend: "wasm",
    engine: { threads: 1 },
  });
  expect(parse("decode", "--precision", "fast").backend).toBe("wasm");
  expect(parse("decode", "--precision", "exact").backend).toBe("auto");
  expect(parse("--simd", "plain", "--isolated", "off", "--runs", "2")).toMatchObject({
    backend: "wasm",
    engine: { simd: "plain" },
    isolated: false,
    runs: 2,
  });
});

test("--windows goes with perplexity", () => {
  expect(parse("decode", "perplexity", "--windows", "2").numWindows).toBe(2);
  expect(parse("perplexity").numWindows).toBe(9);
});

test("names come in the order in which they run", () => {
  expect(parse("walk", "decode").names).toEqual(["decode", "walk"]);
});

test.each([
  [["speed"], "There is no benchmark speed"],
  [["walk", "linear"], "not all of one back end"],
  [["walk", "--backend", "webgpu"], "There is no walk on webgpu"],
  [["linear", "--backend", "wasm"], "There is no linear on wasm"],
  [["--backend", "webgpu", "--threads", "2"], "--threads"],
  [["linear", "--simd", "plain"], "There is no linear on wasm"],
  [["--backend", "webgpu", "--precision", "fast"], "--precision fast"],
  [["linear", "--precision", "fast"], "There is no linear on wasm"],
  [["decode", "--windows", "2"], "--windows belongs to the benchmark perplexity"],
  [["--windows", "2"], "--windows belongs to the benchmark perplexity"],
  [["--threads", "2", "--isolated", "off"], "--threads 2 is not supported with --isolated off"],
  [["peers", "walk"], "runs by itself"],
  [["peers", "--browser", "firefox"], "chooses --browser itself"],
  [["browsers", "--isolated", "off"], "chooses --isolated itself"],
  [["--fast"], "Unknown flag --fast"],
  [["--runs", "0"], "--runs 0"],
])("%s is refused", (argv, message) => {
  expect(() => parseBench(argv)).toThrow(UsageError);
  expect(() => parseBench(argv)).toThrow(message);
});
