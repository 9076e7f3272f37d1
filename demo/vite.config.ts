import { defineConfig } from "vite";

// `vite build demo`: the page, for any folder of any server. "quire" is the package that this very
// repository builds: its own name leads, by package.json's exports, to dist/.
// biome-ignore lint/style/noDefaultExport: Vite asks for one.
export default defineConfig({
  base: "./",
  publicDir: "../public",
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: "dist",
    emptyOutDir: true,
    target: "es2022",
    // The page's Content-Security-Policy allows no data: URLs but for images.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // The library carries its worker as text.
    chunkSizeWarningLimit: 1000,
  },
});
