import { expect, test } from "vitest";
import { parseTemplate, renderTemplate } from "./templateInterpreter.ts";

test.each([
  ["spaces", " ".repeat(1001)],
  ["line ends", "\n".repeat(1001)],
  ["both, and wide ones", " \t\r\n\u3000".repeat(50_000)],
  ["spaces inside a tag", `{%${" ".repeat(1001)}if true %}{% endif %}`],
])("a template with too many %s in a row is refused at once", (_, source) => {
  const start = performance.now();
  expect(() => parseTemplate(`a${source}b`)).toThrow(/in a row; the limit is 1000/);
  expect(performance.now() - start).toBeLessThan(500);
});

test("white space takes the library bounded time within the limits", () => {
  const run = " ".repeat(1000);
  // The worst there is: the library looks from each place of the first run to the second one's end.
  const source = `${run}{%${run}x%}`.repeat(130);
  const start = performance.now();
  expect(() => parseTemplate(source)).toThrow(/Unknown statement type/);
  expect(performance.now() - start).toBeLessThan(5000);
});

test("usual indentation is no matter", () => {
  const lines = "\n".repeat(20) + " ".repeat(200);
  const program = parseTemplate(`a{%- if true -%}${lines}b${lines}{%- endif -%}`);
  expect(renderTemplate(program, {})).toBe("ab");
});
