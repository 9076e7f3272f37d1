// blockTables[slot][index] = block for the entries that the step appends
//
// grid: (ceil(entries / 64))
#include "common/step.wgsl"

@group(0) @binding(2) var<storage, read_write> blockTables: array<u32>; // [maxSequences][blocks a sequence]

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= header.numEntries) { return; }
  let at = header.entriesAt + id.x * 2u;
  blockTables[step[at]] = step[at + 1u];
}
