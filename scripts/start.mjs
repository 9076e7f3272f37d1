import { DEMO_FOLDER, ensureDemo } from "./lib/build.mjs";
import { runMain, SetupError } from "./lib/errors.mjs";
import { helpText, parseFlags } from "./lib/flags.mjs";
import { ensureDefaultModel, ensureNamedModel, isUrl } from "./lib/model.mjs";
import { ensurePackages } from "./lib/packages.mjs";
import { say } from "./lib/progress.mjs";
import { startServer } from "./lib/server.mjs";

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
  await ensurePackages();
  const model = await chooseModel(values.model);
  await ensureDemo();
  const options = {
    folders: { "/": DEMO_FOLDER },
    files: model.files,
    json: { "/quire.json": { model: { url: model.url, name: model.name } } },
  };
  const server = await startOnPort(options, values.port);
  process.stdout.write(`Quire's demo is at ${server.url}/ (Ctrl-C ends it)\n`);
  await new Promise((done) => {
    process.once("SIGINT", done);
    process.once("SIGTERM", done);
  });
  await server.close();
});

/**
 * The model that the demo offers first: a URL as it is (the page keeps the file), a file by way of
 * our server.
 * @param {string | undefined} value
 * @returns {Promise<{ url: string, name: string, files: Record<string, string> }>}
 */
async function chooseModel(value) {
  if (value !== undefined && isUrl(value)) {
    const name = decodeURIComponent(new URL(value).pathname.split("/").at(-1) || value);
    return { url: value, name, files: {} };
  }
  const model = await (value === undefined ? ensureDefaultModel() : ensureNamedModel(value));
  const path = `/models/${model.name}`;
  const url = `/models/${encodeURIComponent(model.name)}`;
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
