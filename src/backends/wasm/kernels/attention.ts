import { itemWords, rowWords, step } from "../abi.ts";
import { ATTEND, PARTIAL_STATE_BYTES, UNIT_SLOTS } from "../attentionAbi.ts";
import { defineAttendPack } from "./attendPack.ts";
import { ConstantTable, MAX_PACK, UNITS } from "./attendScratch.ts";
import type { FunctionBody, Wasm } from "./emit.ts";
import { f32, i32 } from "./instructions.ts";
import { defineKernel } from "./kernel.ts";
import { KV_FORMATS, type KvFormat, unitAddress } from "./kvFormat.ts";
import { defineMergeAttention } from "./mergeAttention.ts";
import { defineRopeWriteKv } from "./rope.ts";
import { defineSoftmax } from "./softmax.ts";
import type { Value, Variable } from "./value.ts";

/** Everything about attention, for both types of KV cache. */
export function defineAttentionKernels(): readonly Wasm[] {
  const constants = new ConstantTable();
  const softmaxes = Array.from({ length: MAX_PACK }, (_, i) => defineSoftmax(i + 1, constants));
  return [
    ...KV_FORMATS.flatMap((format) => [
      defineRopeWriteKv(format),
      defineAttend(format, softmaxes, constants),
    ]),
    defineMergeAttention(),
  ];
}

/**
 * An item is one range of positions of one row and the query heads of one KV head. Neighbours in the
 * order of the items share a KV head, and often the range. How heads are packed and which items a
 * call gets changes no bit: each score is a sum over ascending dimensions, each output one over
 * ascending positions.
 */
function defineAttend(
  format: KvFormat,
  softmaxes: readonly Wasm[],
  constants: ConstantTable,
): Wasm {
  const packs = softmaxes.map((softmax, i) => defineAttendPack(format, i + 1, softmax));
  return defineKernel(`attend_${format.dtype}`, ATTEND, (k, { param, begin, end, scratch }) => {
    constants.write(scratch);
    const headDim = k.let(param("headDim"));
    const numHeads = k.let(param("numHeads"));
    const numKvHeads = k.let(param("numKvHeads"));
    const headBytes = k.let(i32.shl(headDim, 2));
    const scale = k.let(f32.reinterpret_i32(param("scale")));
    const numItems = k.let(i32.load(step.ITEMS));
    const left = k.local("i32");
    const target = k.local("i32");
    k.for(begin, end, 1, (work) => {
      const kvHead = k.let(i32.div_u(work, numItems));
      const index = i32.rem_u(work, numItems);
      const item = k.let(i32.add(param("items"), i32.mul(index, itemWords.BYTES)));
      const row = k.let(i32.load(item, itemWords.ROW * 4));
      const first = k.let(i32.load(item, itemWords.FIRST * 4));
      const count = k.let(i32.sub(i32.load(item, itemWords.END * 4), first));
      const partial = k.let(i32.load(item, itemWords.PARTIAL * 4));

      const rowAt = i32.add(param("rowsTable"), i32.mul(row, rowWords.BYTES));
      const tableIndex = i32.mul(i32.load(rowAt, rowWords.SLOT * 4), param("tableBlocks"));
      listUnits(k, format, {
        layer: param("layer"),
        table: k.let(i32.add(param("blockTables"), i32.shl(tableIndex, 2))),
        blockSize: param("blockSize"),
        numKvHeads,
        kvHead,
        headDim,
        first,
        count,
        scratch,
      });

      k.set(left, i32.div_u(numHeads, numKvHeads));
      const head = k.let(i32.mul(kvHead, left));
      const queriesAt = i32.add(param("queries"), i32.mul(row, param("queryStride")));
      const queries = k.let(i32.add(queriesAt, i32.mul(head, headBytes)));
      const isPartial = k.let(i32.ge_s(partial, 0));
      const targetStride = k.let(i32.add(headBytes, i32.mul(isPartial, PARTIAL_STATE_BYTES)));
      k.if(
        isPartial,
        () => {
          const headIndex = i32.add(i32.mul(partial, numHeads), head);
          const values = i32.add(i32.mul(headIndex, targetStride), PARTIAL_STATE_BYTES);
          k.set(target, i32.add(param("partials"), values));
        },
        () => {
          const values = i32.add(i32.mul(row, param("outputStride")), i32.mul(head, headBytes));
          k.set(target, i32.add(param("outputs"), values));
        },
      );
      k.while(
        () => left,
        () => {
          // Packs of nearly equal size: 5 heads are 3 and 2, not 4 and 1.
          const numPacks = k.let(i32.div_u(i32.add(left, MAX_PACK - 1), MAX_PACK));
          const size = k.let(i32.div_u(i32.sub(i32.add(left, numPacks), 1), numPacks));
          for (const [i, pack] of packs.entries()) {
            k.if(i32.eq(size, i + 1), () =>
              k.call(pack, scratch, queries, headDim, count, scale, target, isPartial),
            );
          }
          k.set(left, i32.sub(left, size));
          k.set(queries, i32.add(queries, i32.mul(size, headBytes)));
          k.set(target, i32.add(target, i32.mul(size, targetStride)));
        },
      );
    });
  });
}

interface Range {
  readonly layer: Value<"i32">;
  /** Address of the sequence's block table. */
  readonly table: Variable<"i32">;
  readonly blockSize: Value<"i32">;
  readonly numKvHeads: Variable<"i32">;
  readonly kvHead: Variable<"i32">;
  readonly headDim: Variable<"i32">;
  readonly first: Variable<"i32">;
  readonly count: Variable<"i32">;
  readonly scratch: Variable<"i32">;
}

/** Writes the addresses of the range's units, and the last one's again: packs may take them in pairs. */
function listUnits(k: FunctionBody, format: KvFormat, range: Range): void {
  const { layer, table, numKvHeads, kvHead, headDim, first, count, scratch } = range;
  const blockSize = k.let(range.blockSize);
  const blockShift = k.let(i32.ctz(blockSize));
  const position = k.let(first);
  const last = k.let(i32.div_u(i32.sub(count, 1), UNIT_SLOTS));
  const at = k.let(scratch);
  k.for(0, i32.add(last, 2), 1, (unit) => {
    const entry = i32.add(table, i32.shl(i32.shr_u(position, blockShift), 2));
    const offset = i32.and(position, i32.sub(blockSize, 1));
    const block = i32.load(entry);
    const place = { layer, numKvHeads, kvHead, headDim, blockShift, block, offset };
    i32.store(at, UNITS, unitAddress(format, place));
    k.if(i32.lt_s(unit, last), () => k.set(position, i32.add(position, UNIT_SLOTS)));
    k.set(at, i32.add(at, 4));
  });
}
