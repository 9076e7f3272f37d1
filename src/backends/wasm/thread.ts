import { control } from "./abi.ts";
import { instantiateKernels, type RunFunction } from "./kernelModule.ts";
import { gate, runShared, type ThreadReply, type ThreadStart } from "./threads.ts";

/** A thread worker's side: waits for its start on `port`, then runs what the plan runs until it ends. */
export function serveThread(port: MessagePort): void {
  port.onmessage = ({ data }: MessageEvent<ThreadStart>) => void start(port, data);
}

async function start(port: MessagePort, { modules, memory, scratch }: ThreadStart): Promise<void> {
  const reply = (message: ThreadReply): void => port.postMessage(message);
  try {
    const run = await instantiateKernels(modules, memory);
    const words = new Int32Array(memory.buffer);
    // Read before the answer: the first program may be opened right after it.
    const epoch = Atomics.load(words, control.EPOCH / 4);
    reply({ type: "ready" });
    // A turn of the event loop, so that the answer is out before the thread blocks.
    setTimeout(() => runUntilEnd(run, words, scratch, epoch), 0);
  } catch (error) {
    reply({ type: "failed", message: String(error) });
  }
}

/** Sleeps between steps. The worker takes no more messages; it can be terminated. */
function runUntilEnd(run: RunFunction, words: Int32Array, scratch: number, from: number): void {
  let epoch = from;
  while (true) {
    Atomics.wait(words, control.EPOCH / 4, epoch);
    epoch = Atomics.load(words, control.EPOCH / 4);
    // Whoever closes the gate waits until nobody is active: either this sees it closed, or that sees this.
    Atomics.add(words, control.ACTIVE / 4, 1);
    const state = Atomics.load(words, control.OPEN / 4);
    if (state === gate.OPEN) {
      const numCommands = words[control.COMMANDS / 4]!;
      runShared(run, words, words[control.PROGRAM / 4]! >>> 0, numCommands, scratch);
    }
    Atomics.sub(words, control.ACTIVE / 4, 1);
    if (state === gate.END) return;
  }
}
