import type { QuireError } from "quire";
import { adviceFor } from "../text/errorAdvice.ts";

/** An error: its code, what happened, and what to do about it. */
export function ErrorNotice({ error }: { readonly error: QuireError }) {
  const advice = adviceFor(error.code);
  return (
    <div class="notice is-error">
      <p>
        <code class="error-code">{error.code}</code> {error.message}
      </p>
      {advice !== undefined && <p class="advice">{advice}</p>}
    </div>
  );
}
