import { modelUrl } from "../page/pageOptions.ts";
import { choiceOfUrl, type ModelChoice } from "./modelChoice.ts";

/**
 * The model that this page's server offers, from `quire.json` beside the page:
 * `{ "model": { "url", "name" } }`. Undefined where the server offers none (404).
 */
export async function fetchDefaultModel(base: string): Promise<ModelChoice | undefined> {
  const response = await fetch(new URL("quire.json", base));
  if (response.status === 404) return undefined;
  if (!response.ok) throw new Error(`The server answered ${response.status} for quire.json.`);
  const { model } = (await response.json()) as { model?: { url?: unknown; name?: unknown } };
  const url = typeof model?.url === "string" ? modelUrl(model.url, base) : undefined;
  if (url === undefined) throw new Error("The server's quire.json names no model URL.");
  return choiceOfUrl(url, typeof model?.name === "string" ? model.name : undefined);
}
