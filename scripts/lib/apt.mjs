import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { capture } from "./command.mjs";
import { SetupError } from "./errors.mjs";
import { say } from "./progress.mjs";

const SOURCES_FOLDER = "/etc/apt/sources.list.d";
const OWN_SOURCE = join(SOURCES_FOLDER, "quire-backports.sources");

let updated = false;

/** Whether this process may install Debian packages. */
export function canInstall() {
  return process.getuid?.() === 0 && existsSync("/usr/bin/apt-get");
}

/** Debian's release name, such as `bookworm`; undefined elsewhere. */
export function debianRelease() {
  if (!existsSync("/etc/os-release")) return undefined;
  const text = readFileSync("/etc/os-release", "utf8");
  if (!/^ID=("?)debian\1$/m.test(text)) return undefined;
  return /^VERSION_CODENAME="?([a-z]+)"?$/m.exec(text)?.[1];
}

/**
 * Installs Debian packages and says so. Needs `canInstall()`.
 * @param {readonly string[]} packages
 * @param {{ release?: string }} [options] `release` is apt's target release
 */
export async function aptInstall(packages, options = {}) {
  say(
    `Installing Debian packages: ${packages.join(" ")}${options.release ? ` (${options.release})` : ""}`,
  );
  await aptUpdate();
  const target = options.release ? ["-t", options.release] : [];
  await aptGet(["install", "-y", "--no-install-recommends", ...target, ...packages]);
}

async function aptUpdate() {
  if (updated) return;
  await aptGet(["update"]);
  updated = true;
}

/** apt's own words are shown only when it fails. @param {readonly string[]} args */
async function aptGet(args) {
  const { code, output } = await capture(
    "/usr/bin/apt-get",
    ["-q", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3", ...args],
    { env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" } },
  );
  if (code === 0) return;
  say(output.trimEnd());
  throw new SetupError("setup-apt", `apt-get ${args.join(" ")} failed with exit code ${code}.`);
}

/** Version of an installed Debian package; undefined if it is not installed. @param {string} name */
export async function installedVersion(name) {
  if (!existsSync("/usr/bin/dpkg-query")) return undefined;
  // biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg-query has placeholders of its own.
  const format = "${db:Status-Status} ${Version}";
  const { code, stdout } = await capture("/usr/bin/dpkg-query", ["-W", `-f=${format}`, name]);
  const [status, version] = stdout.trim().split(" ");
  return code === 0 && status === "installed" ? version : undefined;
}

/**
 * Makes sure that apt knows Debian's backports; adds a source beside the ones there if not.
 * @returns {Promise<string>} the target release, such as `bookworm-backports`
 */
export async function ensureBackports() {
  const release = debianRelease();
  if (release === undefined) {
    throw new SetupError("setup-apt", "Backports exist for Debian only, and this is not Debian.");
  }
  const backports = `${release}-backports`;
  const sources = readSources();
  if (sources.some((text) => mentionsSuite(text, backports))) return backports;
  const stanza = backportsStanza(sources, release);
  if (stanza === undefined) {
    throw new SetupError(
      "setup-apt",
      `No source for ${release} was found in /etc/apt, so ${backports} cannot be added. ` +
        `Add ${backports} to apt's sources by hand.`,
    );
  }
  say(`Adding Debian backports to apt (${OWN_SOURCE}):\n${stanza.trimEnd().replace(/^/gm, "  ")}`);
  writeFileSync(OWN_SOURCE, stanza);
  updated = false;
  return backports;
}

/** Texts of apt's active source files. */
function readSources() {
  const files = existsSync("/etc/apt/sources.list") ? ["/etc/apt/sources.list"] : [];
  if (existsSync(SOURCES_FOLDER)) {
    const names = readdirSync(SOURCES_FOLDER).filter((name) => /\.(sources|list)$/.test(name));
    files.push(...names.sort().map((name) => join(SOURCES_FOLDER, name)));
  }
  return files.map((file) => readFileSync(file, "utf8"));
}

/** @param {string} text @param {string} suite */
function mentionsSuite(text, suite) {
  return withoutComments(text).split(/\s+/).includes(suite);
}

/** @param {string} text */
function withoutComments(text) {
  return text.replace(/^\s*#.*$\n?/gm, "");
}

/**
 * The deb822 source for a release's backports: same mirror and same keys as the release itself.
 * @param {readonly string[]} sources texts of apt's source files
 * @param {string} release
 * @returns {string | undefined}
 */
export function backportsStanza(sources, release) {
  for (const text of sources) {
    for (const stanza of withoutComments(text).split(/\n\s*\n/)) {
      const field = (/** @type {string} */ name) =>
        new RegExp(`^${name}:\\s*(.*)$`, "im").exec(stanza)?.[1]?.trim();
      if (!field("Suites")?.split(/\s+/).includes(release)) continue;
      const uri = field("URIs")?.split(/\s+/)[0];
      if (uri === undefined) continue;
      return writeStanza(uri, release, field("Signed-By"));
    }
    const line = new RegExp(`^deb\\s+(?:\\[([^\\]]*)\\]\\s+)?(\\S+)\\s+${release}\\s`, "m").exec(
      text,
    );
    if (line?.[2] !== undefined) {
      return writeStanza(line[2], release, /signed-by=(\S+)/.exec(line[1] ?? "")?.[1]);
    }
  }
  return undefined;
}

/**
 * @param {string} uri
 * @param {string} release
 * @param {string | undefined} signedBy
 */
function writeStanza(uri, release, signedBy) {
  const lines = ["Types: deb", `URIs: ${uri}`, `Suites: ${release}-backports`, "Components: main"];
  if (signedBy !== undefined) lines.push(`Signed-By: ${signedBy}`);
  return `${lines.join("\n")}\n`;
}
