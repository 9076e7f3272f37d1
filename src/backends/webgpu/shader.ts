import { invariant, QuireError } from "../../errors.ts";

// WGSL sources, as the bundler inlines them. Keys look like "../../../shaders/linear.wgsl".
const modules: Readonly<Record<string, string>> = import.meta.glob("../../../shaders/**/*.wgsl", {
  query: "?raw",
  import: "default",
  eager: true,
});
const ROOT = "../../../shaders/";

/** Values for `#if`, `#for` and `const` prologues of a shader. */
export type ShaderConstants = Readonly<Record<string, number>>;

/** Numbers that stand for `$v` in the lines of a `#for v`. */
type LoopVariables = Readonly<Record<string, number>>;

/**
 * Expands a shader file to WGSL. Lines that start with # are directives, nested at will:
 * - `#include "common/step.wgsl"`: that file, with the constants and loop variables of this place;
 * - `#if NAME` / `#else` / `#end`: by whether the constant is non-zero (absent = zero);
 * - `#for v NAME` / `#end`: the lines once for each v = 0..NAME-1, with `$v` replaced by the number.
 *   Unrolling in text keeps accumulators in registers: software adapters do not unroll loops,
 *   and some drivers take minutes over dynamically indexed private arrays.
 * Every constant also becomes a `const NAME = 123u;` line at the top.
 */
export function expandShader(file: string, constants: ShaderConstants): string {
  const prologue = Object.entries(constants).map(([name, value]) => `const ${name} = ${value}u;`);
  const lines = expandLines(sourceLines(file), constants, {}, file);
  return `${prologue.join("\n")}\n${lines.join("\n")}\n`;
}

function sourceLines(file: string): string[] {
  const source = modules[ROOT + file];
  invariant(source !== undefined, `There is no shader ${file}.`);
  return source.split("\n");
}

function expandLines(
  lines: readonly string[],
  constants: ShaderConstants,
  variables: LoopVariables,
  file: string,
): string[] {
  const out: string[] = [];
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i] ?? "";
    const [directive, name = "", countName = ""] = line.trim().split(/\s+/);
    if (directive === "#include") {
      const included = name.replaceAll('"', "");
      out.push(...expandLines(sourceLines(included), constants, variables, included));
    } else if (directive === "#if") {
      const { body, otherwise, end } = blockAt(lines, i, file);
      const chosen = (constants[name] ?? 0) !== 0 ? body : otherwise;
      out.push(...expandLines(chosen, constants, variables, file));
      i = end;
    } else if (directive === "#for") {
      const { body, end } = blockAt(lines, i, file);
      const count = constants[countName];
      invariant(count !== undefined, `${file}: #for needs the constant ${countName}.`);
      for (let value = 0; value < count; value++) {
        out.push(...expandLines(body, constants, { ...variables, [name]: value }, file));
      }
      i = end;
    } else {
      out.push(substitute(line, variables));
    }
  }
  return out;
}

function substitute(line: string, variables: LoopVariables): string {
  if (!line.includes("$")) return line;
  return line.replace(/\$([a-z])/g, (text, name: string) => String(variables[name] ?? text));
}

/** The lines between the directive at `start` and its `#end`, split at its `#else`. */
function blockAt(
  lines: readonly string[],
  start: number,
  file: string,
): { body: string[]; otherwise: string[]; end: number } {
  let depth = 0;
  let elseAt = -1;
  for (let i = start; i < lines.length; i++) {
    const word = (lines[i] ?? "").trim().split(/\s+/)[0];
    if (word === "#if" || word === "#for") depth++;
    if (word === "#else" && depth === 1) elseAt = i;
    if (word === "#end" && --depth === 0) {
      const bodyEnd = elseAt < 0 ? i : elseAt;
      return {
        body: lines.slice(start + 1, bodyEnd),
        otherwise: elseAt < 0 ? [] : lines.slice(elseAt + 1, i),
        end: i,
      };
    }
  }
  throw new QuireError("internal", `${file}:${start + 1}: a directive has no #end.`);
}
