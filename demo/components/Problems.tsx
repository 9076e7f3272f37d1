import type { Signal } from "@preact/signals";

/** What is wrong with the address or the server's answer. */
export function Problems({ problems }: { readonly problems: Signal<readonly string[]> }) {
  if (problems.value.length === 0) return null;
  const dismiss = () => {
    problems.value = [];
  };
  return (
    <div class="notice" role="alert">
      <ul>
        {problems.value.map((problem) => (
          <li key={problem}>{problem}</li>
        ))}
      </ul>
      <button type="button" onClick={dismiss}>
        Dismiss
      </button>
    </div>
  );
}
