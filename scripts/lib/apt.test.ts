import { describe, expect, test } from "vitest";
import { backportsStanza } from "./apt.mjs";

describe("backportsStanza", () => {
  test("takes mirror and keys of the release's deb822 source", () => {
    const security =
      "Types: deb\nURIs: http://mirror.test/security\nSuites: bookworm-security\nComponents: main\n";
    const main =
      "Types: deb\n# a snapshot\nURIs: http://mirror.test/debian\nSuites: bookworm bookworm-updates\n" +
      "Components: main\nSigned-By: /usr/share/keyrings/test.gpg\n";
    expect(backportsStanza([`${security}\n${main}`], "bookworm")).toBe(
      "Types: deb\nURIs: http://mirror.test/debian\nSuites: bookworm-backports\nComponents: main\n" +
        "Signed-By: /usr/share/keyrings/test.gpg\n",
    );
    expect(backportsStanza([security], "bookworm")).toBeUndefined();
  });

  test("takes them of a one-line source too", () => {
    const list =
      "# deb http://old.test/ bookworm main\ndeb [signed-by=/k.gpg] http://mirror.test/debian bookworm main\n";
    expect(backportsStanza([list], "bookworm")).toContain("URIs: http://mirror.test/debian\n");
    expect(backportsStanza([list], "bookworm")).toContain("Signed-By: /k.gpg\n");
    expect(backportsStanza(["deb http://mirror.test bookworm main\n"], "bookworm")).not.toContain(
      "Signed-By",
    );
  });
});
