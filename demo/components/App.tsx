import type { Demo } from "../page/demo.ts";
import { Broadcast } from "./Broadcast.tsx";
import { ChatGrid } from "./ChatGrid.tsx";
import { DropTarget } from "./DropTarget.tsx";
import { EngineStrip } from "./EngineStrip.tsx";
import { Header } from "./Header.tsx";
import { ModelDialog } from "./ModelDialog.tsx";
import { Problems } from "./Problems.tsx";

/** The whole page. */
export function App({ demo }: { readonly demo: Demo }) {
  return (
    <>
      <Header demo={demo} />
      <EngineStrip demo={demo} />
      <main>
        {/* The dialog shows them itself: the page behind it is dimmed and cannot be clicked. */}
        {!demo.isDialogOpen.value && <Problems problems={demo.problems} />}
        <ChatGrid demo={demo} />
      </main>
      <Broadcast demo={demo} />
      <ModelDialog demo={demo} />
      <DropTarget demo={demo} />
      <output class="visually-hidden" aria-live="polite">
        {demo.announcement}
      </output>
    </>
  );
}
