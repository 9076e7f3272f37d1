/** @file A server of one file that can misbehave in the ways that servers do. For tests. */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { gzipSync } from "node:zlib";

export interface FileServerBehaviour {
  bytes: Uint8Array;
  /** Undefined: no ETag and no Last-Modified is sent. */
  etag: string | undefined;
  /** Answers every request with this status and no file. */
  status: number | undefined;
  /** Whether ranges are honoured; else 200 and the whole file. */
  ranges: boolean;
  contentRange: boolean;
  contentLength: boolean;
  gzip: boolean;
  /** Lets pages of other origins read ETag and Content-Range. */
  exposeHeaders: boolean;
  /** So many responses break off after `dropAfter` bytes. */
  drops: number;
  dropAfter: number;
  /** Sends this many bytes of the body and then nothing. */
  stallAfter: number | undefined;
  /** How the behaviour changes when a client asks for the path /drop. */
  afterDrop: Partial<FileServerBehaviour>;
}

export interface FileServer {
  readonly url: string;
  /** Change it between requests. */
  readonly behaviour: FileServerBehaviour;
  /** The Range headers of the requests so far, "" without one. */
  readonly ranges: string[];
  close(): Promise<void>;
}

/**
 * Besides the file, on every path, there is /drop: it breaks off the stalled responses, when the
 * client knows that it has their bytes, and ends the stalling.
 */
export async function startFileServer(
  bytes: Uint8Array,
  behaviour: Partial<FileServerBehaviour> = {},
): Promise<FileServer> {
  const current: FileServerBehaviour = {
    bytes,
    etag: '"1"',
    status: undefined,
    ranges: true,
    contentRange: true,
    contentLength: true,
    gzip: false,
    exposeHeaders: true,
    drops: 0,
    dropAfter: 0,
    stallAfter: undefined,
    afterDrop: {},
    ...behaviour,
  };
  const ranges: string[] = [];
  const stalled: ServerResponse[] = [];
  const server = createServer((request, response) => {
    if (request.url === "/drop") {
      for (const each of stalled) each.destroy();
      Object.assign(current, { stallAfter: undefined, ...current.afterDrop });
      return void response.setHeader("Access-Control-Allow-Origin", "*").end();
    }
    if (current.stallAfter !== undefined) stalled.push(response);
    ranges.push(request.headers.range ?? "");
    answer(current, request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}/model.gguf`,
    behaviour: current,
    ranges,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function answer(
  behaviour: FileServerBehaviour,
  request: IncomingMessage,
  response: ServerResponse,
): void {
  response.setHeader("Access-Control-Allow-Origin", "*");
  if (behaviour.exposeHeaders) {
    response.setHeader("Access-Control-Expose-Headers", "ETag, Content-Range, Content-Encoding");
  }
  if (behaviour.etag) response.setHeader("ETag", behaviour.etag);
  if (behaviour.status) return void response.writeHead(behaviour.status).end("no file here");

  const whole = behaviour.gzip ? gzipSync(behaviour.bytes) : behaviour.bytes;
  if (behaviour.gzip) response.setHeader("Content-Encoding", "gzip");
  let body = whole;
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
  if (range && behaviour.ranges) {
    const start = Number(range[1]);
    if (start >= whole.length) return void response.writeHead(416).end();
    const end = range[2] ? Math.min(Number(range[2]) + 1, whole.length) : whole.length;
    body = whole.subarray(start, end);
    if (behaviour.contentRange) {
      response.setHeader("Content-Range", `bytes ${start}-${end - 1}/${whole.length}`);
    }
  }
  if (behaviour.contentLength) response.setHeader("Content-Length", body.length);
  response.writeHead(range && behaviour.ranges ? 206 : 200);

  if (behaviour.stallAfter !== undefined) {
    response.write(body.subarray(0, behaviour.stallAfter));
  } else if (behaviour.drops > 0) {
    behaviour.drops--;
    response.write(body.subarray(0, behaviour.dropAfter), () => {
      // Later than the bytes, so that the client has them before the reset.
      setTimeout(() => response.destroy(), 20);
    });
  } else {
    response.end(body);
  }
}
