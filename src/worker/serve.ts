import { expose } from "comlink";
import { EngineHost, type HostOptions } from "./host.ts";
import {
  type ConnectMessage,
  type PageMessage,
  PROTOCOL_VERSION,
  type ThreadMessage,
  type ThreadReady,
} from "./protocol.ts";

/** The part of a worker's global scope that is used. */
export interface WorkerScope {
  addEventListener(type: "message", listener: (event: MessageEvent) => void): void;
}

export interface ServeOptions extends Omit<HostOptions, "send"> {
  /** Computes for the engine worker at the port's other end. */
  readonly serveThread: (port: MessagePort) => void;
}

/**
 * Waits for the page's first message: `connect` makes the worker the host of an engine, `thread` a
 * thread of another worker's.
 */
export function serve(scope: WorkerScope, options: ServeOptions): void {
  scope.addEventListener("message", (event) => {
    const message = event.data as ConnectMessage | ThreadMessage | undefined;
    if (message?.type === "connect") void connect(message, options);
    if (message?.type === "thread") {
      options.serveThread(message.port);
      void joinThread(message);
    }
  });
}

async function connect(
  { control, stream, lockName }: ConnectMessage,
  options: Omit<HostOptions, "send">,
): Promise<void> {
  const host = new EngineHost({ ...options, send: (message) => stream.postMessage(message) });
  stream.onmessage = (event: MessageEvent<PageMessage>) => host.receive(event.data);
  expose(host.control, control);
  const holdsLock = await holdLock(lockName);
  stream.postMessage({ type: "ready", version: PROTOCOL_VERSION, holdsLock });
}

/** The lock is held before the engine worker gets the port: a thread that computes sends nothing. */
async function joinThread({ page, lockName }: ThreadMessage): Promise<void> {
  const ready: ThreadReady = { type: "ready", holdsLock: await holdLock(lockName) };
  page.postMessage(ready);
}

/** Holds a Web Lock for life. False where there are none: the page then does without. */
function holdLock(name: string): Promise<boolean> {
  const locks = globalThis.navigator?.locks;
  if (locks === undefined) return Promise.resolve(false);
  return new Promise((resolve) => {
    const hold = (): Promise<never> => {
      resolve(true);
      return new Promise(() => {});
    };
    // Refused in an opaque origin, such as a sandboxed frame.
    locks.request(name, hold).catch(() => resolve(false));
  });
}
