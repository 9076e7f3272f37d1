import { createWebGpuBackend } from "../backends/webgpu/backend.ts";
import { serve } from "./serve.ts";

// The worker script. It does nothing until a page connects.
serve(self, { createBackend: () => createWebGpuBackend() });
