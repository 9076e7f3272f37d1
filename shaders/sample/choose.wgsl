// The best token of each chunk, by
//   greedy: the logit;  else: logit / temperature + Gumbel noise, over the tokens that selection left
// Samples with ADJUST_FLAG read what adjust.wgsl wrote; the others need the logits alone.
// grid: (numChunks / WORKGROUP, numSamples), a thread = one chunk of one sample
#include "sample/common.wgsl"
#include "sample/selection.wgsl"
#include "sample/gumbel.wgsl"

@group(0) @binding(3) var<storage, read> logits: array<f32>;                 // [maxSequences][VOCABULARY], by sample
@group(0) @binding(4) var<storage, read> scaled: array<f32>;                 // [maxSequences][VOCABULARY], by sample
@group(0) @binding(5) var<storage, read> selections: array<Selection>;       // [maxSequences], by sample
@group(0) @binding(6) var<storage, read_write> chunkBest: array<vec2<u32>>;  // [maxSequences][NUM_CHUNKS]{f32 score, token}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let sample = group.y;
  let slot = sampleSlot(sample);
  let flags = slotWord(slot, SLOT_FLAGS);
  let isAdjusted = (flags & ADJUST_FLAG) != 0u;
  let chunk = group.x * WORKGROUP + lane;
  let end = endToken(chunk);
  let base = sample * VOCABULARY;
  var best = NO_VALUE;
  var bestToken = firstToken(chunk);

  if ((flags & NOISE_FLAG) == 0u) {
    for (var token = bestToken; token < end; token += WORKGROUP) {
      var score: f32;
      if (isAdjusted) {
        score = scaled[base + token];
      } else {
        score = logits[base + token];
      }
      if (score > best) {
        best = score;
        bestToken = token;
      }
    }
  } else {
    let position = samplePosition(sample);
    let seedLow = slotWord(slot, SLOT_SEED_LOW);
    let seedHigh = slotWord(slot, SLOT_SEED_HIGH);
    let inverseTemperature = slotFloat(slot, SLOT_INVERSE_TEMPERATURE);
    var threshold = 0u;
    if ((flags & SELECT_FLAG) != 0u) {
      threshold = selections[sample].threshold;
    }
    for (var token = bestToken; token < end; token += WORKGROUP) {
      var value: f32;
      if (isAdjusted) {
        value = scaled[base + token];
        if (orderKey(value) < threshold) {
          continue;
        }
      } else {
        value = clamp(logits[base + token], -LOGIT_LIMIT, LOGIT_LIMIT) * inverseTemperature;
      }
      let score = value + gumbel(token, position, seedLow, seedHigh);
      if (score > best) {
        best = score;
        bestToken = token;
      }
    }
  }
  chunkBest[sample * NUM_CHUNKS + chunk] = vec2<u32>(bitcast<u32>(best), bestToken);
}
