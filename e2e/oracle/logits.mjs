// @ts-nocheck: the packages of this folder are not installed with the project's.
/** @file Computes e2e/fixtures/oracle-logits.json: llama.cpp's logits of the tiny random models. */
import { createHash } from "node:crypto";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { evaluate, withModel } from "./llama.mjs";
import { importTypeScript } from "./typescript.mjs";

const { ORACLE_CASES } = await importTypeScript("e2e/fixtures/oracleCases.ts");
const { makeTinyModel } = await importTypeScript("e2e/fixtures/tinyModel.ts");
const { createBufferSource } = await importTypeScript("src/weights/bufferSource.ts");
const { writeF32Twin } = await importTypeScript("e2e/oracle/twin.ts");

const scratch = fileURLToPath(new URL("scratch/", import.meta.url));
mkdirSync(scratch, { recursive: true });
const twinPath = `${scratch}tiny-f32.gguf`;

const cases = {};
for (const { name, model, tokens, positions } of ORACLE_CASES) {
  const bytes = makeTinyModel(model);
  const pieces = [];
  await writeF32Twin(createBufferSource(bytes, name), (piece) => pieces.push(piece.slice()));
  writeFileSync(twinPath, Buffer.concat(pieces));
  const logits = await withModel(twinPath, 256, (_, sequence) =>
    evaluate(sequence, tokens, new Set(positions)),
  );
  cases[name] = {
    modelSha256: createHash("sha256").update(bytes).digest("hex"),
    // float32, little-endian, base64; one string a position
    logits: positions.map((i) => Buffer.from(logits.get(i).buffer).toString("base64")),
  };
  const last = logits.get(positions.at(-1));
  console.log(
    `${name}: ${bytes.length} bytes, logits ${Math.min(...last).toFixed(2)}..${Math.max(...last).toFixed(2)}`,
  );
}
rmSync(twinPath);

const output = new URL("../fixtures/oracle-logits.json", import.meta.url);
writeFileSync(
  output,
  `${JSON.stringify({ oracle: "node-llama-cpp 3.22.1, F32 twins", cases }, null, 1)}\n`,
);
console.log(`${Object.keys(cases).length} cases written.`);
process.exit(0);
