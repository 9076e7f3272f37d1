// 1 / sqrt(mean(x^2) + epsilon) of a row of the stream, from the partial sums of squares that its producer
// left: one a group of 4 elements, added in ascending order, four lanes wide.
fn invRms(row: u32) -> f32 {
  var sum = vec4<f32>(0.0);
  for (var i = 0u; i < shape.normVectors; i++) {
    sum += squares[row * shape.normVectors + i];
  }
  let mean = horizontalSum(sum) / f32(shape.normVectors * 16u);
  return inverseSqrt(mean + bitcast<f32>(shape.epsilonBits));
}
