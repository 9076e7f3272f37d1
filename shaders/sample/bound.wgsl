// Starts the selection of each sample: its largest scaled logit, the bound of min-p
//   l >= max + ln(minP)
// as an order key, and the first of the stages that it needs (see pick.wgsl).
// grid: ceil(numSamples / SAMPLE_WORKGROUP), a thread = one sample
#include "sample/common.wgsl"
#include "sample/selection.wgsl"

@group(0) @binding(3) var<storage, read> chunkBest: array<vec2<u32>>;        // [maxSequences][NUM_CHUNKS]{f32 value, token}
@group(0) @binding(4) var<storage, read_write> selections: array<Selection>;  // [maxSequences], by sample

@compute @workgroup_size(SAMPLE_WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let sample = id.x;
  if (sample >= numSamples()) {
    return;
  }
  let slot = sampleSlot(sample);
  let flags = slotWord(slot, SLOT_FLAGS);
  var selection: Selection;
  selection.stage = STAGE_DONE;
  if ((flags & SELECT_FLAG) != 0u) {
    var best = NO_VALUE;
    for (var chunk = 0u; chunk < NUM_CHUNKS; chunk++) {
      best = max(best, bitcast<f32>(chunkBest[sample * NUM_CHUNKS + chunk].x));
    }
    selection.best = best;
    if ((flags & MIN_P_FLAG) != 0u) {
      selection.threshold = orderKey(best + slotFloat(slot, SLOT_LOG_MIN_P));
    }
    if ((flags & TOP_K_FLAG) != 0u) {
      selection.stage = STAGE_TOP_K;
    } else if ((flags & TOP_P_FLAG) != 0u) {
      selection.stage = STAGE_TOP_P;
    }
  }
  selections[sample] = selection;
}
