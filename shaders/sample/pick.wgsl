// Ends one round of every sample's radix selection: walks the digits downwards until their sum
// reaches the goal; that digit joins the prefix. After four rounds the prefix is the order key of
// the last token kept (all ties with it stay), and the threshold rises to it.
//   top-k: goal = k.  top-p: goal = ceil(topP * Z), Z = mass of what min-p and top-k left.
// Leaves the bins zero for the next round.
// grid: ceil(numSamples / SAMPLE_WORKGROUP), a thread = one sample
#include "sample/common.wgsl"
#include "sample/selection.wgsl"

@group(0) @binding(3) var<storage, read_write> selections: array<Selection>;  // [maxSequences], by sample
@group(0) @binding(4) var<storage, read_write> bins: array<vec4<u32>>;        // [maxSequences][NUM_DIGITS / 2]{low, high, low, high}

fn isAtLeast(a: vec2<u32>, b: vec2<u32>) -> bool {
  return a.y > b.y || (a.y == b.y && a.x >= b.x);
}

fn subtract64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
  return vec2<u32>(a.x - b.x, a.y - b.y - select(0u, 1u, a.x < b.x));
}

// a * b in 64 bits
fn multiply(a: u32, b: u32) -> vec2<u32> {
  let aLow = a & 0xffffu;
  let aHigh = a >> 16u;
  let bLow = b & 0xffffu;
  let bHigh = b >> 16u;
  let low = aLow * bLow;
  let cross = aLow * bHigh;
  let otherCross = aHigh * bLow;
  let middle = (low >> 16u) + (cross & 0xffffu) + (otherCross & 0xffffu);
  return vec2<u32>(
    (middle << 16u) | (low & 0xffffu),
    aHigh * bHigh + (cross >> 16u) + (otherCross >> 16u) + (middle >> 16u),
  );
}

// ceil(total * fraction / 2^32), at least 1
fn scaleUp(total: vec2<u32>, fraction: u32) -> vec2<u32> {
  let low = multiply(total.x, fraction);
  var product = add64(multiply(total.y, fraction), vec2<u32>(low.y, 0u));
  if (low.x != 0u || (product.x == 0u && product.y == 0u)) {
    product = add64(product, vec2<u32>(1u, 0u));
  }
  return product;
}

@compute @workgroup_size(SAMPLE_WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let sample = id.x;
  if (sample >= numSamples()) {
    return;
  }
  var selection = selections[sample];
  if (selection.stage >= STAGE_DONE) {
    return;
  }
  let slot = sampleSlot(sample);
  let isTopK = selection.stage < STAGE_TOP_P;
  let firstBin = sample * (NUM_DIGITS / 2u);
  var isSettled = false;
  if ((selection.stage & 3u) == 0u) {
    var total = vec2<u32>(0u);
    for (var i = 0u; i < NUM_DIGITS / 2u; i++) {
      let pair = bins[firstBin + i];
      total = add64(total, add64(pair.xy, pair.zw));
    }
    selection.prefix = 0u;
    if (isTopK) {
      selection.goal = vec2<u32>(slotWord(slot, SLOT_TOP_K), 0u);
      isSettled = isAtLeast(selection.goal, total);
    } else {
      selection.goal = scaleUp(total, slotWord(slot, SLOT_TOP_P));
    }
  }
  if (!isSettled) {
    var above = vec2<u32>(0u);
    var digit = NUM_DIGITS;
    var reached = above;
    while (digit > 0u && !isAtLeast(reached, selection.goal)) {
      digit--;
      above = reached;
      let pair = bins[firstBin + digit / 2u];
      reached = add64(above, select(pair.xy, pair.zw, (digit & 1u) == 1u));
    }
    selection.goal = subtract64(selection.goal, above);
    selection.prefix |= digit << digitShift(selection.stage);
    selection.stage++;
    isSettled = (selection.stage & 3u) == 0u;
    if (isSettled) {
      selection.threshold = max(selection.threshold, selection.prefix);
    }
  }
  if (isSettled) {
    let goesOn = isTopK && (slotWord(slot, SLOT_FLAGS) & TOP_P_FLAG) != 0u;
    selection.stage = select(STAGE_DONE, STAGE_TOP_P, goesOn);
    selection.prefix = 0u;
  }
  for (var i = 0u; i < NUM_DIGITS / 2u; i++) {
    bins[firstBin + i] = vec4<u32>(0u);
  }
  selections[sample] = selection;
}
