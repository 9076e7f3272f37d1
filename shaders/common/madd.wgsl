// The one multiply-add of all kernels. `a * b + c` and not `fma`: its bits were found equal over tile
// shapes on every adapter tried, which is not proved of `fma`.
fn madd(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>) -> vec4<f32> {
  return a * b + c;
}

fn horizontalSum(v: vec4<f32>) -> f32 {
  return (v.x + v.y) + (v.z + v.w);
}
