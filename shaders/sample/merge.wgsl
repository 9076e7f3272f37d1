// The sampled token = the best of the chunks' best, ties to the lowest id. Hands it to the readback,
// to the slot's next step and, where penalties count output tokens, to the slot's counts.
// grid: ceil(numSamples / SAMPLE_WORKGROUP), a thread = one sample
#include "sample/common.wgsl"

@group(0) @binding(3) var<storage, read> chunkBest: array<vec2<u32>>;   // [maxSequences][NUM_CHUNKS]{f32 score, token}
@group(0) @binding(4) var<storage, read_write> results: array<u32>;     // [maxSequences] ids by sample, then logprob records
@group(0) @binding(5) var<storage, read_write> lastTokens: array<u32>;  // [maxSequences], by slot
@group(0) @binding(6) var<storage, read_write> tokenState: array<u32>;  // [maxSequences][VOCABULARY], by slot
// [maxSequences][VOCABULARY] f32, by sample. As bits: compilers may take it that every float is a finite number.
@group(0) @binding(7) var<storage, read> logits: array<u32>;

fn hasFiniteBits(bits: u32) -> bool {
  return (bits & 0x7f800000u) != 0x7f800000u;
}

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
  // Where no logit is finite, the winner's is not. The steps that follow need an id all the same.
  let token = min(bestToken, VOCABULARY - 1u);
  let slot = sampleSlot(sample);
  results[sample] = select(NO_TOKEN, token, hasFiniteBits(logits[sample * VOCABULARY + token]));
  lastTokens[slot] = token;
  if ((slotWord(slot, SLOT_FLAGS) & COUNT_FLAG) != 0u) {
    tokenState[slot * VOCABULARY + token] += 1u;
  }
}
