// scaled[s, i] = penalised(logits[s, i] + bias[i]) / temperature, for the samples with ADJUST_FLAG
//   penalised(x) = (x > 0 ? x / r : x * r) - f * count[i] - p * (count[i] > 0)
//   r = repetition (tokens of prompt or output only), f = frequency, p = presence penalty
// Also the largest scaled logit of each chunk. Later kernels compare these very bits.
// grid: (numChunks / WORKGROUP, numSamples), a thread = one chunk of one sample
#include "sample/common.wgsl"

@group(0) @binding(3) var<storage, read> logits: array<f32>;            // [maxSequences][VOCABULARY], by sample
@group(0) @binding(4) var<storage, read> tokenState: array<u32>;        // [maxSequences][VOCABULARY], by slot: IN_PROMPT | HAS_BIAS | output count
@group(0) @binding(5) var<storage, read> biases: array<vec2<u32>>;      // [maxSequences][MAX_BIAS]{id, f32 bias}, by slot, ids ascending
@group(0) @binding(6) var<storage, read_write> scaled: array<f32>;      // [maxSequences][VOCABULARY], by sample
@group(0) @binding(7) var<storage, read_write> chunkBest: array<vec2<u32>>;  // [maxSequences][NUM_CHUNKS]{f32 value, token}

// The bias of a token that is known to be in the slot's list.
fn biasOf(slot: u32, token: u32) -> f32 {
  var low = slot * MAX_BIAS;
  var high = low + slotWord(slot, SLOT_NUM_BIASES);
  while (low + 1u < high) {
    let middle = (low + high) / 2u;
    if (biases[middle].x <= token) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return bitcast<f32>(biases[low].y);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let sample = group.y;
  let slot = sampleSlot(sample);
  let flags = slotWord(slot, SLOT_FLAGS);
  if ((flags & ADJUST_FLAG) == 0u) {
    return;
  }
  let hasTokenState = (flags & TOKEN_STATE_FLAG) != 0u;
  let repetition = slotFloat(slot, SLOT_REPETITION);
  let inverseRepetition = slotFloat(slot, SLOT_INVERSE_REPETITION);
  let presence = slotFloat(slot, SLOT_PRESENCE);
  let frequency = slotFloat(slot, SLOT_FREQUENCY);
  let inverseTemperature = slotFloat(slot, SLOT_INVERSE_TEMPERATURE);

  let chunk = group.x * WORKGROUP + lane;
  let end = endToken(chunk);
  var best = NO_VALUE;
  var bestToken = firstToken(chunk);
  for (var token = bestToken; token < end; token += WORKGROUP) {
    var x = clamp(logits[sample * VOCABULARY + token], -LOGIT_LIMIT, LOGIT_LIMIT);
    if (hasTokenState) {
      let state = tokenState[slot * VOCABULARY + token];
      if ((state & HAS_BIAS) != 0u) {
        x += biasOf(slot, token);
      }
      let count = state & COUNT_MASK;
      if ((state & IN_PROMPT) != 0u || count > 0u) {
        x *= select(repetition, inverseRepetition, x > 0.0);
      }
      if (count > 0u) {
        x -= frequency * f32(count) + presence;
      }
      x = clamp(x, -LOGIT_LIMIT, LOGIT_LIMIT);
    }
    x *= inverseTemperature;
    scaled[sample * VOCABULARY + token] = x;
    if (x > best) {
      best = x;
      bestToken = token;
    }
  }
  chunkBest[sample * NUM_CHUNKS + chunk] = vec2<u32>(bitcast<u32>(best), bestToken);
}
