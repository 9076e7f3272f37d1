import { rowWords } from "../abi.ts";
import { ROPE } from "../attentionAbi.ts";
import type { FunctionBody, Wasm } from "./emit.ts";
import { f32, f32x4, f32x4Const, i8x16, i32, i32x4Lanes, select, v128 } from "./instructions.ts";
import { defineKernel } from "./kernel.ts";
import { type KvFormat, unitAddress } from "./kvFormat.ts";
import { madd, sumOfLanes, swapPairs } from "./math.ts";
import type { Variable, Vector } from "./value.ts";

type Address = Variable<"i32">;

/**
 * An item is one head of one row, queries first, then keys, then values. The head is normed and
 * turned where it goes (queries), or in the scratch, from where it is written to the pool.
 */
export function defineRopeWriteKv(format: KvFormat): Wasm {
  return defineKernel(`ropeWriteKv_${format.dtype}`, ROPE, (k, { param, begin, end, scratch }) => {
    const headDim = k.let(param("headDim"));
    const numHeads = k.let(param("numHeads"));
    const numKvHeads = k.let(param("numKvHeads"));
    const pairs = k.let(param("pairs"));
    const blockShift = k.let(i32.ctz(param("blockSize")));
    const headBytes = k.let(i32.shl(headDim, 2));
    const allHeads = k.let(i32.add(numHeads, i32.shl(numKvHeads, 1)));
    const source = k.local("i32");
    k.for(begin, end, 1, (i) => {
      const row = k.let(i32.div_u(i, allHeads));
      const head = k.let(i32.rem_u(i, allHeads));
      const isQuery = k.let(i32.lt_u(head, numHeads));
      const isValue = k.let(i32.ge_u(head, i32.add(numHeads, numKvHeads)));
      const headAt = k.let(i32.mul(head, headBytes));
      k.set(source, i32.add(param("input"), i32.mul(row, param("inputStride"))));
      k.set(source, i32.add(source, headAt));

      k.if(i32.eqz(isValue), () => {
        const output = i32.add(param("output"), i32.mul(row, param("outputStride")));
        const target = k.let(select(isQuery, i32.add(output, headAt), scratch));
        const gain = k.let(select(isQuery, param("queryGain"), param("keyGain")));
        k.if(
          gain,
          () => norm(k, { source, target, gain, headDim, epsilon: param("epsilon") }),
          () => copy(k, source, target, headDim),
        );
        const rotations = i32.add(param("rotations"), i32.mul(row, i32.shl(pairs, 3)));
        turn(k, { head: target, rotations: k.let(rotations), pairs, isNeox: param("isNeox") });
        k.set(source, target);
      });

      k.if(i32.eqz(isQuery), () => {
        const rowAt = i32.add(param("rowsTable"), i32.mul(row, rowWords.BYTES));
        const kvSlot = k.let(i32.load(rowAt, rowWords.KV_SLOT * 4));
        const offset = k.let(i32.and(kvSlot, i32.sub(param("blockSize"), 1)));
        const kvHead = i32.rem_u(i32.sub(head, numHeads), numKvHeads);
        const unit = k.let(
          unitAddress(format, {
            layer: param("layer"),
            numKvHeads,
            kvHead,
            headDim,
            blockShift,
            block: i32.shr_u(kvSlot, blockShift),
            offset,
          }),
        );
        const slot = k.let(i32.and(offset, 7));
        const write = { source, unit, slot, headDim };
        k.if(
          isValue,
          () => format.writeValue(k, write),
          () => format.writeKey(k, write),
        );
      });
    });
  });
}

function copy(k: FunctionBody, source: Address, target: Address, headDim: Address): void {
  const at = k.let(i32.const(0));
  k.for(0, headDim, 4, () => {
    v128.store(i32.add(target, at), 0, v128.load(i32.add(source, at)));
    k.set(at, i32.add(at, 16));
  });
}

interface Norm {
  readonly source: Address;
  readonly target: Address;
  readonly gain: Address;
  readonly headDim: Address;
  readonly epsilon: Variable<"i32"> | ReturnType<typeof i32.load>;
}

/** target = source / rms(source) * gain. */
function norm(k: FunctionBody, { source, target, gain, headDim, epsilon }: Norm): void {
  const squares = k.local("v128");
  k.set(squares, f32x4Const(0));
  const at = k.let(i32.const(0));
  k.for(0, headDim, 4, () => {
    const x = k.let(v128.load(i32.add(source, at)));
    k.set(squares, madd(squares, x, x));
    k.set(at, i32.add(at, 16));
  });
  const mean = f32.div(f32x4.extract_lane(sumOfLanes(k, squares), 0), f32.convert_i32_s(headDim));
  const rms = f32.sqrt(f32.add(mean, f32.reinterpret_i32(epsilon)));
  const scale = k.let(f32x4.splat(f32.div(1, rms)));
  k.set(at, i32.const(0));
  k.for(0, headDim, 4, () => {
    const x = f32x4.mul(v128.load(i32.add(source, at)), scale);
    v128.store(i32.add(target, at), 0, f32x4.mul(x, v128.load(i32.add(gain, at))));
    k.set(at, i32.add(at, 16));
  });
}

interface Turn {
  readonly head: Address;
  readonly rotations: Address;
  readonly pairs: Variable<"i32">;
  readonly isNeox: ReturnType<typeof i32.load>;
}

/** (a, b) -> (a cos - b sin, a sin + b cos), in place. */
function turn(k: FunctionBody, { head, rotations, pairs, isNeox }: Turn): void {
  const first = k.let(head);
  const neox = k.let(isNeox);
  // Where b is, seen from a, and where the next pair is.
  const distance = k.let(i32.shl(select(neox, pairs, i32.const(1)), 2));
  const left = k.let(pairs);
  k.if(
    neox,
    () => {
      k.while(
        () => i32.ge_s(left, 4),
        () => {
          const second = k.let(i32.add(first, distance));
          const a = k.let(v128.load(first));
          const b = k.let(v128.load(second));
          const low = k.let(v128.load(rotations));
          const high = k.let(v128.load(rotations, 16));
          const cos = k.let(words(low, high, [0, 2, 4, 6]));
          const sin = k.let(words(low, high, [1, 3, 5, 7]));
          v128.store(first, 0, f32x4.sub(f32x4.mul(a, cos), f32x4.mul(b, sin)));
          v128.store(second, 0, f32x4.add(f32x4.mul(a, sin), f32x4.mul(b, cos)));
          k.set(first, i32.add(first, 16));
          k.set(rotations, i32.add(rotations, 32));
          k.set(left, i32.sub(left, 4));
        },
      );
    },
    () => {
      k.while(
        () => i32.ge_s(left, 2),
        () => {
          const x = k.let(v128.load(first)); // a, b, a, b
          const turns = k.let(v128.load(rotations)); // cos, sin, cos, sin
          const cos = words(turns, turns, [0, 0, 2, 2]);
          const sin = words(turns, turns, [1, 1, 3, 3]);
          const crossed = v128.xor(f32x4.mul(swapPairs(x), sin), i32x4Lanes(SIGN, 0, SIGN, 0));
          v128.store(first, 0, f32x4.add(f32x4.mul(x, cos), crossed));
          k.set(first, i32.add(first, 16));
          k.set(rotations, i32.add(rotations, 16));
          k.set(left, i32.sub(left, 2));
        },
      );
    },
  );
  // The rest, one pair at a time.
  const pairBytes = k.let(select(neox, i32.const(4), i32.const(8)));
  k.while(
    () => left,
    () => {
      const second = k.let(i32.add(first, distance));
      const a = k.let(f32.load(first));
      const b = k.let(f32.load(second));
      const cos = k.let(f32.load(rotations));
      const sin = k.let(f32.load(rotations, 4));
      f32.store(first, 0, f32.sub(f32.mul(a, cos), f32.mul(b, sin)));
      f32.store(second, 0, f32.add(f32.mul(a, sin), f32.mul(b, cos)));
      k.set(first, i32.add(first, pairBytes));
      k.set(rotations, i32.add(rotations, 8));
      k.set(left, i32.sub(left, 1));
    },
  );
}

const SIGN = 0x80000000 | 0;

/** 32-bit lanes of a (0-3) and b (4-7). */
function words(a: Vector, b: Vector, lanes: readonly number[]): Vector {
  return i8x16.shuffle(
    a,
    b,
    lanes.flatMap((lane) => [0, 1, 2, 3].map((byte) => lane * 4 + byte)),
  );
}
