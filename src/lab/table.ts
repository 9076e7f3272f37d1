import { type ExperimentResult, isMet, type Row } from "./experiment.ts";

const HEADER = ["system", "metric", "case", "paper", "ours", "unit", "target"];

/** An experiment's result as text for a terminal: a table and its notes. */
export function formatResult(id: string, title: string, result: ExperimentResult): string {
  const cells = [HEADER, ...result.rows.map(cellsOf)];
  const widths = HEADER.map((_, i) => Math.max(...cells.map((line) => line[i]!.length)));
  const lines = cells.map((line) =>
    line
      .map((cell, i) => (isNumeric(i) ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)))
      .join("  ")
      .trimEnd(),
  );
  lines.splice(1, 0, widths.map((width) => "-".repeat(width)).join("  "));
  const notes = result.notes.map((note) => `  ${note}`);
  return [`${id}  ${title}`, "", ...lines, ...(notes.length > 0 ? ["", ...notes] : []), ""].join(
    "\n",
  );
}

function isNumeric(column: number): boolean {
  return HEADER[column] === "paper" || HEADER[column] === "ours";
}

function cellsOf(row: Row): string[] {
  const paper = row.paper === null ? "" : `${formatNumber(row.paper)}${mark(row)}`;
  const { system, metric, unit } = row;
  return [system, metric, row.case, paper, formatNumber(row.ours), unit, targetOf(row)];
}

/** `*`: from memory; `~`: simulated by others. */
function mark({ source }: Row): string {
  if (source === "memory") return "*";
  return source === "simulated" ? "~" : " ";
}

function targetOf(row: Row): string {
  const { target } = row;
  if (target === undefined) return "";
  const bounds = [
    target.min === undefined ? "" : `>= ${formatNumber(target.min)}`,
    target.max === undefined ? "" : `<= ${formatNumber(target.max)}`,
  ];
  return `${bounds.filter((bound) => bound !== "").join(", ")} ${isMet(row) ? "met" : "MISSED"}`;
}

/** Three significant digits, or all digits before the point. */
export function formatNumber(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  const magnitude = Math.abs(value);
  if (magnitude >= 1000) return Math.round(value).toString();
  if (magnitude >= 100) return value.toFixed(1);
  if (magnitude >= 10) return value.toFixed(2);
  return Number(value.toPrecision(3)).toString();
}
