import * as w from "wasmati";
import { invariant } from "../../../errors.ts";
import { defineAttentionKernels } from "./attention.ts";
import type { Wasm } from "./emit.ts";
import { defineLinearKernels } from "./linear.ts";
import { defineRun } from "./run.ts";
import { defineSampleKernels } from "./sample.ts";

/** What a module may export. */
type Exported = w.Dependency.Export;

export interface EmittedModule {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The byte that says that the imported memory is shared: 3, to be made 1 where it is not. */
  readonly sharedFlagOffset: number;
}

/** Everything that the back end runs. Modules of one memory; `run`'s table takes all their exports. */
export interface EmittedKernels {
  readonly common: readonly EmittedModule[];
  /** The same kernels twice. */
  readonly relaxed: EmittedModule;
  readonly plain: EmittedModule;
}

/** The kernels that gain from relaxed SIMD. */
const RELAXED_NAMES = ["linear_q4_fast", "linear_q4wide_fast"];

/** Called by the build. */
export function emitKernels(): EmittedKernels {
  const linear = defineLinearKernels("relaxed");
  const isRelaxed = ({ name }: Wasm): boolean => RELAXED_NAMES.includes(name);
  return {
    common: [
      emitModule({ ...defineRun() }),
      emitModule(byName(linear.filter((kernel) => !isRelaxed(kernel)))),
      emitModule(byName([...defineAttentionKernels(), ...defineSampleKernels()])),
    ],
    relaxed: emitModule(byName(linear.filter(isRelaxed))),
    plain: emitModule(byName(defineLinearKernels("plain").filter(isRelaxed))),
  };
}

/** A module that exports functions. The memory comes from outside. */
export function emitModule(exported: Readonly<Record<string, Exported>>): EmittedModule {
  const bytes = toBytes(exported, true);
  const unshared = toBytes(exported, false);
  const sharedFlagOffset = bytes.findIndex((byte, i) => byte !== unshared[i]);
  invariant(
    bytes.length === unshared.length &&
      bytes[sharedFlagOffset] === 3 &&
      bytes.findLastIndex((byte, i) => byte !== unshared[i]) === sharedFlagOffset,
    "A module with shared memory differs from one without in a single flag.",
  );
  return { bytes, sharedFlagOffset };
}

/** Kernels as exports. */
export function byName(kernels: readonly Wasm[]): Readonly<Record<string, Exported>> {
  return Object.fromEntries(kernels.map(({ name, func }) => [name, func]));
}

function toBytes(
  exports: Readonly<Record<string, Exported>>,
  shared: boolean,
): Uint8Array<ArrayBuffer> {
  // wasmati wants a memory at hand to instantiate with; the module is only written here.
  const memory = w.importMemory({ min: 1, max: 65536, shared }, {} as WebAssembly.Memory);
  return w.Module({ exports, memory }).toBytes() as Uint8Array<ArrayBuffer>;
}
