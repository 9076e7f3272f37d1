import { expect, test } from "vitest";
import { TokenMeter } from "./tokenMeter.ts";

test("a steady stream has its rate", () => {
  const meter = new TokenMeter(10_000);
  expect(meter.rate(0)).toBeUndefined();
  for (let i = 0; i <= 20; i++) meter.add(100 + i * 250, 1);
  expect(meter.rate(100 + 20 * 250)).toBeCloseTo(4);
});

test("one sample is no rate", () => {
  const meter = new TokenMeter(10_000);
  meter.add(5, 3);
  expect(meter.rate(5)).toBeUndefined();
  expect(meter.rate(500)).toBeUndefined();
});

test("the past is forgotten, and a stall shows", () => {
  const meter = new TokenMeter(1000);
  for (let i = 0; i < 100; i++) meter.add(i * 10, 1);
  for (const at of [5000, 5100, 5200, 5300, 5500]) meter.add(at, 2);
  expect(meter.rate(5500)).toBeCloseTo(16);
  expect(meter.rate(6000)).toBeCloseTo(8);
  expect(meter.rate(50_000)).toBeLessThan(0.2);
});

test("a stream slower than the window has its rate", () => {
  const meter = new TokenMeter(1000);
  for (let i = 0; i < 10; i++) meter.add(i * 4000, 1);
  expect(meter.rate(9 * 4000)).toBeCloseTo(0.25);
});

test("reset forgets", () => {
  const meter = new TokenMeter(1000);
  meter.add(0, 1);
  meter.add(100, 1);
  meter.reset();
  expect(meter.rate(100)).toBeUndefined();
});
