import type { Signal } from "@preact/signals";

/** A text field that Enter sends (by submitting its form) and Shift+Enter breaks the line of. */
export function MessageField(props: {
  readonly id: string;
  readonly label: string;
  readonly placeholder: string;
  readonly text: Signal<string>;
  readonly rows?: number;
}) {
  return (
    <textarea
      id={props.id}
      aria-label={props.label}
      aria-keyshortcuts="Enter"
      placeholder={props.placeholder}
      rows={props.rows ?? 2}
      value={props.text}
      onInput={(event) => {
        props.text.value = event.currentTarget.value;
      }}
      onKeyDown={(event) => {
        // While an input method composes, Enter is its own.
        if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
        event.preventDefault();
        event.currentTarget.form?.requestSubmit();
      }}
    />
  );
}
