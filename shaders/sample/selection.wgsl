// State of a sample's radix selection: four rounds of 8 bits for top-k, then four for top-p.
struct Selection {
  threshold: u32,      // order key; tokens below it are out
  stage: u32,          // STAGE_TOP_K + round, STAGE_TOP_P + round, or STAGE_DONE
  prefix: u32,         // leading bits of the order key sought, as far as the rounds got
  best: f32,           // largest scaled logit
  goal: vec2<u32>,   // count or mass (low, high) still to be reached at and below the prefix
  unused: vec2<u32>,
}

const STAGE_TOP_K = 0u;
const STAGE_TOP_P = 4u;
const STAGE_DONE = 8u;
const NUM_DIGITS = 256u;

fn digitShift(stage: u32) -> u32 {
  return 24u - 8u * (stage & 3u);
}

fn add64(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
  let low = a.x + b.x;
  return vec2<u32>(low, a.y + b.y + select(0u, 1u, low < a.x));
}
