/** Lets messages that have arrived be handled before the loop goes on. */
export interface MessageYield {
  yield(): Promise<void>;
  close(): void;
}

/**
 * A message to oneself queues up behind the messages that wait. A timer would add its 4 ms clamp to
 * every step, and a resolved promise would let a back end that never waits starve the port.
 */
export function createMessageYield(): MessageYield {
  const { port1, port2 } = new MessageChannel();
  let wake = (): void => {};
  port1.onmessage = () => wake();
  return {
    yield: () =>
      new Promise((resolve) => {
        wake = resolve;
        port2.postMessage(0);
      }),
    close: () => port1.close(),
  };
}
