import type { StoredModel } from "quire";
import { choiceOfUrl } from "../engine/modelChoice.ts";
import type { Demo } from "../page/demo.ts";
import { fileNameOf, formatBytes } from "../text/format.ts";
import { ErrorNotice } from "./ErrorNotice.tsx";

/** The models in this browser's storage, with buttons to load and to delete them. */
export function StoredModelList({ demo }: { readonly demo: Demo }) {
  const { list, error } = demo.stored;
  return (
    <>
      {error.value !== undefined && (
        <div role="alert">
          <ErrorNotice error={error.value} />
        </div>
      )}
      {list.value === undefined ? (
        <p class="hint">Looking…</p>
      ) : list.value.length === 0 ? (
        <p class="hint">
          Nothing yet. A model loaded by address stays here, for use without network.
        </p>
      ) : (
        <ul class="stored">
          {list.value.map((model) => (
            <StoredRow key={model.url} model={model} demo={demo} />
          ))}
        </ul>
      )}
    </>
  );
}

function StoredRow({ model, demo }: { readonly model: StoredModel; readonly demo: Demo }) {
  const name = fileNameOf(model.url);
  const isDeleting = demo.stored.deleting.value === model.url;
  const size = model.complete
    ? formatBytes(model.storedBytes)
    : `${formatBytes(model.storedBytes)} of ${model.byteLength === undefined ? "?" : formatBytes(model.byteLength)}; loading goes on from there`;
  return (
    <li class="row">
      <span class="row-name">
        <span title={model.url}>{name}</span> <span class="hint">{size}</span>
      </span>
      <button type="button" onClick={() => void demo.load(choiceOfUrl(model.url))}>
        Load<span class="visually-hidden"> {name}</span>
      </button>
      <button
        type="button"
        aria-disabled={isDeleting}
        onClick={() => {
          if (!isDeleting) void demo.deleteStored(model.url);
        }}
      >
        Delete<span class="visually-hidden"> {name}</span>
      </button>
    </li>
  );
}
