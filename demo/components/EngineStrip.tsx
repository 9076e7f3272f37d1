import type { Demo } from "../page/demo.ts";
import { LoadBar } from "./LoadBar.tsx";
import { PoolBar } from "./PoolBar.tsx";

/** The engine's line of the page, of one height in all its states. */
export function EngineStrip({ demo }: { readonly demo: Demo }) {
  return (
    <section class="strip" aria-label="Engine">
      <StripContent demo={demo} />
    </section>
  );
}

function StripContent({ demo }: { readonly demo: Demo }) {
  const state = demo.session.state.value;
  switch (state.phase) {
    case "loading":
      return <LoadBar state={state} onCancel={() => demo.session.cancel()} />;
    case "ready":
      return <PoolBar demo={demo} />;
    case "none":
      if (demo.support.value === undefined) return <p class="strip-text">Looking for a model…</p>;
      return (
        <>
          <p class="strip-text">No model is loaded.</p>
          <div class="strip-buttons">
            <ChooseButton demo={demo} />
          </div>
        </>
      );
    case "failed":
    case "stopped":
      return (
        <>
          <p class="strip-text is-error">
            {state.phase === "failed" ? "Loading failed: " : "The engine stopped: "}
            <code>{state.error.code}</code>
          </p>
          <div class="strip-buttons">
            <button type="button" onClick={() => void demo.reload()}>
              Load again
            </button>
            <ChooseButton demo={demo} />
          </div>
        </>
      );
  }
}

function ChooseButton({ demo }: { readonly demo: Demo }) {
  const open = () => {
    demo.isDialogOpen.value = true;
  };
  return (
    <button type="button" onClick={open}>
      {demo.session.state.value.phase === "none" ? "Choose a model" : "Details"}
    </button>
  );
}
