import { createReadStream, existsSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize, sep } from "node:path";
import { pipeline } from "node:stream";
import { SetupError } from "./errors.mjs";

const TYPES = new Map([
  [".html", "text/html; charset=utf-8"],
  [".js", "text/javascript; charset=utf-8"],
  [".mjs", "text/javascript; charset=utf-8"],
  [".css", "text/css; charset=utf-8"],
  [".json", "application/json; charset=utf-8"],
  [".map", "application/json; charset=utf-8"],
  [".txt", "text/plain; charset=utf-8"],
  [".wgsl", "text/plain; charset=utf-8"],
  [".svg", "image/svg+xml"],
  [".png", "image/png"],
  [".ico", "image/x-icon"],
  [".woff2", "font/woff2"],
  [".wasm", "application/wasm"],
  [".webmanifest", "application/manifest+json"],
]);

/**
 * @typedef {object} ServerOptions
 * @property {Readonly<Record<string, string>>} [folders] URL prefix (ending in `/`) to a folder; the longest prefix wins
 * @property {Readonly<Record<string, string>>} [files] URL path to a file
 * @property {Readonly<Record<string, unknown>>} [json] URL path to a value, sent as JSON
 * @property {Readonly<Record<string, string>>} [headers] sent with every answer, such as a Content-Security-Policy
 * @property {boolean} [isolated] send COOP and COEP, so that pages are cross-origin isolated; default true
 * @property {boolean} [ranges] answer range requests with 206; default true. False: 200 and the whole file
 * @property {boolean} [cors] allow reading from other origins; default false
 * @property {number} [port] default 0 = any free one
 * @property {(request: { method: string, path: string, range: string | undefined }) => void} [onRequest]
 */

/**
 * @typedef {object} StaticServer
 * @property {string} url such as `http://127.0.0.1:4173`, without a slash at its end
 * @property {number} port
 * @property {() => Promise<void>} close ends open connections too
 */

/**
 * Serves files to pages on this machine, with ranges and entity tags.
 * @param {ServerOptions} options
 * @returns {Promise<StaticServer>}
 */
export async function startServer(options) {
  const server = createServer((request, response) => {
    try {
      answer(options, request, response);
    } catch (error) {
      response.writeHead(500, { "content-type": "text/plain" });
      response.end(String(error));
    }
  });
  const port = await listen(server, options.port ?? 0);
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    close: () =>
      new Promise((done) => {
        server.close(() => done());
        server.closeAllConnections();
      }),
  };
}

/**
 * @param {import("node:http").Server} server
 * @param {number} port
 * @returns {Promise<number>}
 */
function listen(server, port) {
  return new Promise((done, failed) => {
    server.once("error", (error) => {
      const inUse = /** @type {NodeJS.ErrnoException} */ (error).code === "EADDRINUSE";
      const message = inUse ? `Port ${port} is in use.` : `Port ${port}: ${error.message}.`;
      failed(new SetupError(inUse ? "port-in-use" : "port", message, { cause: error }));
    });
    server.listen(port, "127.0.0.1", () => {
      const address = server.address();
      done(typeof address === "object" && address !== null ? address.port : port);
    });
  });
}

/**
 * @param {ServerOptions} options
 * @param {import("node:http").IncomingMessage} request
 * @param {import("node:http").ServerResponse} response
 */
function answer(options, request, response) {
  const method = request.method ?? "GET";
  const path = decodePath(request.url ?? "/");
  options.onRequest?.({ method, path: path ?? "", range: request.headers.range });
  for (const [name, value] of Object.entries(commonHeaders(options)))
    response.setHeader(name, value);
  if (path === undefined) return end(response, 400, "Bad path");
  if (method !== "GET" && method !== "HEAD") {
    response.setHeader("allow", "GET, HEAD");
    return end(response, 405, "Method not allowed");
  }
  const json = options.json?.[path];
  if (json !== undefined) {
    const body = Buffer.from(JSON.stringify(json));
    response.writeHead(200, { "content-type": TYPES.get(".json"), "content-length": body.length });
    response.end(method === "HEAD" ? undefined : body);
    return;
  }
  const file = findFile(options, path);
  if (file === undefined) return end(response, 404, "Not found");
  sendFile(file, method, options.ranges ?? true, request, response);
}

/** @param {ServerOptions} options */
function commonHeaders(options) {
  return {
    "cache-control": "no-cache",
    "x-content-type-options": "nosniff",
    ...((options.isolated ?? true)
      ? {
          "cross-origin-opener-policy": "same-origin",
          "cross-origin-embedder-policy": "require-corp",
          "cross-origin-resource-policy": options.cors ? "cross-origin" : "same-origin",
        }
      : {}),
    ...(options.cors
      ? {
          "access-control-allow-origin": "*",
          "access-control-expose-headers": "accept-ranges, content-length, content-range, etag",
        }
      : {}),
    ...options.headers,
  };
}

/** @param {string} url @returns {string | undefined} */
function decodePath(url) {
  try {
    const path = decodeURIComponent(new URL(url, "http://localhost").pathname);
    return path.includes("\0") ? undefined : path;
  } catch {
    return undefined;
  }
}

/** @param {ServerOptions} options @param {string} path @returns {string | undefined} */
function findFile(options, path) {
  const named = options.files?.[path];
  if (named !== undefined) return named;
  const prefixes = Object.keys(options.folders ?? {}).filter((prefix) => path.startsWith(prefix));
  const prefix = prefixes.sort((a, b) => b.length - a.length)[0];
  const folder = prefix === undefined ? undefined : options.folders?.[prefix];
  if (prefix === undefined || folder === undefined) return undefined;
  const inside = normalize(join(folder, path.slice(prefix.length)));
  const base = normalize(folder).replace(/[\\/]$/, "");
  if (inside !== base && inside !== `${base}${sep}` && !inside.startsWith(`${base}${sep}`)) {
    return undefined;
  }
  const file = path.endsWith("/") ? join(inside, "index.html") : inside;
  return existsSync(file) && statSync(file).isFile() ? file : undefined;
}

/**
 * @param {string} file
 * @param {string} method
 * @param {boolean} ranges
 * @param {import("node:http").IncomingMessage} request
 * @param {import("node:http").ServerResponse} response
 */
function sendFile(file, method, ranges, request, response) {
  const { size, mtimeMs } = statSync(file);
  const etag = `"${size.toString(16)}-${Math.round(mtimeMs).toString(16)}"`;
  response.setHeader("etag", etag);
  response.setHeader("content-type", TYPES.get(extname(file)) ?? "application/octet-stream");
  if (ranges) response.setHeader("accept-ranges", "bytes");
  if (request.headers["if-none-match"] === etag) {
    response.writeHead(304).end();
    return;
  }
  const condition = request.headers["if-range"];
  const wanted = ranges && (condition === undefined || condition === etag);
  const range = wanted ? parseRange(request.headers.range, size) : undefined;
  if (range === "outside") {
    response.setHeader("content-range", `bytes */${size}`);
    return end(response, 416, "Range not satisfiable");
  }
  const { start, end: last } = range ?? { start: 0, end: size - 1 };
  if (range !== undefined) response.setHeader("content-range", `bytes ${start}-${last}/${size}`);
  response.writeHead(range === undefined ? 200 : 206, { "content-length": last - start + 1 });
  if (method === "HEAD" || size === 0) {
    response.end();
    return;
  }
  pipeline(createReadStream(file, { start, end: last }), response, (error) => {
    // The page may leave in mid-file: nothing to say, nobody to say it to.
    if (error) response.destroy();
  });
}

/**
 * Reads a Range header with one range; others (none, several, other units) get the whole file.
 * @param {string | undefined} header
 * @param {number} size
 * @returns {{ start: number, end: number } | "outside" | undefined} `end` inclusive
 */
export function parseRange(header, size) {
  const [, first, last] = /^bytes=(\d*)-(\d*)$/.exec(header ?? "") ?? [];
  if (first === undefined || last === undefined || (first === "" && last === "")) return undefined;
  if (first === "") {
    const count = Math.min(Number(last), size);
    return count === 0 ? "outside" : { start: size - count, end: size - 1 };
  }
  const start = Number(first);
  const end = last === "" ? size - 1 : Math.min(Number(last), size - 1);
  if (last !== "" && Number(last) < start) return undefined;
  return start >= size ? "outside" : { start, end };
}

/**
 * @param {import("node:http").ServerResponse} response
 * @param {number} status
 * @param {string} text
 */
function end(response, status, text) {
  response.writeHead(status, { "content-type": "text/plain; charset=utf-8" });
  response.end(`${text}\n`);
}
