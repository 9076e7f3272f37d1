/** A URL for messages: without its query, which may hold a secret. */
export function urlName(url: string | URL): string {
  return String(url).split(/[?#]/, 1)[0]!;
}
