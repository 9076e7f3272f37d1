// Gumbel noise of a token: argmax(logit + noise) is a draw from softmax(logits).
// Counter-based (pcg4d): key = the slot's seed, counter = (token, position), so a draw depends on
// nothing but the sequence itself.
#include "sample/log.wgsl"

fn gumbel(token: u32, position: u32, seedLow: u32, seedHigh: u32) -> f32 {
  var v = vec4<u32>(token, position, seedLow, seedHigh) * 1664525u + 1013904223u;
  v.x += v.y * v.w;
  v.y += v.z * v.x;
  v.z += v.x * v.y;
  v.w += v.y * v.z;
  v ^= v >> vec4<u32>(16u);
  v.x += v.y * v.w;
  v.y += v.z * v.x;
  v.z += v.x * v.y;
  v.w += v.y * v.z;
  // 24 bits, exact: 2^-24 <= u <= 1 - 2^-24.
  let u = (f32(v.x >> 9u) + 0.5) * 1.1920928955078125e-7;
  return -naturalLog(-naturalLog(u));
}
