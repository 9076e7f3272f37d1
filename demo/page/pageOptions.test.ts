import { describe, expect, test } from "vitest";
import { modelUrl, readPageOptions } from "./pageOptions.ts";

const BASE = "http://127.0.0.1:4173/demo/";
const read = (search: string) => readPageOptions(search, BASE);

describe("readPageOptions", () => {
  test("has defaults", () => {
    expect(read("")).toEqual({
      model: undefined,
      backend: "auto",
      kv: "f16",
      numChats: 2,
      problems: [],
    });
  });

  test("reads every parameter", () => {
    expect(read("?model=../m/a%20b.gguf&backend=webgpu&kv=f32&chats=16")).toEqual({
      model: "http://127.0.0.1:4173/m/a%20b.gguf",
      backend: "webgpu",
      kv: "f32",
      numChats: 16,
      problems: [],
    });
  });

  test.each([
    ["?backend=cuda", "auto, webgpu, wasm"],
    ["?kv=f8", "f16, f32"],
    ["?chats=0", "1 to 16"],
    ["?chats=17", "1 to 16"],
    ["?chats=2.5", "1 to 16"],
    ["?chats=", "1 to 16"],
    ["?chats=99999999999999999999", "1 to 16"],
    ["?model=javascript:alert(1)", "http or https"],
    ["?model=file:///etc/passwd", "http or https"],
    ["?model=", "http or https"],
    ["?modle=x", "?model"],
    ["?kv=f32&kv=f16", "more than once"],
  ])("%s is a problem, and no more than that", (search, words) => {
    const options = read(search);
    expect(options.problems).toHaveLength(1);
    expect(options.problems[0]).toContain(words);
    expect(options).toMatchObject({ model: undefined, backend: "auto", numChats: 2 });
  });
});

test("modelUrl takes what can be fetched", () => {
  expect(modelUrl(" /models/x.gguf ", BASE)).toBe("http://127.0.0.1:4173/models/x.gguf");
  expect(modelUrl("https://example.com/x.gguf", BASE)).toBe("https://example.com/x.gguf");
  expect(modelUrl("blob:x", BASE)).toBeUndefined();
  expect(modelUrl("http://", BASE)).toBeUndefined();
});
