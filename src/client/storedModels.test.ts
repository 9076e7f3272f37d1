import { expect, test } from "vitest";
import { deleteModel, listModels } from "./storedModels.ts";

const anyDelete = deleteModel as (...args: unknown[]) => Promise<unknown>;
const anyList = listModels as (...args: unknown[]) => Promise<unknown>;

test.each<[string, () => Promise<unknown>, RegExp, string?]>([
  ["a URL that is none", () => anyDelete("http://"), /`url` is "http:\/\/"/],
  ["an empty URL", () => anyDelete(""), /`url` is ""/],
  ["a number", () => anyDelete(5), /`url` is 5/],
  ["a URL that nothing is stored by", () => anyDelete("ftp://example.org/x"), /http or https/],
  ["null for options", () => anyList(null), /`options` is null/],
  ["an unknown option", () => anyList({ timeout: 5 }), /`timeout` is not/, "unsupported"],
  [
    "an unknown option",
    () => anyDelete("https://example.org/x", { onProgress: () => {} }),
    /`onProgress` is not/,
    "unsupported",
  ],
  ["no worker", () => anyList({ worker: 5 }), /`worker` is 5/],
])("%s rejects with a code", async (_, run, message, code = "invalid-argument") => {
  await expect(run()).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
});
