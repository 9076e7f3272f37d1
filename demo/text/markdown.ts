import DOMPurify, { type Config } from "dompurify";
import { Marked } from "marked";

// A model's answer is untrusted text. Three walls: raw HTML in it is shown as text, what Markdown
// makes of it is sanitised by a short list of elements, and the page's Content-Security-Policy
// allows no inline script and no foreign image.

const parser = new Marked({
  gfm: true,
  breaks: true,
  async: false,
  renderer: {
    html: ({ text }) => escapeHtml(text),
    // An image would tell another server that this answer is being read.
    image: ({ href, text }) => escapeHtml(`![${text}](${href})`),
  },
});

const SANITIZER: Config = {
  ALLOWED_TAGS: [
    ...["a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr"],
    ...["li", "ol", "p", "pre", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul"],
  ],
  ALLOWED_ATTR: ["href", "title", "align", "start"],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
};

/** Markdown as HTML that is safe to insert. Links open in a tab of their own. */
export function renderMarkdown(text: string): string {
  const fragment = DOMPurify.sanitize(parser.parse(text) as string, {
    ...SANITIZER,
    RETURN_DOM_FRAGMENT: true,
  });
  for (const link of fragment.querySelectorAll("a")) {
    link.target = "_blank";
    link.rel = "noopener noreferrer";
  }
  // A wide code block or table scrolls by itself, also with the keyboard.
  for (const wide of fragment.querySelectorAll("pre")) wide.tabIndex = 0;
  const holder = document.createElement("div");
  holder.append(fragment);
  return holder.innerHTML;
}

function escapeHtml(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}
