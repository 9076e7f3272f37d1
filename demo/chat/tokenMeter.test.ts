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
  for (let i = 0; i < 10; i++) meter.add(i * 10, 1);
  meter.add(5000, 1);
  meter.add(5500, 2);
  expect(meter.rate(5500)).toBeCloseTo(4);
  expect(meter.rate(6000)).toBeCloseTo(2);
  expect(meter.rate(9000)).toBeUndefined();
});

test("reset forgets", () => {
  const meter = new TokenMeter(1000);
  meter.add(0, 1);
  meter.add(100, 1);
  meter.reset();
  expect(meter.rate(100)).toBeUndefined();
});
