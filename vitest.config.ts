import { defineConfig } from "vitest/config";
import { findLavapipe, swiftshaderIcd } from "./scripts/lib/browsers.mjs";
import { wasmKernels } from "./scripts/lib/wasmKernels.mjs";

// `npm run test:all` sets it; otherwise the slow tests and Firefox's are not selected.
const all = process.env["QUIRE_TEST_ALL"] === "1";
const exclude = ["**/node_modules/**", ...(all ? [] : ["**/*.slow.test.ts"])];

/** Dawn takes one Vulkan driver a process: the GPU tests run once for each, in processes of their own. */
function gpuProject(icdName: string, icd: string | undefined, groupOrder: number) {
  if (icd === undefined) return [];
  return [
    {
      plugins: [wasmKernels()],
      test: {
        name: `gpu:${icdName}`,
        include: ["e2e/gpu/**/*.test.ts"],
        exclude,
        env: { QUIRE_ICD: icdName, VK_ICD_FILENAMES: icd, VK_DRIVER_FILES: icd },
        // Dawn's threads do not survive in worker threads, and software adapters use every core.
        pool: "forks" as const,
        maxWorkers: 1,
        testTimeout: 120_000,
        hookTimeout: 120_000,
        sequence: { groupOrder },
      },
    },
  ];
}

export default defineConfig(async () => ({
  test: {
    projects: [
      {
        plugins: [wasmKernels()],
        test: {
          name: "unit",
          include: [
            "src/**/*.test.ts",
            "scripts/**/*.test.ts",
            "demo/**/*.test.{ts,tsx}",
            "e2e/**/*.test.ts",
          ],
          exclude: [...exclude, "e2e/gpu/**", "e2e/browser/**"],
          setupFiles: ["e2e/fixtures/propertySeed.ts"],
          pool: "forks" as const,
          testTimeout: 60_000,
          sequence: { groupOrder: 0 },
        },
      },
      // The same Chromium that `npm test` has looked for its driver in.
      ...gpuProject("swiftshader", swiftshaderIcd(process.env["CHROME_PATH"]), 1),
      ...gpuProject("lavapipe", await findLavapipe(), 2),
      {
        plugins: [wasmKernels()],
        test: {
          name: "browser",
          include: ["e2e/browser/**/*.test.ts"],
          exclude,
          pool: "forks" as const,
          // One browser at a time: timings and timeouts mean something.
          maxWorkers: 1,
          testTimeout: all ? 1_200_000 : 180_000,
          hookTimeout: 180_000,
          sequence: { groupOrder: 3 },
        },
      },
    ],
  },
}));
