// Log-probabilities of the raw logits, ln softmax(x)[i] = x[i] - max - ln(sum of exp(x - max)):
// the sampled or judged token's, then the numTop best tokens', best first, ties by lowest id.
// Of a score also the token's rank in that order, from 1.
// Each round takes the best of the groups of chunks, then renews that chunk's best (the next after
// the one taken) and its group's: GROUP_CHUNKS + CHUNK_TOKENS + numGroups reads a round.
// The loops' bounds come from the bindings' lengths: bounds that a compiler knows made one driver
// unroll all of it, which took it up to 40 s.
// grid: ceil(numPlaces / SAMPLE_WORKGROUP), a thread = one sample or score
#include "sample/common.wgsl"
#include "sample/report.wgsl"
#include "sample/log.wgsl"

@group(0) @binding(3) var<storage, read> logits: array<f32>;                 // [maxSequences][VOCABULARY], by place
@group(0) @binding(4) var<storage, read_write> results: array<u32>;          // [maxSequences] sampled ids, then [maxSequences][RECORD_WORDS] by place: {f32 logprob, rank, (token, f32 logprob) * MAX_TOP}
@group(0) @binding(5) var<storage, read_write> chunkSums: array<vec4<u32>>;  // [maxSequences][numChunks] by place: {f32 best, token, f32 sum, before}
@group(0) @binding(6) var<storage, read_write> groupBest: array<vec2<u32>>;  // [maxSequences][numGroups] by place: {f32 best, chunk}

fn numChunks() -> u32 {
  return arrayLength(&chunkSums) / MAX_SEQUENCES;
}

fn numGroups() -> u32 {
  return arrayLength(&groupBest) / MAX_SEQUENCES;
}

fn renewGroup(place: u32, group: u32) {
  let base = place * numChunks();
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
  groupBest[place * numGroups() + group] = vec2<u32>(best.x, bestChunk);
}

// The chunk's best token after the one that it had.
fn renewChunk(place: u32, chunk: u32) {
  let taken = chunkSums[place * numChunks() + chunk];
  let takenValue = bitcast<f32>(taken.x);
  var best = NO_VALUE;
  var bestToken = NO_TOKEN;
  let end = endToken(chunk);
  for (var token = firstToken(chunk); token < end; token += WORKGROUP) {
    let value = logits[place * VOCABULARY + token];
    if (value > best && isBetter(takenValue, taken.y, value, token)) {
      best = value;
      bestToken = token;
    }
  }
  chunkSums[place * numChunks() + chunk] = vec4<u32>(bitcast<u32>(best), bestToken, taken.zw);
}

@compute @workgroup_size(SAMPLE_WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let place = id.x;
  if (place >= numPlaces()) {
    return;
  }
  let report = reportOf(place);
  if (!report.isWanted) {
    return;
  }
  var best = NO_VALUE;
  for (var chunk = 0u; chunk < numChunks(); chunk++) {
    best = max(best, bitcast<f32>(chunkSums[place * numChunks() + chunk].x));
  }
  var sum = 0.0;
  var before = 0u;
  for (var chunk = 0u; chunk < numChunks(); chunk++) {
    let part = chunkSums[place * numChunks() + chunk];
    before += part.w;
    sum += bitcast<f32>(part.z) * exp(max(bitcast<f32>(part.x) - best, EXP_FLOOR));
  }
  let logSum = naturalLog(max(sum, 1.0e-30));

  let record = MAX_SEQUENCES + place * RECORD_WORDS;
  var token = report.token;
  if (!report.isScore) {
    token = results[place];
  }
  results[record] = bitcast<u32>(logits[place * VOCABULARY + token] - best - logSum);
  results[record + 1u] = before + 1u;

  if (report.numTop == 0u) {
    return;
  }
  for (var group = 0u; group < numGroups(); group++) {
    renewGroup(place, group);
  }
  for (var rank = 0u; rank < report.numTop; rank++) {
    var bestGroup = 0u;
    var bestValue = NO_VALUE;
    var bestToken = NO_TOKEN;
    for (var group = 0u; group < numGroups(); group++) {
      let candidate = groupBest[place * numGroups() + group];
      let value = bitcast<f32>(candidate.x);
      let token = chunkSums[place * numChunks() + candidate.y].y;
      if (isBetter(value, token, bestValue, bestToken)) {
        bestValue = value;
        bestToken = token;
        bestGroup = group;
      }
    }
    results[record + 2u + rank * 2u] = bestToken;
    results[record + 3u + rank * 2u] = bitcast<u32>(bestValue - best - logSum);
    renewChunk(place, groupBest[place * numGroups() + bestGroup].y);
    renewGroup(place, bestGroup);
  }
}
