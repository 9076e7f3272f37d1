import type { RopeSpec } from "../ops.ts";

/** (cos, sin) of every position and frequency, [positions][frequencies][2], computed in float64. */
export function rotationTable(rope: RopeSpec, numPositions: number): Float32Array<ArrayBuffer> {
  const { frequencies, magnitude } = rope;
  const table = new Float32Array(numPositions * frequencies.length * 2);
  let at = 0;
  for (let position = 0; position < numPositions; position++) {
    for (const frequency of frequencies) {
      table[at++] = Math.cos(position * frequency) * magnitude;
      table[at++] = Math.sin(position * frequency) * magnitude;
    }
  }
  return table;
}
