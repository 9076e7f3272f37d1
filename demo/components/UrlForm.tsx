import { useSignal } from "@preact/signals";
import { choiceOfUrl, type ModelChoice } from "../engine/modelChoice.ts";
import { modelUrl } from "../page/pageOptions.ts";

/** Takes the address of a GGUF file. */
export function UrlForm({ onLoad }: { readonly onLoad: (choice: ModelChoice) => void }) {
  const text = useSignal("");
  const isBad = useSignal(false);
  return (
    <form
      class="row"
      onSubmit={(event) => {
        event.preventDefault();
        const url = text.value.trim() === "" ? undefined : modelUrl(text.value, document.baseURI);
        isBad.value = url === undefined;
        if (url !== undefined) onLoad(choiceOfUrl(url));
      }}
    >
      <h3>
        <label for="model-url">From an address</label>
        <span id="model-url-problem" class="field-problem" role="alert">
          {isBad.value ? "This is no http or https URL." : ""}
        </span>
      </h3>
      <input
        id="model-url"
        type="text"
        inputmode="url"
        autocomplete="off"
        spellcheck={false}
        placeholder="https://…/model.gguf"
        value={text}
        aria-invalid={isBad.value}
        aria-describedby="model-url-problem"
        onInput={(event) => {
          text.value = event.currentTarget.value;
          isBad.value = false;
        }}
      />
      <button type="submit">Load</button>
    </form>
  );
}
