import type { EngineState } from "../engine/engineSession.ts";
import { formatBytes } from "../text/format.ts";

const PHASES = {
  download: "Downloading",
  prepare: "Preparing tokenizer and GPU programs",
  weights: "Moving weights to the GPU",
} as const;

/** How far a model's loading is, with its bytes. */
export function LoadBar({
  state,
  onCancel,
}: {
  readonly state: Extract<EngineState, { phase: "loading" }>;
  readonly onCancel: () => void;
}) {
  const { progress } = state;
  const total = progress?.totalBytes ?? 0;
  const loaded = progress?.loadedBytes ?? 0;
  const phase = progress === undefined ? "Starting" : PHASES[progress.phase];
  const known = total > 0 && progress?.phase !== "prepare";
  return (
    <>
      <label class="bar-label load-label" for="load-progress">
        {phase}
      </label>
      {known ? (
        <progress id="load-progress" max={total} value={loaded} />
      ) : (
        <progress id="load-progress" />
      )}
      <p class="strip-numbers load-numbers">
        {known
          ? `${formatBytes(loaded)} of ${formatBytes(total)} (${Math.floor((100 * loaded) / total)} %)`
          : loaded > 0
            ? formatBytes(loaded)
            : "…"}
      </p>
      <button type="button" onClick={onCancel}>
        Cancel
      </button>
    </>
  );
}
