// What all sampling kernels share: the step's samples, the slots' records, and orders on logits.
// A slot's record is packed by slotRecord.ts, which also names the SLOT_* words and *_FLAG bits.

struct StepHeader {
  counts: vec4<u32>,   // numRows, numSamples, rowsAt, samplesAt
  offsets: vec4<u32>,  // numItems, itemsAt, numEntries, entriesAt
  more: vec4<u32>,     // numMerges, mergesAt, numLogits, -
}

@group(0) @binding(0) var<uniform> header: StepHeader;
@group(0) @binding(1) var<storage, read> stepWords: array<u32>;    // at samplesAt: [numSamples]{row, slot, position, 0}, [numScores]{row, token, top, 1}
@group(0) @binding(2) var<storage, read> slotRecords: array<u32>;  // [maxSequences][SLOT_WORDS]

// Below every score; finite, since WGSL need not honour infinities.
const NO_VALUE = -3.4e38;
// An id that no token has.
const NO_TOKEN = 0xffffffffu;
// Logits are held to +-LOGIT_LIMIT, so that no product with an inverse temperature overflows.
const LOGIT_LIMIT = 1.0e8;
// exp's arguments are held above this: exp(-80) is nothing beside 1, and far from denormals.
const EXP_FLOOR = -80.0;

fn numSamples() -> u32 {
  return header.counts.y;
}

fn sampleSlot(sample: u32) -> u32 {
  return stepWords[header.counts.w + sample * 4u + 1u];
}

fn samplePosition(sample: u32) -> u32 {
  return stepWords[header.counts.w + sample * 4u + 2u];
}

fn slotWord(slot: u32, word: u32) -> u32 {
  return slotRecords[slot * SLOT_WORDS + word];
}

fn slotFloat(slot: u32, word: u32) -> f32 {
  return bitcast<f32>(slotRecords[slot * SLOT_WORDS + word]);
}

// Tokens are dealt to chunks so that the lanes of a workgroup read neighbours:
// chunk = group * WORKGROUP + lane holds the tokens firstToken + i * WORKGROUP, i < CHUNK_TOKENS.
fn firstToken(chunk: u32) -> u32 {
  return (chunk / WORKGROUP) * (WORKGROUP * CHUNK_TOKENS) + chunk % WORKGROUP;
}

fn endToken(chunk: u32) -> u32 {
  return min(VOCABULARY, firstToken(chunk) + WORKGROUP * CHUNK_TOKENS);
}

// True if (value, token) comes before (otherValue, otherToken): larger values first, ties by lowest id.
fn isBetter(value: f32, token: u32, otherValue: f32, otherToken: u32) -> bool {
  return value > otherValue || (value == otherValue && token < otherToken);
}

// A u32 in the order of the floats; -0 and +0 are one.
fn orderKey(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  if (bits == 0x80000000u) {
    return 0x80000000u;
  }
  return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}
