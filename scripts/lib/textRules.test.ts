import { expect, test } from "vitest";
import { findForbidden } from "./textRules.mjs";

test("machine paths and registry hosts are found, other paths and hosts are not", () => {
  const bad = ["/home", "me/x"].join("/");
  const host = ["registry", "npmjs", "org"].join(".");
  expect(findForbidden("f", `ok\nsee ${bad}`)).toEqual([
    `f:2: a path of one machine: ${bad.slice(0, 7)}`,
  ]);
  expect(findForbidden("f", `https://${host}/x`)).toHaveLength(1);
  const fine = "/usr/bin/chromium ./home/x src/tmp/y https://example.com/root/x ~/x /etc/apt";
  expect(findForbidden("f", fine)).toEqual([]);
});
