import { Environment, Interpreter, parse, tokenize } from "@huggingface/jinja";

/**
 * What a template may use up. The language has no endless loops, but templates come with model
 * files from anywhere, and nested loops and doubled strings are endless enough.
 */
const TEMPLATE_LIMITS = {
  /** Characters of the template. The largest known ones have 20,000. */
  sourceLength: 2 ** 18,
  /**
   * White space without anything between in the template. The library's search for a tag tries each
   * place of a run and looks on to its end: a run of 65,536 takes it seconds.
   */
  whiteSpaceRun: 1000,
  /** Characters of any string that the template makes, its output above all. */
  stringLength: 2 ** 24,
  /** Items of any list that the template makes. */
  listLength: 100_000,
  /** Nodes evaluated. A conversation of 1,000 messages takes about 50,000. */
  steps: 2_000_000,
  milliseconds: 2000,
} as const;

type Program = Parameters<Interpreter["run"]>[0];
type Value = ReturnType<Interpreter["evaluate"]>;

/** Parses a template. Throws the library's errors, which carry no line, and an error over the limit. */
export function parseTemplate(source: string): Program {
  const { sourceLength, whiteSpaceRun } = TEMPLATE_LIMITS;
  if (source.length > sourceLength) {
    throw new Error(`it has ${source.length} characters; the limit is ${sourceLength}`);
  }
  for (const [{ length }] of source.matchAll(/\s+/g)) {
    if (length > whiteSpaceRun) {
      throw new Error(
        `it has ${length} spaces or line ends in a row; the limit is ${whiteSpaceRun}`,
      );
    }
  }
  return parse(tokenize(source, { lstrip_blocks: true, trim_blocks: true }));
}

/** Renders a parsed template within the limits. Throws what the template raises. */
export function renderTemplate(program: Program, variables: Record<string, unknown>): string {
  const environment = new Environment();
  for (const [name, value] of Object.entries({ ...GLOBALS, ...variables })) {
    environment.set(name, value);
  }
  return String(new BoundedInterpreter(environment).run(program).value);
}

class BoundedInterpreter extends Interpreter {
  #steps = 0;
  readonly #deadline = performance.now() + TEMPLATE_LIMITS.milliseconds;

  override evaluate(...[node, environment]: Parameters<Interpreter["evaluate"]>): Value {
    if (++this.#steps > TEMPLATE_LIMITS.steps) {
      throw new Error(`it takes more than ${TEMPLATE_LIMITS.steps} steps`);
    }
    if (performance.now() > this.#deadline) {
      throw new Error(`it takes longer than ${TEMPLATE_LIMITS.milliseconds} ms`);
    }
    const result = super.evaluate(node, environment);
    const value: unknown = result.value;
    if (typeof value === "string" && value.length > TEMPLATE_LIMITS.stringLength) {
      throw new Error(`it makes a text of more than ${TEMPLATE_LIMITS.stringLength} characters`);
    }
    if (Array.isArray(value)) checkListLength(value.length);
    return result;
  }
}

function checkListLength(length: number): void {
  if (length <= TEMPLATE_LIMITS.listLength) return;
  throw new Error(`it makes a list of more than ${TEMPLATE_LIMITS.listLength} items`);
}

/** The names that chat templates expect beside their variables. */
const GLOBALS: Record<string, unknown> = {
  true: true,
  True: true,
  false: false,
  False: false,
  none: null,
  None: null,
  range,
  raise_exception: (message: unknown) => {
    throw new Error(String(message));
  },
  strftime_now: (format: unknown) => formatTime(String(format), new Date()),
};

function range(first: number, second?: number | null, third?: number | null): number[] {
  const [start, stop] = typeof second === "number" ? [first, second] : [0, first];
  const step = typeof third === "number" ? third : 1;
  if (![start, stop, step].every(Number.isInteger) || step === 0) {
    throw new Error("range() takes integers, and a step that is not 0");
  }
  const length = Math.max(0, Math.ceil((stop - start) / step));
  checkListLength(length);
  return Array.from({ length }, (_, i) => start + i * step);
}

/** The C directives that templates use to write today's date, in English and local time. */
function formatTime(format: string, now: Date): string {
  const name = (options: Intl.DateTimeFormatOptions) => now.toLocaleDateString("en-US", options);
  const two = (value: number) => String(value).padStart(2, "0");
  const directives: Record<string, () => string> = {
    Y: () => String(now.getFullYear()),
    y: () => two(now.getFullYear() % 100),
    m: () => two(now.getMonth() + 1),
    d: () => two(now.getDate()),
    B: () => name({ month: "long" }),
    b: () => name({ month: "short" }),
    A: () => name({ weekday: "long" }),
    a: () => name({ weekday: "short" }),
    H: () => two(now.getHours()),
    I: () => two(now.getHours() % 12 || 12),
    p: () => (now.getHours() < 12 ? "AM" : "PM"),
    M: () => two(now.getMinutes()),
    S: () => two(now.getSeconds()),
    "%": () => "%",
  };
  return format.replace(/%(.)/gs, (whole, letter: string) => directives[letter]?.() ?? whole);
}
