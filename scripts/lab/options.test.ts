import { describe, expect, it } from "vitest";
import { parseLab } from "./options.mjs";

const KNOWN = ["E1", "E2", "E10"];

describe("parseLab", () => {
  it("runs all experiments by default, with seed 1", () => {
    expect(parseLab([], KNOWN)).toEqual({ ids: KNOWN, seed: 1, json: false });
  });

  it("takes names in any case and order, once each", () => {
    const options = parseLab(["e10", "E1", "e1", "--seed", "7", "--json"], KNOWN);
    expect(options).toEqual({ ids: ["E1", "E10"], seed: 7, json: true });
  });

  it("refuses unknown experiments and names the valid ones", () => {
    expect(() => parseLab(["E3"], KNOWN)).toThrow(/no experiment E3.*E1, E2, E10/);
  });

  it("refuses unknown flags and seeds that are no whole number", () => {
    expect(() => parseLab(["--fast"], KNOWN)).toThrow(/--seed, --json/);
    expect(() => parseLab(["--seed", "1.5"], KNOWN)).toThrow(/--seed 1.5/);
    expect(() => parseLab(["--seed", "-1"], KNOWN)).toThrow(/--seed/);
  });
});
