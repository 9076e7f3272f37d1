import type { Demo } from "../page/demo.ts";
import { describeMachine } from "../text/machineLine.ts";

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
  const { text, isSlow } = describeMachine({
    backend: stats?.backend,
    adapter: stats === undefined ? (support?.adapter ?? null) : stats.adapter,
    features: support?.features,
    precision: stats?.precision ?? "exact",
    kv: stats?.kv.dtype ?? demo.options.kv,
  });
  return (
    <p class={isSlow ? "machine is-slow" : "machine"} key="found">
      <span class="dot" aria-hidden="true" />
      {text}
    </p>
  );
}
