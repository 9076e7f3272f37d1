import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test, vi } from "vitest";
import { type AskOptions, parseAsk, unusedFlags } from "./askOptions.mjs";
import { UsageError } from "./errors.mjs";

const folder = mkdtempSync(join(tmpdir(), "quire-ask-"));
afterAll(() => rmSync(folder, { recursive: true }));

function parse(...argv: string[]): AskOptions {
  const options = parseAsk(argv);
  if (options === "help") throw new Error("help");
  return options;
}

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

describe("parseAsk", () => {
  test("has the contract's defaults", () => {
    expect(parse("Hello")).toEqual({
      model: undefined,
      browser: "chromium",
      isolated: true,
      json: false,
      engine: { backend: "auto", kvCacheDtype: "f16", blockSize: 16 },
      requests: [
        {
          messages: [{ role: "user", content: "Hello" }],
          max_tokens: 128,
          temperature: 0,
          top_p: 1,
          n: 1,
        },
      ],
    });
  });

  test("conversations of a file follow the prompts; conversation i uses seed + i", () => {
    const chat = [{ role: "user", content: "From a file" }];
    const path = file("chats.json", JSON.stringify([chat, []]));
    const { requests } = parse(
      "One",
      "Two",
      "--messages",
      path,
      "--system",
      "Be short",
      "--seed",
      "7",
    );
    expect(requests.map(({ messages, seed }) => [messages, seed])).toEqual([
      [
        [
          { role: "system", content: "Be short" },
          { role: "user", content: "One" },
        ],
        7,
      ],
      [
        [
          { role: "system", content: "Be short" },
          { role: "user", content: "Two" },
        ],
        8,
      ],
      [chat, 9],
      [[], 10],
    ]);
  });

  test("--beams is a beam search of that width, with --n answers", () => {
    const search = { use_beam_search: true, beam_width: 4, temperature: 0, top_p: 1 };
    expect(parse(..."x --beams 4".split(" ")).requests).toMatchObject([{ ...search, n: 1 }]);
    const all = parse(..."x y --beams 4 --n 3 --temperature 0 --top-p 1".split(" ")).requests;
    expect(all).toMatchObject([
      { ...search, n: 3 },
      { ...search, n: 3 },
    ]);
    expect(parse("x", "--n", "3").requests[0]).not.toHaveProperty("use_beam_search");
  });

  test("hands the pool's options to the engine", () => {
    const { engine } = parse(
      ..."x --kv f32 --kv-blocks 9 --block-size 32 --max-sequences 3 --precision exact".split(" "),
    );
    expect(engine).toEqual({
      backend: "auto",
      precision: "exact",
      kvCacheDtype: "f32",
      kvCacheBlocks: 9,
      blockSize: 32,
      maxSequences: 3,
    });
  });

  test.each(["auto", "wasm"])("hands what is WASM's to the engine: %s", (backend) => {
    const { engine, isolated } = parse(
      ..."x --precision fast --threads 3 --simd plain --isolated on --backend".split(" "),
      backend,
    );
    expect(engine).toMatchObject({ backend, precision: "fast", threads: 3, simd: "plain" });
    expect(isolated).toBe(true);
    expect(parse("x", "--isolated", "off").isolated).toBe(false);
    expect(parse(..."x --isolated off --threads 1".split(" ")).engine.threads).toBe(1);
  });

  test("names the flags that auto has no use for once it has chosen WebGPU", () => {
    const { engine } = parse(..."x --precision fast --threads 3 --simd auto".split(" "));
    expect(unusedFlags(engine, "webgpu")).toEqual([
      "--precision fast",
      "--threads 3",
      "--simd auto",
    ]);
    expect(unusedFlags(engine, "wasm")).toEqual([]);
    expect(unusedFlags(parse("x", "--precision", "exact").engine, "webgpu")).toEqual([]);
  });

  test("takes the largest seed that leaves room for the others", () => {
    const seed = Number.MAX_SAFE_INTEGER - 3;
    const { requests } = parse("x", "y", "--n", "3", "--seed", `${seed}`);
    expect(requests.map((request) => request.seed)).toEqual([seed, seed + 1]);
    expect(() => parse("x", "y", "--n", "4", "--seed", `${seed}`)).toThrow(UsageError);
  });

  test("under npm a file is looked for where npm was called", () => {
    file("here.json", '[[{ "role": "user", "content": "x" }]]');
    vi.stubEnv("INIT_CWD", folder);
    expect(parse("--messages", "here.json").requests).toHaveLength(1);
    vi.unstubAllEnvs();
  });

  test.each([
    [[], /nothing to ask/],
    [["--system", "x"], /--system goes with positional prompts/],
    [["x", "--backend", "cuda"], /Valid: auto, webgpu, wasm/],
    [["x", "--backend", "webgpu", "--precision", "fast"], /not offered by the webgpu.*exact/],
    [["x", "--backend", "webgpu", "--threads", "2"], /--threads is not offered.*auto, wasm/],
    [["x", "--backend", "webgpu", "--simd", "plain"], /--simd is not offered.*auto, wasm/],
    [["x", "--precision", "half"], /Valid: exact, fast/],
    [["x", "--beams", "0"], /--beams 0 is not supported. Valid: a whole number from 1 to 10/],
    [["x", "--beams", "11"], /from 1 to 10/],
    [["x", "--beams", "2", "--n", "3"], /--n 3 is not supported with --beams 2: at most 2/],
    [["x", "--beams", "2", "--temperature", "0.5"], /--temperature 0.5.*--beams.*valid: 0/],
    [["x", "--beams", "2", "--top-p", "0.5"], /--top-p 0.5.*--beams.*valid: 1/],
    [["x", "--beams", "2", "--seed", "0"], /--seed 0.*--beams.*leave it out/],
    [["x", "--threads", "0"], /from 1 to 64/],
    [["x", "--threads", "2.5"], /a whole number/],
    [["x", "--simd", "relaxed"], /Valid: auto, plain/],
    [["x", "--isolated", "maybe"], /Valid: on, off/],
    [["x", "--isolated", "off", "--threads", "4"], /--threads 4.*--isolated off.*Valid: 1/],
    [
      ["x", "y", "--seed", "9007199254740991"],
      /--seed 9007199254740991.*2 answers.*to 9007199254740990/,
    ],
    [["x", "--n", "2", "--seed", "9007199254740991"], /is not supported with 2 answers/],
    [["x", "--block-size", "12"], /Valid: 8, 16, 32/],
    [["x", "--max-tokens", "0"], /from 1/],
    [["x", "--top-p", "0"], /above 0 to 1/],
    [["x", "--browser", "safari"], /chromium, firefox/],
    [["--messages", "no such file"], /cannot be read as JSON/],
    [["--messages", file("flat.json", '[{"role":"user","content":"x"}]')], /list of conversations/],
    [["--messages", file("bad.json", "[[")], /cannot be read as JSON/],
  ])("refuses %j", (argv, message) => {
    expect(() => parseAsk(argv)).toThrow(UsageError);
    expect(() => parseAsk(argv)).toThrow(message);
  });
});
