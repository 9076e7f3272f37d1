import { existsSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve, sep } from "node:path";

/**
 * A part of the system and what it may import.
 * @typedef {object} Part
 * @property {string} path folder (ending in `/`) or file, relative to the root
 * @property {readonly string[]} mayImport folders and files beside its own; `?worker` in a name means that only the bundled script may be taken
 * @property {readonly string[]} packages npm packages
 */

/** Everybody may import it. */
const SHARED = "src/errors.ts";

/**
 * Who may import what: imports point down this list only. A file belongs to the part with the
 * longest matching path.
 * @type {readonly Part[]}
 */
export const PARTS = [
  { path: "src/index.ts", mayImport: ["src/client/"], packages: [] },
  { path: "src/adapters/", mayImport: ["src/client/"], packages: [] },
  {
    path: "src/client/",
    mayImport: ["src/worker/protocol.ts", "src/worker/entry.ts?worker"],
    packages: ["comlink"],
  },
  {
    // What crosses is made of the types of the parts below; the client may not reach them itself.
    path: "src/worker/",
    mayImport: ["src/model/", "src/backends/", "src/engine/", "src/weights/", "src/text/"],
    packages: ["comlink"],
  },
  { path: "src/lab/", mayImport: ["src/engine/"], packages: [] },
  { path: "src/model/", mayImport: ["src/backends/ops.ts", "src/weights/"], packages: [] },
  { path: "src/backends/ops.ts", mayImport: ["src/engine/", "src/weights/"], packages: [] },
  { path: "src/backends/slotRecord.ts", mayImport: ["src/engine/"], packages: [] },
  {
    path: "src/backends/reachableContext.ts",
    mayImport: ["src/backends/ops.ts"],
    packages: [],
  },
  {
    path: "src/backends/webgpu/",
    mayImport: [
      "src/backends/ops.ts",
      "src/backends/reachableContext.ts",
      "src/backends/slotRecord.ts",
      "src/engine/",
      "src/weights/",
      "shaders/",
    ],
    packages: ["idb-keyval"],
  },
  {
    path: "src/backends/wasm/",
    mayImport: [
      "src/backends/ops.ts",
      "src/backends/reachableContext.ts",
      "src/backends/slotRecord.ts",
      "src/engine/",
      "src/weights/",
    ],
    packages: ["virtual:quire-wasm-kernels"],
  },
  {
    // Run by the build, which makes the virtual module of them: nothing may import them.
    path: "src/backends/wasm/kernels/",
    mayImport: [
      "src/backends/wasm/",
      "src/backends/ops.ts",
      "src/backends/slotRecord.ts",
      "src/engine/",
    ],
    packages: ["wasmati"],
  },
  {
    path: "src/backends/reference/",
    mayImport: [
      "src/backends/ops.ts",
      "src/backends/reachableContext.ts",
      "src/engine/",
      "src/weights/",
    ],
    packages: [],
  },
  { path: "src/engine/", mayImport: [], packages: [] },
  { path: "src/weights/", mayImport: [], packages: ["idb-keyval"] },
  {
    path: "src/text/",
    mayImport: [],
    packages: ["@huggingface/jinja", "@huggingface/tokenizers"],
  },
  { path: "src/errors.ts", mayImport: [], packages: [] },
  {
    path: "demo/",
    mayImport: ["dist/"],
    packages: ["quire", "preact", "@preact/signals", "marked", "dompurify", "vite"],
  },
];

/**
 * One import, export-from, dynamic import or import type.
 * @typedef {object} Import
 * @property {string} from the importing file, relative to the root
 * @property {string} specifier as written
 * @property {number} line from 1
 */

/**
 * @param {typeof import("typescript")} ts
 * @param {string} file relative to the root, for the results
 * @param {string} text
 * @returns {Import[]}
 */
export function listImports(ts, file, text) {
  const kind = /\.[jt]sx$/.test(file) ? ts.ScriptKind.TSX : ts.ScriptKind.TS;
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest, false, kind);
  /** @type {Import[]} */
  const imports = [];
  /** @param {import("typescript").Node | undefined} name @param {import("typescript").Node} node */
  const add = (name, node) => {
    if (name === undefined || !ts.isStringLiteralLike(name)) return;
    const line = source.getLineAndCharacterOfPosition(node.getStart(source)).line + 1;
    imports.push({ from: file, specifier: name.text, line });
  };
  /** @param {import("typescript").Node} node */
  const visit = (node) => {
    if (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) {
      add(node.moduleSpecifier, node);
    } else if (ts.isImportTypeNode(node) && ts.isLiteralTypeNode(node.argument)) {
      add(node.argument.literal, node);
    } else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      add(node.arguments[0], node);
    } else if (isModuleUrl(ts, node) || isModuleGlob(ts, node)) {
      add(node.arguments?.[0], node);
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  return imports;
}

/**
 * `new URL("./x.ts", import.meta.url)` loads a file as an import does.
 * @param {typeof import("typescript")} ts
 * @param {import("typescript").Node} node
 * @returns {node is import("typescript").NewExpression}
 */
function isModuleUrl(ts, node) {
  if (!ts.isNewExpression(node) || !ts.isIdentifier(node.expression)) return false;
  const base = node.arguments?.[1];
  return (
    node.expression.text === "URL" &&
    base !== undefined &&
    ts.isPropertyAccessExpression(base) &&
    base.name.text === "url" &&
    ts.isMetaProperty(base.expression)
  );
}

/**
 * `import.meta.glob("./folder/*.x")` imports every file that matches.
 * @param {typeof import("typescript")} ts
 * @param {import("typescript").Node} node
 * @returns {node is import("typescript").CallExpression}
 */
function isModuleGlob(ts, node) {
  return (
    ts.isCallExpression(node) &&
    ts.isPropertyAccessExpression(node.expression) &&
    node.expression.name.text === "glob" &&
    ts.isMetaProperty(node.expression.expression)
  );
}

/**
 * What an import points at, relative to the root; undefined for packages.
 * @param {string} root
 * @param {Import} found
 */
function targetOf(root, { from, specifier }) {
  if (!/^\.{0,2}\//.test(specifier)) return undefined;
  const path = specifier.replace(/\?.*$/, "");
  const absolute = path.startsWith("/") ? join(root, path) : resolve(root, dirname(from), path);
  return relative(root, absolute).split(sep).join("/");
}

/** @param {string} specifier */
function packageName(specifier) {
  const parts = specifier.replace(/\?.*$/, "").split("/");
  return parts.slice(0, specifier.startsWith("@") ? 2 : 1).join("/");
}

/** @param {string} path @param {string} place folder ending in `/`, or file */
function lies(path, place) {
  return place.endsWith("/") ? path.startsWith(place) : path === place;
}

/** @param {string} path @param {readonly Part[]} parts */
function partOf(path, parts) {
  return parts
    .filter((part) => lies(path, part.path))
    .sort((a, b) => b.path.length - a.path.length)[0];
}

/** Tests and their helpers (`*.test.ts`, `testing/`) may import anything. @param {string} path */
function isTest(path) {
  return /\.test\.[jt]sx?$|(^|\/)testing\//.test(path);
}

/**
 * Checks that imports point down the list, and that nothing but tests imports what is for tests.
 * @param {string} root
 * @param {readonly string[]} files relative to the root
 * @param {typeof import("typescript")} ts
 * @param {readonly Part[]} [parts]
 * @returns {string[]} what is wrong, one line each
 */
export function checkImports(root, files, ts, parts = PARTS) {
  /** @type {string[]} */
  const faults = [];
  /** @type {Map<string, string[]>} */
  const graph = new Map();
  for (const file of files) {
    if (isTest(file)) continue;
    const part = partOf(file, parts);
    if (part === undefined) {
      faults.push(`${file}: belongs to no part; add its folder to the table of the import check`);
      continue;
    }
    /** @type {string[]} */
    const targets = [];
    graph.set(file, targets);
    for (const found of listImports(ts, file, readFileSync(join(root, file), "utf8"))) {
      const target = targetOf(root, found);
      const place = `${file}:${found.line}`;
      if (target === undefined) {
        if (!part.packages.includes(packageName(found.specifier))) {
          faults.push(`${place}: ${part.path} may not import the package ${found.specifier}`);
        }
        continue;
      }
      const asWorker = /\?.*\bworker\b/.test(found.specifier);
      if (!asWorker) targets.push(target);
      const allowed =
        target === SHARED ||
        (!isTest(target) && partOf(target, parts) === part) ||
        part.mayImport.some((may) => lies(asWorker ? `${target}?worker` : target, may));
      if (!allowed) faults.push(`${place}: ${part.path} may not import ${target}`);
      else if (target.startsWith("src/") && !existsSync(join(root, target))) {
        faults.push(`${place}: ${found.specifier} does not exist`);
      }
    }
  }
  return [...faults, ...findCircles(graph).map((circle) => `circle: ${circle.join(" -> ")}`)];
}

/**
 * Circles of imports, each once, as the files along it with the first one repeated at the end.
 * @param {ReadonlyMap<string, readonly string[]>} graph
 * @returns {string[][]}
 */
export function findCircles(graph) {
  /** @type {string[][]} */
  const circles = [];
  const done = new Set();
  /** @type {string[]} */
  const path = [];
  /** @param {string} node */
  const walk = (node) => {
    const at = path.indexOf(node);
    if (at >= 0) circles.push([...path.slice(at), node]);
    if (at >= 0 || done.has(node)) return;
    path.push(node);
    for (const next of graph.get(node) ?? []) walk(next);
    path.pop();
    done.add(node);
  };
  for (const node of graph.keys()) walk(node);
  return circles;
}
