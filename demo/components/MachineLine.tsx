import type { EngineStats } from "quire";
import type { Demo } from "../page/demo.ts";
import { describeMachine, type Machine } from "../text/machineLine.ts";

/** What computes here; room for the text is kept before it is known. */
export function MachineLine({ demo }: { readonly demo: Demo }) {
  const stats = demo.session.stats.value;
  const support = demo.support.value;
  if (stats === undefined && support === undefined) {
    return (
      <p class="machine" key="looking">
        Looking for a GPU…
      </p>
    );
  }
  const machine = stats === undefined ? demo.expectedMachine() : machineOf(stats);
  const { text, isSlow } = describeMachine({ ...machine, features: support?.features });
  return (
    <p class={isSlow ? "machine is-slow" : "machine"} key="found" title={machine.reason}>
      <span class="dot" aria-hidden="true" />
      {text}
    </p>
  );
}

function machineOf(stats: EngineStats): Omit<Machine, "features"> {
  const { backend, backendReason: reason, threads, adapter, precision, kv } = stats;
  return { backend, reason, threads, adapter, precision, kv: kv.dtype };
}
