/** A diagram, as data. */
export interface Plot {
  /** File name without its ending. */
  readonly name: string;
  readonly title: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly kind: PlotKind;
}

export type PlotKind =
  | {
      readonly type: "lines";
      readonly series: readonly Series[];
      readonly logX?: boolean;
      readonly yMax?: number;
    }
  | {
      readonly type: "stacks";
      /** One bar each. */
      readonly bars: readonly string[];
      /** One value for each bar; stacked in this order. */
      readonly parts: readonly { readonly name: string; readonly values: readonly number[] }[];
    };

export interface Series {
  readonly name: string;
  readonly points: readonly (readonly [x: number, y: number])[];
}

const WIDTH = 720;
const HEIGHT = 420;
const MARGIN = { left: 64, right: 150, top: 40, bottom: 52 };
const INNER_WIDTH = WIDTH - MARGIN.left - MARGIN.right;
const INNER_HEIGHT = HEIGHT - MARGIN.top - MARGIN.bottom;

/** Colours that people with colour blindness can tell apart (Okabe and Ito), then greys. */
const COLOURS = [
  "#0072b2",
  "#e69f00",
  "#009e73",
  "#d55e00",
  "#cc79a7",
  "#56b4e9",
  "#7f6b00",
  "#555555",
  "#999999",
];

/** What counts as equal when ticks are chosen. */
const ROUNDING = 1e-6;

/** Maps a value to pixels. */
type Scale = (value: number) => number;

/** The diagram as an SVG document. */
export function renderPlot(plot: Plot): string {
  const body = plot.kind.type === "lines" ? renderLines(plot.kind) : renderStacks(plot.kind);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="12">`,
    `<title>${escapeText(plot.title)}</title>`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="white"/>`,
    `<clipPath id="inside"><rect x="${MARGIN.left - 4}" y="${MARGIN.top - 4}" width="${INNER_WIDTH + 8}" height="${INNER_HEIGHT + 8}"/></clipPath>`,
    text(MARGIN.left, 22, plot.title, 'font-size="15"'),
    text(MARGIN.left + INNER_WIDTH / 2, HEIGHT - 12, plot.xLabel, 'text-anchor="middle"'),
    text(
      0,
      0,
      plot.yLabel,
      `text-anchor="middle" transform="translate(16 ${MARGIN.top + INNER_HEIGHT / 2}) rotate(-90)"`,
    ),
    ...body,
    "</svg>",
    "",
  ].join("\n");
}

function renderLines({ series, logX, yMax }: Extract<PlotKind, { type: "lines" }>): string[] {
  const all = series.flatMap(({ points }) => points.filter(isFinitePoint));
  const xs = all.map(([x]) => x);
  const top = yMax ?? Math.max(...all.map(([, y]) => y));
  const yTicks = ticks(0, top);
  const y = linear(0, yMax ?? yTicks.at(-1)!, MARGIN.top + INNER_HEIGHT, MARGIN.top);
  const [low, high] = [Math.min(...xs), Math.max(...xs)];
  const xTicks = logX ? powers(low, high) : ticks(0, high);
  const right = MARGIN.left + INNER_WIDTH;
  const x = logX
    ? linear(Math.log2(low), Math.log2(high), MARGIN.left, right)
    : linear(0, xTicks.at(-1)!, MARGIN.left, right);
  const place = (value: number) => x(logX ? Math.log2(value) : value);
  return [
    ...yAxis(
      yTicks.filter((tick) => tick <= (yMax ?? tick)),
      y,
    ),
    ...xTicks.map((tick) =>
      text(place(tick), MARGIN.top + INNER_HEIGHT + 18, label(tick), 'text-anchor="middle"'),
    ),
    ...series.flatMap(({ name, points }, i) => {
      const colour = COLOURS[i % COLOURS.length]!;
      const drawn = points.filter(isFinitePoint).map(([px, py]) => [place(px), y(py)] as const);
      const path = drawn.map(([px, py]) => `${px.toFixed(1)},${py.toFixed(1)}`).join(" ");
      return [
        `<g clip-path="url(#inside)">`,
        `<polyline points="${path}" fill="none" stroke="${colour}" stroke-width="2"/>`,
        ...drawn.map(
          ([px, py]) =>
            `<circle cx="${px.toFixed(1)}" cy="${py.toFixed(1)}" r="3" fill="${colour}"/>`,
        ),
        "</g>",
        ...legend(i, name, colour),
      ];
    }),
  ];
}

function renderStacks({ bars, parts }: Extract<PlotKind, { type: "stacks" }>): string[] {
  const totals = bars.map((_, i) => parts.reduce((sum, { values }) => sum + values[i]!, 0));
  const yTicks = ticks(0, Math.max(...totals));
  const y = linear(0, yTicks.at(-1)!, MARGIN.top + INNER_HEIGHT, MARGIN.top);
  const pitch = INNER_WIDTH / bars.length;
  const heights = bars.map(() => 0);
  const boxes = parts.flatMap(({ values }, part) =>
    values.map((value, bar) => {
      const from = heights[bar]!;
      heights[bar] = from + value;
      const left = MARGIN.left + (bar + 0.2) * pitch;
      const height = (y(from) - y(from + value)).toFixed(1);
      return `<rect x="${left.toFixed(1)}" y="${y(from + value).toFixed(1)}" width="${(0.6 * pitch).toFixed(1)}" height="${height}" fill="${COLOURS[part % COLOURS.length]}"/>`;
    }),
  );
  return [
    ...yAxis(yTicks, y),
    ...boxes,
    ...bars.map((name, i) =>
      text(
        MARGIN.left + (i + 0.5) * pitch,
        MARGIN.top + INNER_HEIGHT + 18,
        name,
        'text-anchor="middle"',
      ),
    ),
    ...parts.flatMap(({ name }, i) => legend(i, name, COLOURS[i % COLOURS.length]!)),
  ];
}

function yAxis(values: readonly number[], y: Scale): string[] {
  const right = MARGIN.left + INNER_WIDTH;
  return values.flatMap((value) => [
    `<line x1="${MARGIN.left}" x2="${right}" y1="${y(value).toFixed(1)}" y2="${y(value).toFixed(1)}" stroke="#dddddd"/>`,
    text(MARGIN.left - 6, y(value) + 4, label(value), 'text-anchor="end"'),
  ]);
}

function legend(index: number, name: string, colour: string): string[] {
  const left = MARGIN.left + INNER_WIDTH + 14;
  const top = MARGIN.top + 8 + index * 20;
  return [
    `<rect x="${left}" y="${top - 9}" width="12" height="12" fill="${colour}"/>`,
    text(left + 18, top + 2, name, ""),
  ];
}

function text(x: number, y: number, content: string, attributes: string): string {
  const place = attributes.includes("transform") ? "" : `x="${x.toFixed(1)}" y="${y.toFixed(1)}" `;
  return `<text ${place}${attributes}>${escapeText(content)}</text>`;
}

function escapeText(content: string): string {
  return content.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

function isFinitePoint([x, y]: readonly [number, number]): boolean {
  return Number.isFinite(x) && Number.isFinite(y);
}

function linear(from: number, to: number, low: number, high: number): Scale {
  const span = to - from || 1;
  return (value) => low + ((value - from) / span) * (high - low);
}

/** Round values from `low` to `high` or just above. */
export function ticks(low: number, high: number): number[] {
  const raw = (high - low || 1) / 5;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step =
    ([1, 2, 5, 10].find((factor) => factor * power >= raw * (1 - ROUNDING)) ?? 10) * power;
  const count = Math.max(1, Math.ceil((high - low) / step - ROUNDING));
  return Array.from({ length: count + 1 }, (_, i) => Number((low + i * step).toPrecision(12)));
}

/** Powers of two in the range. */
function powers(low: number, high: number): number[] {
  const first = Math.ceil(Math.log2(low));
  const count = Math.floor(Math.log2(high)) - first + 1;
  return Array.from({ length: Math.max(1, count) }, (_, i) => 2 ** (first + i));
}

function label(value: number): string {
  return String(Number(value.toPrecision(6)));
}
