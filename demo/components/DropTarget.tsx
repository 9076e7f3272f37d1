import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { choiceOfFile } from "../engine/modelChoice.ts";
import type { Demo } from "../page/demo.ts";

/** Takes a model file that is dropped anywhere on the page. */
export function DropTarget({ demo }: { readonly demo: Demo }) {
  const isOver = useSignal(false);
  useEffect(() => {
    const listeners = new AbortController();
    const options = { signal: listeners.signal };
    const takesFiles = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
    addEventListener(
      "dragover",
      (event) => {
        if (!takesFiles(event)) return;
        // Without this the browser would leave the page and show the file.
        event.preventDefault();
        isOver.value = true;
      },
      options,
    );
    addEventListener(
      "dragleave",
      (event) => {
        if (event.relatedTarget === null) isOver.value = false;
      },
      options,
    );
    addEventListener(
      "drop",
      (event) => {
        if (!takesFiles(event)) return;
        event.preventDefault();
        isOver.value = false;
        const files = event.dataTransfer?.files;
        const file = files?.[0];
        if (file !== undefined && files?.length === 1) void demo.load(choiceOfFile(file));
        else demo.problems.value = ["Drop one GGUF file."];
      },
      options,
    );
    return () => listeners.abort();
  }, [demo, isOver]);
  return isOver.value ? <div class="drop-veil">Drop the GGUF file to load it</div> : null;
}
