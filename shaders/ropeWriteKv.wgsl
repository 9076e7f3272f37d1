// q, k = rope(headNorm(q, k)); q to queries, k and v to the rows' slots of the pool
//
// A thread takes one head of one row: heads 0..HEADS-1 are queries, then KV_HEADS keys, then KV_HEADS values.
// rope turns a pair (a, b) by the angle of (position, i): (a cos - b sin, a sin + b cos). Pairs are
// (2 i, 2 i + 1), or with NEOX (i, i + ROTARY / 2). cos and sin come from float64 tables: WGSL promises too
// little of its own.
//
// grid: (ceil(rows * (HEADS + 2 KV_HEADS) / 64))
#include "common/step.wgsl"
#include "common/madd.wgsl"
#include "common/kvPool.wgsl"

@group(0) @binding(2) var<storage, read> qkv: array<f32>; // [rows][(HEADS + 2 KV_HEADS) * HEAD_DIM]
@group(0) @binding(3) var<storage, read> rotations: array<vec2<f32>>; // [positions][ROTARY / 2] of (cos, sin)
@group(0) @binding(4) var<storage, read_write> queries: array<vec4<f32>>; // [rows][HEADS][HEAD_VECTORS]
#if KV_F16
@group(0) @binding(5) var<storage, read_write> pool: array<vec2<u32>>;
#else
@group(0) @binding(5) var<storage, read_write> pool: array<vec4<f32>>;
#end
#if HEAD_NORM
@group(0) @binding(6) var<storage, read> queryGain: array<f32>; // [HEAD_DIM]
@group(0) @binding(7) var<storage, read> keyGain: array<f32>; // [HEAD_DIM]
#end

const HEAD_DIM = HEAD_VECTORS * 4u;
const HALF_ROTARY = ROTARY / 2u;

var<private> source: u32; // index of the head in qkv
var<private> position: u32;
var<private> isQuery: bool;
var<private> isValue: bool;
var<private> headScale: f32; // invRms of the head

fn normed(d: u32) -> f32 {
  let value = qkv[source + d];
#if HEAD_NORM
  if (isValue) { return value; }
  return value * headScale * select(keyGain[d], queryGain[d], isQuery);
#else
  return value;
#end
}

fn turned(d: u32) -> f32 {
  if (isValue || d >= ROTARY) { return normed(d); }
#if NEOX
  let isFirst = d < HALF_ROTARY;
  let i = select(d - HALF_ROTARY, d, isFirst);
  let first = i;
  let second = i + HALF_ROTARY;
#else
  let isFirst = (d & 1u) == 0u;
  let i = d / 2u;
  let first = i * 2u;
  let second = first + 1u;
#end
  let turn = rotations[position * HALF_ROTARY + i];
  let a = normed(first);
  let b = normed(second);
  return select(a * turn.y + b * turn.x, a * turn.x - b * turn.y, isFirst);
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  const ALL_HEADS = HEADS + 2u * KV_HEADS;
  let row = id.x / ALL_HEADS;
  let head = id.x % ALL_HEADS;
  if (row >= header.numRows) { return; }
  let at = header.rowsAt + row * 4u;
  position = step[at + 2u];
  let kvSlot = step[at + 3u];
  source = id.x * HEAD_DIM;
  isQuery = head < HEADS;
  isValue = head >= HEADS + KV_HEADS;
#if HEAD_NORM
  var sum = vec4<f32>(0.0);
  for (var d = 0u; d < HEAD_DIM; d += 4u) {
    let v = vec4<f32>(qkv[source + d], qkv[source + d + 1u], qkv[source + d + 2u], qkv[source + d + 3u]);
    sum = madd(v, v, sum);
  }
  headScale = inverseSqrt(horizontalSum(sum) / f32(HEAD_DIM) + bitcast<f32>(EPSILON_BITS));
#end
  let kvHead = select(head - HEADS, head - HEADS - KV_HEADS, isValue);
  let poolAt = kvIndex(kvSlot / BLOCK_SIZE, select(0u, 1u, isValue), kvHead, kvSlot % BLOCK_SIZE);
  for (var v = 0u; v < HEAD_VECTORS; v++) {
    let d = v * 4u;
    let value = vec4<f32>(turned(d), turned(d + 1u), turned(d + 2u), turned(d + 3u));
    if (isQuery) {
      queries[(row * HEADS + head) * HEAD_VECTORS + v] = value;
    } else {
      pool[poolAt + v] = packKv(value);
    }
  }
}
