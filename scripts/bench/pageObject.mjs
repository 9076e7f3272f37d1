/**
 * The methods of `T`, called from outside the page.
 * @template T
 * @typedef {{ [M in keyof T]: T[M] extends (...given: infer A) => infer R ? (...given: A) => Promise<Awaited<R>> : never }} FromOutside
 */

/**
 * An object that a page has put into its global scope, such as `globalThis.bench`. What goes in and
 * comes out is copied.
 * @param {import("playwright").Page} page
 * @param {string} name
 * @returns {unknown} a FromOutside of the object's type
 */
export function pageObject(page, name) {
  const call = (/** @type {string} */ method, /** @type {unknown[]} */ given) =>
    page.evaluate(
      ([object, key, values]) => {
        const all =
          /** @type {Record<string, Record<string, (...given: unknown[]) => unknown>>} */ (
            /** @type {unknown} */ (globalThis)
          );
        return all[object]?.[key]?.(...values);
      },
      /** @type {const} */ ([name, method, given]),
    );
  return new Proxy(
    {},
    {
      get: (_, method) =>
        typeof method === "string" && method !== "then" // it is no promise
          ? (/** @type {unknown[]} */ ...given) => call(method, given)
          : undefined,
    },
  );
}
