import { ensureBrowser, ensureLavapipe } from "./lib/browsers.mjs";
import { runMain, UsageError } from "./lib/errors.mjs";
import { parseFlags } from "./lib/flags.mjs";

/** What can be asked for; each is installed unless it is there. */
const PARTS = {
  chromium: () => ensureBrowser("chromium"),
  firefox: () => ensureBrowser("firefox"),
  lavapipe: ensureLavapipe,
};

// Sets up what npm does not: browsers and drivers. The other commands do the same by themselves, as
// they need it; this is for setting up a machine beforehand.
await runMain(async () => {
  const { positionals, help } = parseFlags(process.argv.slice(2), {}, { positionals: "parts" });
  const names = Object.keys(PARTS);
  if (help || positionals.length === 0) {
    process.stdout.write(`node scripts/setup.mjs ${names.join("|")} ...\n`);
    return help ? 0 : 2;
  }
  for (const name of positionals) {
    if (!Object.hasOwn(PARTS, name)) {
      throw new UsageError(`There is no part ${name}. Valid: ${names.join(", ")}.`);
    }
  }
  for (const name of positionals) {
    const found = await PARTS[/** @type {keyof typeof PARTS} */ (name)]();
    process.stdout.write(`${name}: ${found}\n`);
  }
});
