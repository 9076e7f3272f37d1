// The sampled token = the best of the chunks' best, ties to the lowest id. Hands it to the readback,
// to the slot's next step and, where penalties count output tokens, to the slot's counts.
// grid: ceil(numSamples / SAMPLE_WORKGROUP), a thread = one sample
#include "sample/common.wgsl"

@group(0) @binding(3) var<storage, read> chunkBest: array<vec2<u32>>;   // [maxSequences][NUM_CHUNKS]{f32 score, token}
@group(0) @binding(4) var<storage, read_write> results: array<u32>;     // [maxSequences] ids by sample, then logprob records
@group(0) @binding(5) var<storage, read_write> lastTokens: array<u32>;  // [maxSequences], by slot
@group(0) @binding(6) var<storage, read_write> tokenState: array<u32>;  // [maxSequences][VOCABULARY], by slot

@compute @workgroup_size(SAMPLE_WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let sample = id.x;
  if (sample >= numSamples()) {
    return;
  }
  var best = NO_VALUE;
  var bestToken = NO_TOKEN;
  for (var chunk = 0u; chunk < NUM_CHUNKS; chunk++) {
    let candidate = chunkBest[sample * NUM_CHUNKS + chunk];
    let score = bitcast<f32>(candidate.x);
    if (isBetter(score, candidate.y, best, bestToken)) {
      best = score;
      bestToken = candidate.y;
    }
  }
  // Nothing but NaN would leave no winner; an id must come out all the same.
  let token = min(bestToken, VOCABULARY - 1u);
  let slot = sampleSlot(sample);
  results[sample] = token;
  lastTokens[slot] = token;
  if ((slotWord(slot, SLOT_FLAGS) & COUNT_FLAG) != 0u) {
    tokenState[slot * VOCABULARY + token] += 1u;
  }
}
