import { expose } from "comlink";
import { EngineHost, type HostOptions } from "./host.ts";
import { type ConnectMessage, type PageMessage, PROTOCOL_VERSION } from "./protocol.ts";

/** The part of a worker's global scope that is used. */
export interface WorkerScope {
  addEventListener(type: "message", listener: (event: MessageEvent) => void): void;
}

/** Waits for a page's `connect` message, gives it a host of its own and answers `ready`. */
export function serve(scope: WorkerScope, options: Omit<HostOptions, "send">): void {
  scope.addEventListener("message", (event) => {
    const message = event.data as ConnectMessage | undefined;
    if (message?.type === "connect") void connect(message, options);
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
