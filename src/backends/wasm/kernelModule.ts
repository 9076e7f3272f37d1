import { common, plain, relaxed } from "virtual:quire-wasm-kernels";
import { QuireError } from "../../errors.ts";

/** Which instructions the kernels use: relaxed SIMD, or SIMD128 alone. */
export type Simd = "relaxed" | "plain";

/** The compiled kernels. */
export interface KernelModules {
  /** The first exports `run` and its `table`. Can be posted to other workers. */
  readonly modules: readonly WebAssembly.Module[];
  readonly simd: Simd;
}

/** Runs commands of a program: see kernels/run.ts. Returns -1 or the command that it waits for. */
export type RunFunction = (program: number, numCommands: number, scratch: number) => number;

type PackedModule = typeof relaxed;

const FLAG_UNSHARED = 1;

/**
 * Compiles the kernels for the best instructions that the engine has, or for SIMD128 alone. Throws
 * `wasm-unavailable` where there is no SIMD, or where the page's policy forbids to compile.
 */
export async function compileKernels(
  wanted: "auto" | "plain",
  isShared: boolean,
): Promise<KernelModules> {
  if (typeof WebAssembly !== "object") {
    throw new QuireError("wasm-unavailable", "This browser has no WebAssembly. Update it.");
  }
  const commonBytes = await Promise.all(common.map((packed) => unpack(packed, isShared)));
  const candidates = wanted === "plain" ? { plain } : { relaxed, plain };
  for (const [simd, packed] of Object.entries(candidates)) {
    const all = [...commonBytes, await unpack(packed, isShared)];
    if (!all.every((bytes) => WebAssembly.validate(bytes))) continue;
    return { modules: await Promise.all(all.map(compile)), simd: simd as Simd };
  }
  throw new QuireError(
    "wasm-unavailable",
    "This browser's WebAssembly has no 128-bit SIMD, which the WASM back end needs. Update the browser.",
  );
}

/** Joins the kernels and a memory. */
export async function instantiateKernels(
  modules: readonly WebAssembly.Module[],
  memory: WebAssembly.Memory,
): Promise<RunFunction> {
  const instances = await Promise.all(
    modules.map((module) => WebAssembly.instantiate(module, { "": { m0: memory } })),
  );
  const { run, table } = instances[0]!.exports;
  for (const [i, { name, instance }] of listKernels(modules).entries()) {
    (table as WebAssembly.Table).set(i, instances[instance]!.exports[name]);
  }
  return run as unknown as RunFunction;
}

/** Names of the kernels, in the order of the function table. */
export function kernelNames(modules: readonly WebAssembly.Module[]): readonly string[] {
  return listKernels(modules).map(({ name }) => name);
}

function listKernels(modules: readonly WebAssembly.Module[]) {
  return modules
    .slice(1)
    .flatMap((module, i) =>
      WebAssembly.Module.exports(module).map(({ name }) => ({ name, instance: i + 1 })),
    );
}

/** The bytes are valid: a failure to compile them is the page's policy. */
async function compile(bytes: Uint8Array<ArrayBuffer>): Promise<WebAssembly.Module> {
  try {
    return await WebAssembly.compile(bytes);
  } catch (cause) {
    throw new QuireError(
      "wasm-unavailable",
      `The page's Content-Security-Policy forbids WebAssembly (${String(cause)}). Add 'wasm-unsafe-eval' to script-src in the Content-Security-Policy header.`,
      {},
      { cause },
    );
  }
}

async function unpack(
  { base64, sharedFlagOffset }: PackedModule,
  isShared: boolean,
): Promise<Uint8Array<ArrayBuffer>> {
  const deflated = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const stream = new Blob([deflated]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  if (!isShared) bytes[sharedFlagOffset] = FLAG_UNSHARED;
  return bytes;
}
