import type { Demo } from "../page/demo.ts";
import { formatRate } from "../text/format.ts";

/** How full the KV pool is, and what the engine is doing. */
export function PoolBar({ demo }: { readonly demo: Demo }) {
  const stats = demo.session.stats.value;
  if (stats === undefined) return <p class="strip-text">…</p>;
  const { kv, sequences, totals } = stats;
  const percent = (blocks: number) => `${(100 * blocks) / kv.blocksTotal}%`;
  const rate = demo.chats.rate.value;
  const text = `${kv.blocksUsed} of ${kv.blocksTotal} blocks used`;
  return (
    <>
      <span class="bar-label" id="pool-label">
        KV cache
      </span>
      {/* A <meter> says it, and cannot show the peak: that is drawn beside it. */}
      <meter
        class="visually-hidden"
        aria-labelledby="pool-label"
        max={kv.blocksTotal}
        value={kv.blocksUsed}
      >
        {text}
      </meter>
      <div
        class="meter"
        aria-hidden="true"
        title={`${text}, ${kv.blockSize} tokens each; the tick marks the peak`}
      >
        <div class="meter-used" style={{ width: percent(kv.blocksUsed) }} />
        <div class="meter-peak" style={{ left: percent(kv.blocksPeak) }} />
      </div>
      <dl class="strip-numbers">
        <Figure name="blocks" value={`${kv.blocksUsed}/${kv.blocksTotal}`} testId="kv-blocks" />
        <Figure name="peak" value={kv.blocksPeak} />
        <Figure name="cached" value={kv.blocksCached} />
        <Figure name="running" value={sequences.running} testId="running" />
        <Figure name="waiting" value={sequences.waiting} />
        <Figure name="preempted" value={totals.preemptions} />
        <Figure
          name="tokens/s in total"
          value={rate === undefined ? "–" : formatRate(rate)}
          testId="total-rate"
          isMain
        />
      </dl>
    </>
  );
}

function Figure(props: {
  readonly name: string;
  readonly value: string | number;
  readonly testId?: string;
  readonly isMain?: boolean;
}) {
  return (
    <div class={props.isMain ? "figure is-main" : "figure"}>
      <dt>{props.name}</dt>
      <dd data-testid={props.testId}>{props.value}</dd>
    </div>
  );
}
