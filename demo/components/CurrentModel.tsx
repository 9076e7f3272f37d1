import type { Demo } from "../page/demo.ts";
import { formatBytes, formatCount } from "../text/format.ts";
import { ErrorNotice } from "./ErrorNotice.tsx";

/** What is loaded, or why nothing is. */
export function CurrentModel({ demo }: { readonly demo: Demo }) {
  const state = demo.session.state.value;
  if (state.phase === "failed" || state.phase === "stopped") {
    return (
      <div role="alert">
        <p>
          {state.phase === "failed" ? "This did not load: " : "This has stopped: "}
          <strong>{state.choice.name}</strong>
        </p>
        <ErrorNotice error={state.error} />
      </div>
    );
  }
  if (state.phase === "loading") {
    return (
      <p>
        Loading <strong>{state.choice.name}</strong>…
      </p>
    );
  }
  if (state.phase === "none") return <p>No model is loaded. Choose one:</p>;
  const { model } = state.engine;
  const memory = demo.session.stats.value?.memory;
  return (
    <div>
      <p>
        <strong>{model.name}</strong>
      </p>
      <p class="hint">
        {model.architecture} · {formatCount(model.parameters)} weights ·{" "}
        {formatBytes(model.byteLength)} · context {model.contextLength} tokens
        {memory !== undefined &&
          ` · in memory: ${formatBytes(memory.weightsBytes)} weights, ${formatBytes(memory.kvPoolBytes)} KV cache, ${formatBytes(memory.scratchBytes)} else`}
        {!model.hasChatTemplate && " · no chat template: it cannot chat"}
      </p>
    </div>
  );
}
