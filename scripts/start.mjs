import { DEMO_FOLDER, ensureDemo } from "./lib/build.mjs";
import { runMain, SetupError } from "./lib/errors.mjs";
import { helpText, parseFlags } from "./lib/flags.mjs";
import { ensureDefaultModel } from "./lib/model.mjs";
import { ensureNamedModel, readModelFlag } from "./lib/namedModel.mjs";
import { ensurePackages } from "./lib/packages.mjs";
import { say } from "./lib/progress.mjs";
import { startServer } from "./lib/server.mjs";
import { takeSignals } from "./lib/signals.mjs";

// A browser keeps models by origin, and the port is part of it: the same one every time.
const USUAL_PORT = 4173;

const FLAGS = /** @satisfies {Record<string, import("./lib/flags.mjs").Flag>} */ (
  /** @type {const} */ ({
    port: { type: "integer", min: 0, max: 65535, help: `port (${USUAL_PORT}, or any free one)` },
    model: { type: "string", value: "FILE|URL", help: "instead of the default model" },
  })
);

await runMain(async () => {
  const { values, help } = parseFlags(process.argv.slice(2), FLAGS);
  if (help) {
    process.stdout.write(helpText("npm start [-- --port N --model FILE|URL]", FLAGS));
    return;
  }
  const named = values.model === undefined ? undefined : readModelFlag(values.model);
  await ensurePackages();
  const model = await chooseModel(named);
  await ensureDemo();
  const options = {
    folders: { "/": DEMO_FOLDER },
    files: model.files,
    json: { "/quire.json": { model: { url: model.url, name: model.name } } },
  };
  const server = await startOnPort(options, values.port);
  process.stdout.write(`Quire's demo is at ${server.url}/ (Ctrl-C ends it)\n`);
  await new Promise((done) => takeSignals(done));
  await server.close();
});

/**
 * The model that the demo offers first: a URL as it is (the page keeps the file), a file by way of
 * our server.
 * @param {import("./lib/namedModel.mjs").NamedModel | undefined} named
 * @returns {Promise<{ url: string, name: string, files: Record<string, string> }>}
 */
async function chooseModel(named) {
  if (named?.kind === "url") return { url: named.value, name: named.name, files: {} };
  const model = await (named === undefined ? ensureDefaultModel() : ensureNamedModel(named));
  // The page keeps models by URL: another file of the same name needs another URL.
  const folder = `/models/${model.sha256.slice(0, 12)}`;
  const path = `${folder}/${model.name}`;
  const url = `${folder}/${encodeURIComponent(model.name)}`;
  return { url, name: model.name, files: { [path]: model.path } };
}

/**
 * @param {import("./lib/server.mjs").ServerOptions} options
 * @param {number | undefined} port asked for; without one the usual port, or a free one if it is taken
 */
async function startOnPort(options, port) {
  if (port !== undefined) return startServer({ ...options, port });
  try {
    return await startServer({ ...options, port: USUAL_PORT });
  } catch (error) {
    if (!(error instanceof SetupError) || error.code !== "port-in-use") throw error;
    say(`Port ${USUAL_PORT} is in use; taking a free one.`);
    return startServer(options);
  }
}
