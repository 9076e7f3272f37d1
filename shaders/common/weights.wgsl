// Weights in blocks of 32 along K, in tiles of 64 rows with the blocks of a tile's rows side by side, so that
// neighbouring threads read neighbouring vectors. Block kb of row n is at tileBase(n) + kb * tileStride(n). A format gives `Block`, `loadBlock(index)` and `blockWeights(block, j)`, elements 4 j .. 4 j + 3.
@group(0) @binding(2) var<storage, read> weightQuants: array<vec4<u32>>;
#if META_WORDS
@group(0) @binding(3) var<storage, read> weightMeta: array<u32>;
#end

fn tileBase(row: u32, blocks: u32) -> u32 {
  return (row / 64u) * 64u * blocks + (row % 64u);
}

fn tileStride(row: u32, paddedRows: u32) -> u32 {
  return min(64u, paddedRows - (row / 64u) * 64u);
}

#if FORMAT_Q4
#include "formats/q4.wgsl"
#end
#if FORMAT_Q5
#include "formats/q5.wgsl"
#end
#if FORMAT_Q6
#include "formats/q6.wgsl"
#end
#if FORMAT_Q8
#include "formats/q8.wgsl"
#end
#if FORMAT_F16
#include "formats/f16.wgsl"
#end
#if FORMAT_BF16
#include "formats/bf16.wgsl"
#end
#if FORMAT_F32
#include "formats/f32.wgsl"
#end
