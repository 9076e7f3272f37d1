import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createServer } from "vite";
import { inRoot } from "../../scripts/lib/paths.mjs";

/** The repository's modules, as browsers can import them: what is behind the library's API. */
export interface Sources {
  /** A page without content. Modules are at their paths in the repository. */
  readonly blankPage: string;
  close(): Promise<void>;
}

export async function openSources(): Promise<Sources> {
  const cacheDir = mkdtempSync(join(tmpdir(), "quire-vite-"));
  const server = await createServer({
    configFile: false,
    root: inRoot("."),
    cacheDir,
    logLevel: "error",
    appType: "custom",
    server: { port: 0, host: "127.0.0.1", hmr: false, ws: false, watch: null },
    optimizeDeps: { noDiscovery: true },
    plugins: [
      {
        name: "blank-page",
        configureServer: ({ middlewares }) => {
          middlewares.use("/blank", (_, response) => {
            response.setHeader("Content-Type", "text/html");
            response.end("<!doctype html><title>blank</title>");
          });
        },
      },
    ],
  });
  await server.listen();
  return {
    blankPage: `${server.resolvedUrls!.local[0]!}blank`,
    async close() {
      await server.close();
      rmSync(cacheDir, { recursive: true, force: true });
    },
  };
}
