// Per chunk of the raw logits of scores, and of samples that want log-probabilities: the best token,
//   sum of exp(x - best), in ascending order of tokens
// and, of scores, how many tokens come before the one that is judged.
// grid: (numChunks / WORKGROUP, numPlaces), a thread = one chunk of one sample or score
#include "sample/common.wgsl"
#include "sample/report.wgsl"

@group(0) @binding(3) var<storage, read> logits: array<f32>;                 // [maxSequences][VOCABULARY], by place
@group(0) @binding(4) var<storage, read_write> chunkSums: array<vec4<u32>>;  // [maxSequences][NUM_CHUNKS]{f32 best, token, f32 sum, before}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let place = group.y;
  let report = reportOf(place);
  if (!report.isWanted) {
    return;
  }
  let chunk = group.x * WORKGROUP + lane;
  let first = firstToken(chunk);
  let end = endToken(chunk);
  let base = place * VOCABULARY;
  var best = NO_VALUE;
  var bestToken = NO_TOKEN;
  for (var token = first; token < end; token += WORKGROUP) {
    let value = logits[base + token];
    if (value > best) {
      best = value;
      bestToken = token;
    }
  }
  var judged = -NO_VALUE;
  if (report.isScore) {
    judged = logits[base + report.token];
  }
  var sum = 0.0;
  var before = 0u;
  for (var token = first; token < end; token += WORKGROUP) {
    let value = logits[base + token];
    sum += exp(clamp(value - best, EXP_FLOOR, 0.0));
    if (isBetter(value, token, judged, report.token)) {
      before++;
    }
  }
  chunkSums[place * NUM_CHUNKS + chunk] =
    vec4<u32>(bitcast<u32>(best), bestToken, bitcast<u32>(sum), before);
}
