// A part of the sum of a row's squares, from the partial sums that the stream's producer left: one a group of 4
// elements. Every NORM_SLICES-th vector from `first` on, added in ascending order, four lanes wide.
fn squaresOf(row: u32, first: u32) -> f32 {
  var sum = vec4<f32>(0.0);
  for (var i = first; i < shape.normVectors; i += NORM_SLICES) {
    sum += squares[row * shape.normVectors + i];
  }
  return horizontalSum(sum);
}

// 1 / sqrt(mean(x^2) + epsilon)
fn invRms(sumOfSquares: f32) -> f32 {
  let mean = sumOfSquares / f32(shape.normVectors * 16u);
  return inverseSqrt(mean + bitcast<f32>(shape.epsilonBits));
}
