// 1 / sqrt(mean(x^2) + epsilon) of a row of the stream, from the partial sums of squares that its producer
// left: one a group of 4 elements, added in ascending order, four lanes wide.
fn invRms(row: u32) -> f32 {
  var sum = vec4<f32>(0.0);
  for (var i = 0u; i < NORM_VECTORS; i++) {
    sum += squares[row * NORM_VECTORS + i];
  }
  return inverseSqrt(horizontalSum(sum) / f32(WIDTH) + bitcast<f32>(EPSILON_BITS));
}
