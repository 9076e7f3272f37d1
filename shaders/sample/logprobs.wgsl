// Log-probabilities of the raw logits, ln softmax(x)[i] = x[i] - max - ln(sum of exp(x - max)):
// the sampled token's, then the numTop best tokens', best first, ties by lowest id.
// Each round takes the best of the groups of chunks, then renews that chunk's best (the next after
// the one taken) and its group's: GROUP_CHUNKS + CHUNK_TOKENS + numGroups reads a round.
// The loops' bounds come from the bindings' lengths: bounds that a compiler knows made one driver
// unroll all of it, which took it up to 40 s.
// grid: ceil(numSamples / SAMPLE_WORKGROUP), a thread = one sample
#include "sample/common.wgsl"
#include "sample/log.wgsl"

@group(0) @binding(3) var<storage, read> logits: array<f32>;                 // [maxSequences][VOCABULARY], by sample
@group(0) @binding(4) var<storage, read_write> results: array<u32>;          // [maxSequences] ids, then [maxSequences][RECORD_WORDS]{f32 logprob, (token, f32 logprob) * MAX_TOP}
@group(0) @binding(5) var<storage, read_write> chunkSums: array<vec4<u32>>;  // [maxSequences][numChunks]{f32 best, token, f32 sum, -}
@group(0) @binding(6) var<storage, read_write> groupBest: array<vec2<u32>>;  // [maxSequences][numGroups]{f32 best, chunk}

fn numChunks() -> u32 {
  return arrayLength(&chunkSums) / MAX_SEQUENCES;
}

fn numGroups() -> u32 {
  return arrayLength(&groupBest) / MAX_SEQUENCES;
}

fn renewGroup(sample: u32, group: u32) {
  let base = sample * numChunks();
  let end = min(numChunks(), (group + 1u) * GROUP_CHUNKS);
  var bestChunk = group * GROUP_CHUNKS;
  var best = chunkSums[base + bestChunk].xy;
  for (var chunk = bestChunk + 1u; chunk < end; chunk++) {
    let candidate = chunkSums[base + chunk].xy;
    if (isBetter(bitcast<f32>(candidate.x), candidate.y, bitcast<f32>(best.x), best.y)) {
      best = candidate;
      bestChunk = chunk;
    }
  }
  groupBest[sample * numGroups() + group] = vec2<u32>(best.x, bestChunk);
}

// The chunk's best token after the one that it had.
fn renewChunk(sample: u32, chunk: u32) {
  let taken = chunkSums[sample * numChunks() + chunk];
  let takenValue = bitcast<f32>(taken.x);
  var best = NO_VALUE;
  var bestToken = NO_TOKEN;
  let end = endToken(chunk);
  for (var token = firstToken(chunk); token < end; token += WORKGROUP) {
    let value = logits[sample * VOCABULARY + token];
    if (value > best && isBetter(takenValue, taken.y, value, token)) {
      best = value;
      bestToken = token;
    }
  }
  chunkSums[sample * numChunks() + chunk] = vec4<u32>(bitcast<u32>(best), bestToken, taken.zw);
}

@compute @workgroup_size(SAMPLE_WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let sample = id.x;
  if (sample >= numSamples()) {
    return;
  }
  let slot = sampleSlot(sample);
  if ((slotWord(slot, SLOT_FLAGS) & LOGPROBS_FLAG) == 0u) {
    return;
  }
  var best = NO_VALUE;
  for (var chunk = 0u; chunk < numChunks(); chunk++) {
    best = max(best, bitcast<f32>(chunkSums[sample * numChunks() + chunk].x));
  }
  var sum = 0.0;
  for (var chunk = 0u; chunk < numChunks(); chunk++) {
    let part = chunkSums[sample * numChunks() + chunk];
    sum += bitcast<f32>(part.z) * exp(max(bitcast<f32>(part.x) - best, EXP_FLOOR));
  }
  let logSum = naturalLog(max(sum, 1.0e-30));

  let record = MAX_SEQUENCES + sample * RECORD_WORDS;
  let sampled = results[sample];
  results[record] = bitcast<u32>(logits[sample * VOCABULARY + sampled] - best - logSum);

  let numTop = slotWord(slot, SLOT_NUM_TOP);
  if (numTop == 0u) {
    return;
  }
  for (var group = 0u; group < numGroups(); group++) {
    renewGroup(sample, group);
  }
  for (var rank = 0u; rank < numTop; rank++) {
    var bestGroup = 0u;
    var bestValue = NO_VALUE;
    var bestToken = NO_TOKEN;
    for (var group = 0u; group < numGroups(); group++) {
      let candidate = groupBest[sample * numGroups() + group];
      let value = bitcast<f32>(candidate.x);
      let token = chunkSums[sample * numChunks() + candidate.y].y;
      if (isBetter(value, token, bestValue, bestToken)) {
        bestValue = value;
        bestToken = token;
        bestGroup = group;
      }
    }
    results[record + 1u + rank * 2u] = bestToken;
    results[record + 2u + rank * 2u] = bitcast<u32>(bestValue - best - logSum);
    renewChunk(sample, groupBest[sample * numGroups() + bestGroup].y);
    renewGroup(sample, bestGroup);
  }
}
