import { createWasmBackend } from "../backends/wasm/backend.ts";
import { serveThread } from "../backends/wasm/thread.ts";
import { createWebGpuBackend } from "../backends/webgpu/backend.ts";
import { type BackendParts, chooseBackend } from "./chooseBackend.ts";
import { checkNumerics } from "./numerics.ts";
import { serve } from "./serve.ts";

// The worker script, of engines and of their threads. It does nothing until a page says what it is.

const PARTS: BackendParts = {
  createWebGpu: createWebGpuBackend,
  createWasm: createWasmBackend,
  check: checkNumerics,
  isIsolated: self.crossOriginIsolated,
};

serve(self, {
  createBackend: (request, openThreads, signal) =>
    chooseBackend(request, PARTS, openThreads, signal),
  serveThread,
});
