import type { Demo } from "../page/demo.ts";
import { MachineLine } from "./MachineLine.tsx";

/** The page's name, the model (a button that opens the choice) and what it runs on. */
export function Header({ demo }: { readonly demo: Demo }) {
  const state = demo.session.state.value;
  const name =
    state.phase === "none"
      ? demo.support.value === undefined
        ? "…"
        : "Choose a model"
      : state.choice.name;
  return (
    <header class="page-header">
      <h1>Quire</h1>
      <button
        type="button"
        class="model-button"
        title={name}
        aria-haspopup="dialog"
        onClick={() => {
          demo.isDialogOpen.value = true;
        }}
      >
        <span class="visually-hidden">Model: </span>
        <span class="clip">{name}</span>
        <span class="caret" aria-hidden="true">
          ▾
        </span>
      </button>
      <MachineLine demo={demo} />
    </header>
  );
}
