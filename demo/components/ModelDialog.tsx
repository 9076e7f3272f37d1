import { useEffect, useRef } from "preact/hooks";
import { choiceOfFile } from "../engine/modelChoice.ts";
import type { Demo } from "../page/demo.ts";
import { CurrentModel } from "./CurrentModel.tsx";
import { Problems } from "./Problems.tsx";
import { StoredModelList } from "./StoredModelList.tsx";
import { UrlForm } from "./UrlForm.tsx";

/** Where models come from: the server's own, an address, a file, the browser's storage. */
export function ModelDialog({ demo }: { readonly demo: Demo }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const isOpen = demo.isDialogOpen.value;
  useEffect(() => {
    const element = dialog.current;
    if (isOpen && !element?.open) element?.showModal();
    if (!isOpen && element?.open) element?.close();
  }, [isOpen]);
  const offered = demo.defaultModel.value;
  return (
    <dialog
      ref={dialog}
      class="model-dialog"
      aria-labelledby="model-title"
      onClose={() => {
        demo.isDialogOpen.value = false;
      }}
    >
      <div class="dialog-head">
        <h2 id="model-title">Model</h2>
        <button type="button" class="quiet" onClick={() => dialog.current?.close()}>
          Close
        </button>
      </div>
      {isOpen && <Problems problems={demo.problems} />}
      <CurrentModel demo={demo} />
      {offered !== undefined && (
        <section>
          <h3>From this server</h3>
          <div class="row">
            <span class="row-name">{offered.name}</span>
            <button type="button" onClick={() => void demo.load(offered)}>
              Load<span class="visually-hidden"> {offered.name}</span>
            </button>
          </div>
        </section>
      )}
      <section>
        <UrlForm onLoad={(choice) => void demo.load(choice)} />
      </section>
      <section>
        <h3>From this computer</h3>
        <label class="file">
          <span class="button">Choose a GGUF file…</span>
          <input
            type="file"
            accept=".gguf"
            class="visually-hidden"
            onChange={(event) => {
              const input = event.currentTarget;
              const file = input.files?.[0];
              // The same file may be chosen again.
              input.value = "";
              if (file !== undefined) void demo.load(choiceOfFile(file));
            }}
          />
          <span class="hint">or drop it anywhere on the page</span>
        </label>
      </section>
      <section>
        <h3>Kept in this browser</h3>
        <StoredModelList demo={demo} />
      </section>
    </dialog>
  );
}
