import { expect, test } from "vitest";
import { GREEDY } from "../../src/engine/sampling.ts";
import { type FeatureBench, request, sampled } from "./engineDriver.ts";

/** Steps that are scheduled before the results of those before them change nothing. */
export function describeStepsInFlight({ blockSize, drive, tokens }: FeatureBench): void {
  const requests = [17, 40, 3, 29, 8].map((length, i) => {
    const sampling = i % 2 === 0 ? GREEDY : sampled([i, 7], { logprobs: 1, presencePenalty: 1 });
    return request(i, tokens(length), { maxTokens: 12 + 3 * i, sampling });
  });

  test("sequences go on through aborts and preemptions with four steps in flight", async () => {
    const one = await drive().run(requests);
    const driver = drive({ maxStepsInFlight: 4 });
    await driver.deepen(tokens(3));
    for (const own of requests) driver.add(own);
    driver.add(request("aborted", tokens(2 * blockSize), { maxTokens: 100 }));
    for (let i = 0; i < 8; i++) await driver.step();
    driver.abort("aborted");
    for (let i = 0; i < 3; i++) await driver.step();
    driver.engine.preemptAll();
    await driver.run();
    expect(driver.mostInFlight).toBe(4);
    expect(driver.answers.get("aborted")![0]!.finishReason).toBe("abort");
    for (const { id } of requests)
      expect(driver.said.get(id), String(id)).toEqual(one.said.get(id));
  });

  test("no row is computed behind the last token of a length, and none is delivered behind a stop", async () => {
    const prompt = tokens(10);
    const own = { maxTokens: 30, sampling: sampled([2, 2]) };
    const { said } = await drive().run([request("one", prompt, own)]);
    const { tokens: found } = said.get("one")![0]!;
    const end = found.findIndex((token, i) => i > 9 && found.indexOf(token) === i);
    const driver = drive({ maxStepsInFlight: 4 });
    await driver.deepen(tokens(3));
    const before = driver.numRows;
    await driver.run([request("length", prompt, own)]);
    expect(driver.numRows - before).toBe(prompt.length + 29);
    expect(driver.said.get("length")).toEqual(said.get("one"));
    await driver.run([request("stop", prompt, { ...own, stopTokenIds: [found[end]!] })]);
    expect(driver.mostInFlight).toBe(4);
    expect(driver.said.get("stop")![0]).toMatchObject({
      tokens: found.slice(0, end),
      finishReason: "stop",
      stopToken: found[end],
    });
  });
}
