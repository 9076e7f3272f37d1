// What a step uploads: a header of word offsets and, in the same buffer, the lists that they point to.
// Written by src/backends/webgpu/stepBuffer.ts.
struct StepHeader {
  numRows: u32,
  numSamples: u32,
  rowsAt: u32, // {slot, token, position, kvSlot}
  samplesAt: u32, // {row, slot, position, 0} * numSamples, then {row, token, top, 1} of the scores
  numItems: u32,
  itemsAt: u32, // {row, firstPosition, endPosition, partial}
  numEntries: u32,
  entriesAt: u32, // {index in blockTables, block}
  numMerges: u32,
  mergesAt: u32, // {row, firstPartial, numPartials, 0}
  numLogits: u32, // samples and scores: rows whose logits are computed
  numCopies: u32,
  copiesAt: u32, // {source block, target block}
}

@group(0) @binding(0) var<uniform> header: StepHeader;
@group(0) @binding(1) var<storage, read> step: array<u32>;
