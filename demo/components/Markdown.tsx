import { useMemo } from "preact/hooks";
import { renderMarkdown } from "../text/markdown.ts";

/** A model's text, parsed (and sanitised: see renderMarkdown) again only when it changes. */
export function Markdown({ text }: { readonly text: string }) {
  const html = useMemo(() => renderMarkdown(text), [text]);
  return <div class="prose" dangerouslySetInnerHTML={{ __html: html }} />;
}
