// @ts-nocheck: the packages of this folder are not installed with the project's.
/** @file The default model's F32 twin, which several scripts give to llama.cpp. */
import { createHash } from "node:crypto";
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  writeSync,
} from "node:fs";
import { fileURLToPath } from "node:url";
import { importTypeScript } from "./typescript.mjs";

export const MODEL_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf";

const { createBufferSource } = await importTypeScript("src/weights/bufferSource.ts");
const { writeF32Twin } = await importTypeScript("e2e/oracle/twin.ts");

/** Writes the twin into `scratch/` unless it is there; gives its path, and the model itself. */
export async function writeSmolLm2Twin() {
  // Not as a Buffer, whose slice() does not copy.
  const bytes = new Uint8Array(
    readFileSync(new URL(`../../models/${MODEL_FILE}`, import.meta.url)),
  );
  const source = createBufferSource(bytes, MODEL_FILE);
  const scratch = fileURLToPath(new URL("scratch/", import.meta.url));
  const twinPath = `${scratch}smollm2-f32.gguf`;
  if (!existsSync(twinPath)) {
    mkdirSync(scratch, { recursive: true });
    const file = openSync(`${twinPath}.part`, "w");
    await writeF32Twin(source, (piece) => writeSync(file, piece));
    closeSync(file);
    renameSync(`${twinPath}.part`, twinPath);
  }
  const modelSha256 = createHash("sha256").update(bytes).digest("hex");
  return { source, twinPath, modelSha256 };
}
