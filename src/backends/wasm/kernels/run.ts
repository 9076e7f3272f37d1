import * as w from "wasmati";
import { command, MAX_KERNELS } from "../abi.ts";
import { define, type FunctionBody, type Wasm } from "./emit.ts";
import { atomics, i32 } from "./instructions.ts";
import type { Int, Value } from "./value.ts";

type WasmFunction = Wasm["func"];
type WasmTable = ReturnType<typeof w.table>;

/** Looks at the other threads' progress this often before it returns: some 50 microseconds. */
const SPINS = 20_000;

/**
 * run(program, numCommands, scratch) -> -1, or the index of a command whose chunks other threads hold.
 *
 * Kernels are called by their index in `table`, which whoever instantiates the modules fills.
 * Every thread runs it over the same program. Chunks are taken off a counter, so a thread that
 * comes late, or is not scheduled at all, holds up nobody but the chunk it has taken. All wait for
 * a command's last chunk before they go on: commands see the results of those before them. The wait
 * is a short spin; a caller that gets an index back may sleep on the command's DONE, having raised
 * WAITERS, and go on from there.
 */
export function defineRun(): { readonly run: WasmFunction; readonly table: WasmTable } {
  const table = w.table({ type: w.funcref, min: MAX_KERNELS, max: MAX_KERNELS });
  const callKernel = (...args: readonly Int[]): void => {
    for (const arg of args) (typeof arg === "number" ? i32.const(arg) : arg).emit();
    w.call_indirect(table, { in: [w.i32, w.i32, w.i32, w.i32], out: [] });
  };
  const run = define("run", ["i32", "i32", "i32"], (k, program, numCommands, scratch) => {
    const stalled = k.let(i32.const(-1));
    const at = k.let(program);
    const index = k.let(i32.const(0));
    const chunk = k.local("i32");
    k.while(
      () => i32.and(i32.lt_s(index, numCommands), i32.lt_s(stalled, 0)),
      () => {
        const chunks = k.let(i32.load(at, command.CHUNKS * 4));
        const items = k.let(i32.load(at, command.ITEMS * 4));
        k.set(chunk, chunks);
        k.if(i32.lt_s(atomics.load(at, command.NEXT * 4), chunks), () =>
          k.set(chunk, atomics.add(at, command.NEXT * 4, 1)),
        );
        k.while(
          () => i32.lt_s(chunk, chunks),
          () => {
            callKernel(
              i32.load(at, command.PARAMS * 4),
              i32.div_u(i32.mul(chunk, items), chunks),
              i32.div_u(i32.mul(i32.add(chunk, 1), items), chunks),
              scratch,
              i32.load(at, command.KERNEL * 4),
            );
            const finished = k.let(i32.add(atomics.add(at, command.DONE * 4, 1), 1));
            k.if(i32.eq(finished, chunks), () =>
              k.if(atomics.load(at, command.WAITERS * 4), () =>
                k.run(atomics.notifyAll(at, command.DONE * 4)),
              ),
            );
            k.set(chunk, atomics.add(at, command.NEXT * 4, 1));
          },
        );
        k.if(
          isDone(k, at, chunks),
          () => {
            k.set(index, i32.add(index, 1));
            k.set(at, i32.add(at, command.BYTES));
          },
          () => k.set(stalled, index),
        );
      },
    );
    return stalled;
  });
  return { run: run.func, table };
}

/** Spins until all chunks are done, or for a while. Alone, they are. */
function isDone(k: FunctionBody, at: Int, chunks: Int): Value<"i32"> {
  const done = k.let(atomics.load(at, command.DONE * 4));
  const spins = k.let(i32.const(SPINS));
  k.while(
    () => i32.and(i32.lt_s(done, chunks), i32.gt_s(spins, 0)),
    () => {
      k.set(spins, i32.sub(spins, 1));
      k.set(done, atomics.load(at, command.DONE * 4));
    },
  );
  return i32.ge_s(done, chunks);
}
