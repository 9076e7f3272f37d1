import { MAX_LOGPROBS } from "../../../engine/sampling.ts";
import { NO_TOKEN, reportWords, sampleParams, sumWords } from "../samplerAbi.ts";
import { define, type FunctionBody, type Wasm } from "./emit.ts";
import { f32, f32x4, f32x4Const, i32, i32x4, i32x4Const, v128 } from "./instructions.ts";
import { defineKernel } from "./kernel.ts";
import { exp, sumOfLanes, swapHalves, swapPairs } from "./math.ts";
import {
  chunkOf,
  forChunks,
  forTokens,
  logitsOf,
  NO_VALUE,
  type SampleContext,
  storeBest,
} from "./sampleCommon.ts";
import type { Variable } from "./value.ts";

/** What log-probabilities are made of, from the raw logits of the places that want them. */
export function defineLogprobKernels(): readonly Wasm[] {
  const bestAfter = defineBestAfter();
  return [defineSums(bestAfter), defineTops(bestAfter)];
}

/** A place's report, and the row of its logits. */
function reportState(k: FunctionBody, context: SampleContext, place: Variable<"i32">) {
  const record = k.let(i32.add(context.param("REPORTS"), i32.mul(place, reportWords.BYTES)));
  return {
    numTop: i32.load(record, reportWords.NUM_TOP * 4),
    token: i32.load(record, reportWords.TOKEN * 4),
    logits: logitsOf(context, place),
  };
}

/**
 * sampleSums: of each chunk the best token, the sum of exp(x - best), and how many tokens come before
 * the judged one.
 */
function defineSums(bestAfter: Wasm): Wasm {
  return defineKernel("sampleSums", sampleParams, (k, context) => {
    forChunks(k, context, (place, chunk, item) => {
      const { numTop, token, logits } = reportState(k, context, place);
      k.if(i32.ge_s(numTop, 0), () => {
        const row = k.let(logits);
        const record = k.let(i32.add(context.param("SUMS"), i32.mul(item, sumWords.BYTES)));
        k.call(bestAfter, row, chunk.first, chunk.end, Infinity, -1, record);
        const best = k.let(f32x4.splat(f32.load(record, sumWords.BEST * 4)));
        const judgedId = k.let(i32x4.splat(token));
        const judged = k.let(f32x4Const(Infinity));
        k.if(i32.ge_s(token, 0), () =>
          k.set(judged, v128.load32_splat(i32.add(row, i32.shl(token, 2)))),
        );
        const sum = k.let(f32x4Const(0));
        const before = k.let(i32x4Const(0));
        forTokens(k, chunk, (ids, offset) => {
          const x = k.let(v128.load(i32.add(row, offset)));
          const isToken = k.let(i32x4.lt_s(ids, i32x4.splat(chunk.end)));
          const weight = exp(k, f32x4.sub(x, best));
          k.set(sum, f32x4.add(sum, v128.and(weight, isToken)));
          const isTieBefore = v128.and(f32x4.eq(x, judged), i32x4.lt_s(ids, judgedId));
          const isBefore = v128.and(v128.or(f32x4.gt(x, judged), isTieBefore), isToken);
          k.set(before, i32x4.sub(before, isBefore));
        });
        f32.store(record, sumWords.SUM * 4, f32x4.extract_lane(sumOfLanes(k, sum), 0));
        f32.store(record, sumWords.FIRST_BEST * 4, f32x4.extract_lane(best, 0));
        const pairs = k.let(i32x4.add(before, swapHalves(before)));
        const total = i32x4.extract_lane(i32x4.add(pairs, swapPairs(pairs)), 0);
        i32.store(record, sumWords.BEFORE * 4, total);
      });
    });
  });
}

/**
 * sampleTops: the best tokens, best first, ties to the lowest id. Each round takes the best of the
 * chunks' best, then finds that chunk's next: a chunk of reads a round instead of a vocabulary.
 */
function defineTops(bestAfter: Wasm): Wasm {
  return defineKernel("sampleTops", sampleParams, (k, context) => {
    const { param, begin, end } = context;
    k.for(begin, end, 1, (place) => {
      const { numTop, logits } = reportState(k, context, place);
      const records = k.let(
        i32.add(param("SUMS"), i32.mul(i32.mul(place, param("CHUNKS")), sumWords.BYTES)),
      );
      const top = k.let(i32.add(param("TOPS"), i32.mul(place, MAX_LOGPROBS * 4)));
      k.for(0, numTop, 1, () => {
        const best = k.let(f32.const(NO_VALUE));
        const bestChunk = k.let(i32.const(-1));
        const at = k.let(records);
        k.for(0, param("CHUNKS"), 1, (chunk) => {
          const value = k.let(f32.load(at, sumWords.BEST * 4));
          k.if(f32.gt(value, best), () => {
            k.set(best, value);
            k.set(bestChunk, chunk);
          });
          k.set(at, i32.add(at, sumWords.BYTES));
        });
        i32.store(top, 0, NO_TOKEN | 0);
        k.if(i32.ne(bestChunk, -1), () => {
          const record = k.let(i32.add(records, i32.mul(bestChunk, sumWords.BYTES)));
          const token = k.let(i32.load(record, sumWords.TOKEN * 4));
          i32.store(top, 0, token);
          const { first, end: chunkEnd } = chunkOf(k, context, bestChunk);
          k.call(bestAfter, logits, first, chunkEnd, best, token, record);
        });
        k.set(top, i32.add(top, 4));
      });
    });
  });
}

/**
 * sampleBestAfter(row, first, end, value, token, record): of the tokens first..end-1 the best of those
 * that come after (value, token): smaller logits, or equal ones of higher ids.
 */
function defineBestAfter(): Wasm {
  return define(
    "sampleBestAfter",
    ["i32", "i32", "i32", "f32", "i32", "i32"],
    (k, row, first, end, value, token, record) => {
      const best = k.let(f32x4Const(NO_VALUE));
      const bestIds = k.let(i32x4Const(NO_TOKEN | 0));
      const bound = k.let(f32x4.splat(value));
      const boundId = k.let(i32x4.splat(token));
      forTokens(k, { first, end }, (ids, offset) => {
        const x = k.let(v128.load(i32.add(row, offset)));
        const isTieAfter = v128.and(f32x4.eq(x, bound), i32x4.gt_s(ids, boundId));
        const isAfter = v128.or(f32x4.lt(x, bound), isTieAfter);
        const isToken = i32x4.lt_s(ids, i32x4.splat(end));
        const isBetter = k.let(v128.and(v128.and(isToken, isAfter), f32x4.gt(x, best)));
        k.set(best, v128.bitselect(x, best, isBetter));
        k.set(bestIds, v128.bitselect(ids, bestIds, isBetter));
      });
      storeBest(k, best, bestIds, record, sumWords.BEST, sumWords.TOKEN);
      return undefined;
    },
  );
}
