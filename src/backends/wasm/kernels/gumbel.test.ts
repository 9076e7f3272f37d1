import { expect, it } from "vitest";
import { gumbel, uniform } from "../../reference/rng.ts";
import { paramOffsets } from "../abi.ts";
import { KernelHarness } from "../testing/kernelHarness.ts";
import { gumbelNoise } from "./gumbel.ts";
import { i32, i32x4, i32x4Lanes, v128 } from "./instructions.ts";
import { defineKernel } from "./kernel.ts";

const TOKENS = 40_000;
const POSITION = 77;
const SEED = [4_000_000_000, 5] as const;
/** Of two logarithms in f32, of values up to 17. */
const NOISE_TOLERANCE = 5e-6;

const OFFSETS = paramOffsets(["uniforms", "noises", "bounds"]);

it("draws the reference's numbers, and bounds the noise of each from above", async () => {
  const kernel = defineKernel("f", OFFSETS, (k, { param, begin, end }) => {
    const key = { position: POSITION, seedLow: SEED[0] | 0, seedHigh: SEED[1] };
    const { uniform, noise, bound } = gumbelNoise(k, key);
    k.for(begin, end, 1, (i) => {
      const at = k.let(i32.shl(i, 4));
      const firstToken = i32x4.splat(i32.shl(i, 2));
      const u = uniform(i32x4.add(firstToken, i32x4Lanes(0, 1, 2, 3)));
      v128.store(i32.add(param("uniforms"), at), 0, u);
      v128.store(i32.add(param("noises"), at), 0, noise(u));
      v128.store(i32.add(param("bounds"), at), 0, bound(u));
    });
  });
  const harness = new KernelHarness([kernel]);
  const values = {
    uniforms: harness.arena.reserve("uniforms", TOKENS * 4),
    noises: harness.arena.reserve("noises", TOKENS * 4),
    bounds: harness.arena.reserve("bounds", TOKENS * 4),
  };
  const params = harness.program.params(OFFSETS, values);
  harness.program.add({ kernel: "f", params, items: () => TOKENS / 4 });
  await harness.bind();
  harness.run();
  const uniforms = harness.float32(values.uniforms, TOKENS);
  const noises = harness.float32(values.noises, TOKENS);
  const bounds = harness.float32(values.bounds, TOKENS);
  let isExact = true;
  let worst = 0;
  let leastSlack = Infinity;
  let mostSlack = 0;
  for (let token = 0; token < TOKENS; token++) {
    isExact &&= uniforms[token] === uniform(token, POSITION, SEED);
    worst = Math.max(worst, Math.abs(noises[token]! - gumbel(token, POSITION, SEED)));
    const slack = bounds[token]! - noises[token]!;
    leastSlack = Math.min(leastSlack, slack);
    if (noises[token]! > 1) mostSlack = Math.max(mostSlack, slack);
  }
  expect(isExact).toBe(true);
  expect(worst).toBeLessThan(NOISE_TOLERANCE);
  expect(leastSlack).toBeGreaterThan(0);
  // Close enough to be of use: a factor of 2 in 1 - u, and what -ln u exceeds 1 - u by.
  expect(mostSlack).toBeLessThan(1);
});
