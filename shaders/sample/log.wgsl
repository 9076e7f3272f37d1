// ln x for normal x > 0, to a few ULP everywhere. WGSL's log promises only 2^-21 absolute near 1,
// which would leave nothing of -ln u for u = 1 - 2^-24: the noise that decides rare events.
// x = 2^e m, m in [sqrt 1/2, sqrt 2): ln x = e ln 2 + 2 atanh z, z = (m - 1) / (m + 1), |z| < 0.172.
fn naturalLog(x: f32) -> f32 {
  let bits = bitcast<u32>(x);
  let e = i32(bits - 0x3f3504f3u) >> 23u;
  let m = bitcast<f32>(bits - (bitcast<u32>(e) << 23u));
  let z = (m - 1.0) / (m + 1.0);
  let z2 = z * z;
  let tail = z2 * (0.33333334 + z2 * (0.2 + z2 * (0.14285715 + z2 * 0.11111111)));
  return f32(e) * 0.6931472 + 2.0 * (z + z * tail);
}
