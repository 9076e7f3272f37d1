import { resolve } from "node:path";
import { afterEach, expect, test, vi } from "vitest";
import { root, userPath } from "./paths.mjs";

afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
});

test("under npm a path is taken from where npm was called", () => {
  vi.spyOn(process, "cwd").mockReturnValue(resolve(root));
  vi.stubEnv("INIT_CWD", resolve("/some/where"));
  expect(userPath("a/b.gguf")).toBe(resolve("/some/where/a/b.gguf"));
  expect(userPath("../b.gguf")).toBe(resolve("/some/b.gguf"));
  expect(userPath(resolve("/b.gguf"))).toBe(resolve("/b.gguf"));
});

test("without npm it is taken from the working folder", () => {
  vi.stubEnv("INIT_CWD", undefined);
  expect(userPath("b.gguf")).toBe(resolve(process.cwd(), "b.gguf"));
  // Started in another folder by something that npm started.
  vi.spyOn(process, "cwd").mockReturnValue(resolve("/else/where"));
  vi.stubEnv("INIT_CWD", resolve("/some/where"));
  expect(userPath("b.gguf")).toBe(resolve("/else/where/b.gguf"));
});
