import { fileNameOf } from "../text/format.ts";

/** A model that the user, the address or the server picked. */
export type ModelChoice =
  | { readonly kind: "url"; readonly url: string; readonly name: string }
  | { readonly kind: "file"; readonly file: File; readonly name: string };

/** @param url absolute */
export function choiceOfUrl(url: string, name: string = fileNameOf(url)): ModelChoice {
  return { kind: "url", url, name };
}

export function choiceOfFile(file: File): ModelChoice {
  return { kind: "file", file, name: file.name };
}
