/** @file A thread of the kernels that the benchmark's worker runs: its first message brings the port. */
import { serveThread } from "../../../src/backends/wasm/thread.ts";

self.onmessage = ({ data }: MessageEvent<MessagePort>) => serveThread(data);
