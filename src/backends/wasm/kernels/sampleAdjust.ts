import { slotWords, tokenStateBits } from "../../slotRecord.ts";
import { bestWords, sampleParams } from "../samplerAbi.ts";
import { define, type FunctionBody, type Wasm } from "./emit.ts";
import { f32, f32x4, f32x4Const, i32, i32x4, select, v128 } from "./instructions.ts";
import { defineKernel } from "./kernel.ts";
import { maxOfLanes } from "./math.ts";
import { forChunks, forTokens, hold, NO_VALUE, sampleState } from "./sampleCommon.ts";
import type { Value, Variable } from "./value.ts";

/**
 * sampleAdjust: scaled[i] = penalised(logits[i] + bias[i]) / temperature, and each chunk's largest.
 * Later kernels compare these very bits.
 */
export function defineAdjustKernel(): Wasm {
  const penalise = definePenalise();
  return defineKernel("sampleAdjust", sampleParams, (k, context) => {
    forChunks(k, context, (index, chunk, item) => {
      const sample = sampleState(k, context, index);
      k.if(sample.has("ADJUST_FLAG"), () => {
        const best = k.let(f32x4Const(NO_VALUE));
        const logits = k.let(sample.logits);
        const scaled = k.let(sample.scaled);
        const tokenState = k.let(sample.tokenState);
        const hasTokenState = k.let(sample.has("TOKEN_STATE_FLAG"));
        const inverseTemperature = k.let(f32x4.splat(sample.float("SLOT_INVERSE_TEMPERATURE")));
        forTokens(k, chunk, (ids, offset) => {
          const x = k.let(hold(v128.load(i32.add(logits, offset))));
          const out = k.let(i32.add(scaled, offset));
          k.if(hasTokenState, () => {
            const states = k.let(i32.add(tokenState, offset));
            k.if(v128.any_true(v128.load(states)), () => {
              v128.store(out, 0, x);
              k.for(0, 16, 4, (lane) => {
                const state = i32.load(i32.add(states, lane));
                const token = i32.shr_u(i32.add(offset, lane), 2);
                k.call(penalise, i32.add(out, lane), state, token, sample.record, sample.biases);
              });
              k.set(x, hold(v128.load(out)));
            });
          });
          // Adding 0 leaves no -0: zeros of both signs tie.
          k.set(x, f32x4.add(f32x4.mul(x, inverseTemperature), f32x4Const(0)));
          const isToken = i32x4.lt_s(ids, i32x4.splat(chunk.end));
          k.set(x, v128.bitselect(x, f32x4Const(-Infinity), isToken));
          v128.store(out, 0, x);
          k.set(best, f32x4.pmax(best, x));
        });
        const record = i32.add(context.param("BESTS"), i32.mul(item, bestWords.BYTES));
        f32.store(record, bestWords.SCORE * 4, f32x4.extract_lane(maxOfLanes(k, best), 0));
      });
    });
  });
}

/**
 * samplePenalise(address, state, token, slot record, biases): the logit there becomes
 *   penalised(x) = (x > 0 ? x / r : x * r) - f * count - p * (count > 0)
 * with x = logit + bias; r only for tokens of prompt and output.
 */
function definePenalise(): Wasm {
  return define(
    "samplePenalise",
    ["i32", "i32", "i32", "i32", "i32"],
    (k, address, state, token, slot, biases) => {
      const float = (name: keyof typeof slotWords): Value<"f32"> =>
        f32.load(slot, slotWords[name] * 4);
      const x = k.let(f32.load(address));
      k.if(i32.and(state, tokenStateBits.HAS_BIAS), () => {
        const numBiases = k.let(i32.load(slot, slotWords.SLOT_NUM_BIASES * 4));
        k.set(x, f32.add(x, biasOf(k, token, biases, numBiases)));
      });
      const count = k.let(i32.and(state, tokenStateBits.COUNT_MASK));
      k.if(i32.or(i32.and(state, tokenStateBits.IN_PROMPT | 0), count), () => {
        const factor = select(
          f32.gt(x, 0),
          float("SLOT_INVERSE_REPETITION"),
          float("SLOT_REPETITION"),
        );
        k.set(x, f32.mul(x, factor));
      });
      k.if(count, () => {
        const frequency = f32.mul(float("SLOT_FREQUENCY"), f32.convert_i32_s(count));
        k.set(x, f32.sub(x, f32.add(frequency, float("SLOT_PRESENCE"))));
      });
      f32.store(address, 0, x);
      return undefined;
    },
  );
}

/** The bias of a token that is known to be in the list. */
function biasOf(
  k: FunctionBody,
  token: Variable<"i32">,
  biases: Variable<"i32">,
  numBiases: Variable<"i32">,
): Value<"f32"> {
  const low = k.let(i32.const(0));
  const high = numBiases;
  k.while(
    () => i32.lt_s(i32.add(low, 1), high),
    () => {
      const middle = k.let(i32.shr_u(i32.add(low, high), 1));
      const id = i32.load(i32.add(biases, i32.shl(middle, 3)));
      k.if(
        i32.le_s(id, token),
        () => k.set(low, middle),
        () => k.set(high, middle),
      );
    },
  );
  return f32.load(i32.add(biases, i32.shl(low, 3)), 4);
}
