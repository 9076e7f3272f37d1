// One round of every sample's radix selection: how much lies on each value of the key's next 8 bits,
//   bins[s, d] += amount(l)  for survivors l whose key has the prefix found so far, then digit d
//   amount = 1 for top-k, exp(l - max) * 2^44 for top-p
// Amounts are 64-bit integers: sums do not depend on the order of the atomics, nor on the batch.
// 2^44 keeps weights down to 2^-44 of the best and lets 2^19 equal best tokens sum without overflow.
// grid: (ceil(VOCABULARY / (WORKGROUP * HISTOGRAM_TOKENS)), numSamples)
#include "sample/common.wgsl"
#include "sample/selection.wgsl"

@group(0) @binding(3) var<storage, read> scaled: array<f32>;             // [maxSequences][VOCABULARY], by sample
@group(0) @binding(4) var<storage, read> selections: array<Selection>;   // [maxSequences], by sample
@group(0) @binding(5) var<storage, read_write> bins: array<atomic<u32>>;  // [maxSequences][NUM_DIGITS]{low, high}, all zero before a round

// floor(weight * 2^44) for 0 <= weight < 2, from the float's own bits.
fn fixedPoint(weight: f32) -> vec2<u32> {
  let bits = bitcast<u32>(weight);
  let mantissa = (bits & 0x7fffffu) | 0x800000u;
  let exponent = bits >> 23u;  // biased by 127; the value is mantissa * 2^(exponent - 150)
  if (exponent > 106u) {
    let left = min(exponent - 106u, 22u);
    return vec2<u32>(mantissa << left, mantissa >> (32u - left));
  }
  let right = 106u - exponent;
  return vec2<u32>(select(mantissa >> min(right, 31u), 0u, right > 23u), 0u);
}

fn addToBin(bin: u32, amount: vec2<u32>) {
  var high = amount.y;
  if (amount.x != 0u) {
    let before = atomicAdd(&bins[bin * 2u], amount.x);
    if (before + amount.x < before) {
      high++;
    }
  }
  if (high != 0u) {
    atomicAdd(&bins[bin * 2u + 1u], high);
  }
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let sample = group.y;
  let stage = selections[sample].stage;
  if (stage >= STAGE_DONE) {
    return;
  }
  let threshold = selections[sample].threshold;
  let prefix = selections[sample].prefix;
  let best = selections[sample].best;
  let shift = digitShift(stage);
  let prefixMask = select(0xffffffffu << ((shift + 8u) & 31u), 0u, shift == 24u);

  // Neighbours in a thread often share a digit: add them up before they cost an atomic.
  var digit = 0u;
  var amount = vec2<u32>(0u);
  let start = group.x * (WORKGROUP * HISTOGRAM_TOKENS) + lane;
  let end = min(VOCABULARY, start + WORKGROUP * HISTOGRAM_TOKENS);
  for (var token = start; token < end; token += WORKGROUP) {
    let value = scaled[sample * VOCABULARY + token];
    let key = orderKey(value);
    if (key < threshold || (key & prefixMask) != prefix) {
      continue;
    }
    var own = vec2<u32>(1u, 0u);
    if (stage >= STAGE_TOP_P) {
      own = fixedPoint(exp(clamp(value - best, EXP_FLOOR, 0.0)));
    }
    let ownDigit = (key >> shift) & 255u;
    if (ownDigit != digit) {
      addToBin(sample * NUM_DIGITS + digit, amount);
      digit = ownDigit;
      amount = vec2<u32>(0u);
    }
    amount = add64(amount, own);
  }
  addToBin(sample * NUM_DIGITS + digit, amount);
}
