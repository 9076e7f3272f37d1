// Per chunk of the raw logits of samples that want log-probabilities: the best token and
//   sum of exp(x - best), in ascending order of tokens
// grid: (numChunks / WORKGROUP, numSamples), a thread = one chunk of one sample
#include "sample/common.wgsl"

@group(0) @binding(3) var<storage, read> logits: array<f32>;                 // [maxSequences][VOCABULARY], by sample
@group(0) @binding(4) var<storage, read_write> chunkSums: array<vec4<u32>>;  // [maxSequences][NUM_CHUNKS]{f32 best, token, f32 sum, -}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let sample = group.y;
  if ((slotWord(sampleSlot(sample), SLOT_FLAGS) & LOGPROBS_FLAG) == 0u) {
    return;
  }
  let chunk = group.x * WORKGROUP + lane;
  let first = firstToken(chunk);
  let end = endToken(chunk);
  let base = sample * VOCABULARY;
  var best = NO_VALUE;
  var bestToken = NO_TOKEN;
  for (var token = first; token < end; token += WORKGROUP) {
    let value = logits[base + token];
    if (value > best) {
      best = value;
      bestToken = token;
    }
  }
  var sum = 0.0;
  for (var token = first; token < end; token += WORKGROUP) {
    sum += exp(clamp(logits[base + token] - best, EXP_FLOOR, 0.0));
  }
  chunkSums[sample * NUM_CHUNKS + chunk] =
    vec4<u32>(bitcast<u32>(best), bestToken, bitcast<u32>(sum), 0u);
}
