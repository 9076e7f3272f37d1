import { describe, expect, it } from "vitest";
import { QuireError } from "../errors.ts";
import { createBufferSource } from "./bufferSource.ts";
import type { ByteSource } from "./byteSource.ts";
import { GGUF_LIMITS, parseGguf } from "./gguf.ts";
import { type GgufToWrite, type TensorToWrite, value, writeGguf } from "./ggufWriter.ts";

const { headerBytes, ...limits } = GGUF_LIMITS;

/** A small file with every kind of value and a tensor of each size of block. */
const VALID = writeGguf({
  metadata: {
    "general.architecture": value.string("llama"),
    "test.u8": value.uint8(8),
    "test.f32": value.float32(1e-5),
    "test.bool": value.bool(true),
    "test.u64": value.uint64(2n ** 60n),
    "test.strings": value.strings(["a", "bc", "\uFEFF", "déf"]),
    "test.floats": value.array("float32", [1, 2, 3]),
    "test.bools": value.array("bool", [true, false]),
    "test.nested": value.nested([value.array("int16", [1]), value.strings(["x"])]),
  },
  tensors: [
    { name: "norm.weight", type: "F32", dims: [8], data: new Float32Array(8) },
    { name: "small.weight", type: "Q4_1", dims: [64, 2], data: new Uint8Array(80) },
    { name: "large.weight", type: "Q6_K", dims: [256, 1, 2], data: new Uint8Array(420) },
  ],
  alignment: 32,
});

async function outcome(source: ByteSource | Uint8Array): Promise<unknown> {
  try {
    return await parseGguf(source instanceof Uint8Array ? createBufferSource(source) : source);
  } catch (error) {
    return error;
  }
}

interface Piece {
  readonly at: number;
  readonly bytes: Uint8Array;
}

/** A file of terabytes, zeros but for the pieces: its size alone refuses no claim. */
function hugeSource(...pieces: Piece[]): ByteSource & { readonly bytesRead: () => number } {
  let bytesRead = 0;
  return {
    name: "huge.gguf",
    byteLength: 2 ** 42,
    bytesRead: () => bytesRead,
    async read(offset, byteLength) {
      bytesRead += byteLength;
      const out = new Uint8Array(byteLength);
      for (const { at, bytes } of pieces) {
        const part = bytes.subarray(
          Math.max(0, offset - at),
          Math.max(0, offset + byteLength - at),
        );
        if (part.length > 0) out.set(part, Math.max(0, at - offset));
      }
      return out;
    },
  };
}

it("refuses the file cut at any byte of it", async () => {
  const { tensors } = await parseGguf(createBufferSource(VALID));
  const last = tensors.get("large.weight")!;
  const dataEnd = last.byteOffset + last.byteLength; // padding follows
  for (let end = 0; end < dataEnd; end++) {
    const error = await outcome(VALID.subarray(0, end));
    expect(error, `cut at ${end}`).toMatchObject({ code: "gguf-invalid" });
  }
});

describe("limits hold before anything is allocated", () => {
  const COUNTS_AT = 8; // tensors, then metadata
  const string = value.string("");

  /** `file` with the 64-bit number at `at` replaced. */
  function patched(file: GgufToWrite, at: number, claim: bigint): Uint8Array {
    const bytes = writeGguf(file);
    new DataView(bytes.buffer).setBigUint64(at, claim, true);
    return bytes;
  }
  const entryAt = 24 + 8 + 1 + 4; // of the value of the first entry, with a key of one byte

  const claims: [keyof typeof limits, number, (claim: bigint) => Uint8Array][] = [
    ["tensorCount", limits.tensorCount, (n) => patched({ metadata: {} }, COUNTS_AT, n)],
    ["metadataCount", limits.metadataCount, (n) => patched({ metadata: {} }, COUNTS_AT + 8, n)],
    ["keyBytes", limits.keyBytes, (n) => patched({ metadata: { k: string } }, 24, n)],
    ["stringBytes", limits.stringBytes, (n) => patched({ metadata: { k: string } }, entryAt, n)],
    [
      "arrayLength",
      limits.arrayLength,
      (n) => patched({ metadata: { k: value.strings([]) } }, entryAt + 4, n),
    ],
    [
      "arrayLength",
      limits.arrayLength,
      (n) => patched({ metadata: { k: value.array("float64", []) } }, entryAt + 4, n),
    ],
    [
      "stringBytes",
      limits.stringBytes,
      (n) => patched({ metadata: { k: value.strings([""]) } }, entryAt + 12, n),
    ],
    ["tensorNameBytes", limits.tensorNameBytes, (n) => patched(vector({}), 24, n)],
    ["dim", limits.dim, (n) => patched(vector({}), 24 + 8 + 1 + 4, n)],
  ];

  it.each(claims)("%s of %i", async (name, limit, make) => {
    for (const claim of [BigInt(limit) + 1n, 2n ** 40n, 2n ** 63n, 2n ** 64n - 1n]) {
      const source = hugeSource({ at: 0, bytes: make(claim) });
      const error = await outcome(source);
      expect(error).toMatchObject({ code: "gguf-limit", data: { limit: name, maximum: limit } });
      expect((error as Error).message).toContain(`${name} = ${limit}`);
      expect(source.bytesRead()).toBeLessThan(1e6);
    }
  });

  it("arrayDepth", async () => {
    let nested = value.array("int8", [1]);
    for (let depth = 1; depth < limits.arrayDepth; depth++) nested = value.nested([nested]);
    expect(await outcome(writeGguf({ metadata: { k: nested } }))).not.toBeInstanceOf(Error);
    const error = await outcome(writeGguf({ metadata: { k: value.nested([nested]) } }));
    expect(error).toMatchObject({ code: "gguf-limit", data: { limit: "arrayDepth" } });
  });

  it("arrayCount", async () => {
    const empty = value.array("int8", []);
    const arrays = value.nested(new Array(limits.arrayCount).fill(empty));
    const error = await outcome(writeGguf({ metadata: { k: arrays } }));
    expect(error).toMatchObject({ code: "gguf-limit", data: { limit: "arrayCount" } });
  });

  it("headerBytes", async () => {
    // Four arrays of 32 MiB, each within its own limit; the file has zeros for their numbers.
    const arrayBytes = 8 * limits.arrayLength;
    const entries = ["a", "b", "c", "d"].map((key) => {
      const bytes = writeGguf({ metadata: { [key]: value.array("float64", []) } });
      new DataView(bytes.buffer).setUint32(entryAt + 4, limits.arrayLength, true);
      return bytes.subarray(24, entryAt + 12);
    });
    const header = writeGguf({ metadata: {} }).slice(0, 24);
    header[16] = entries.length;
    const source = hugeSource(
      { at: 0, bytes: header },
      ...entries.map((bytes, i) => ({ at: 24 + i * (bytes.length + arrayBytes), bytes })),
    );
    const error = await outcome(source);
    expect(error).toMatchObject({ code: "gguf-limit", data: { limit: "headerBytes" } });
    expect(source.bytesRead()).toBeLessThanOrEqual(headerBytes + 4 * 2 ** 20);
  });

  it("dims", async () => {
    const error = await outcome(writeGguf(vector({ dims: [1, 1, 1, 1, 8] })));
    expect(error).toMatchObject({ code: "gguf-limit", data: { limit: "dims" } });
  });

  it("tensorElements", async () => {
    const bytes = writeGguf(vector({ dims: [2 ** 20, 2 ** 20, 2 ** 20] }));
    const error = await outcome(hugeSource({ at: 0, bytes }));
    expect(error).toMatchObject({ code: "gguf-limit", data: { limit: "tensorElements" } });
  });

  it("alignment", async () => {
    const metadata = { "general.alignment": value.uint32(2 ** 20) };
    const error = await outcome(writeGguf({ metadata }));
    expect(error).toMatchObject({ code: "gguf-limit", data: { limit: "alignment" } });
  });
});

describe("files that contradict themselves", () => {
  const two = (b: Partial<TensorToWrite>): GgufToWrite => {
    const data = new Float32Array(64);
    const a = { name: "a", type: "F32", dims: [64], data } as const;
    return { metadata: {}, tensors: [a, { ...a, name: "b", ...b }] };
  };
  const alignment = (entry: ReturnType<typeof value.uint32>): GgufToWrite => {
    return { metadata: { "general.alignment": entry } };
  };
  const cases: [string, GgufToWrite, string][] = [
    ["two tensors of one name", two({ name: "a" }), "twice"],
    ["tensors that overlap", two({ offset: 32 }), "overlap"],
    ["an offset between alignments", two({ offset: 257 }), "multiple of 32"],
    ["an offset outside the file", two({ offset: 2 ** 30 }), "past the file"],
    ["an offset of 64 bits", two({ offset: 2n ** 64n - 32n }), "past the file"],
    ["a tensor larger than the file", vector({ dims: [8, 2 ** 20] }), "past the file"],
    ["an empty dimension", vector({ dims: [8, 0] }), "empty dimension"],
    ["half a block", vector({ type: "Q4_0", dims: [16, 2] }), "multiple of 32"],
    ["half a large block", vector({ type: "Q4_K", dims: [128, 2] }), "multiple of 256"],
    ["an alignment of 0", alignment(value.uint32(0)), "power of two"],
    ["an alignment of 3", alignment(value.uint32(3)), "power of two"],
    ["an alignment of 0.5", alignment(value.float32(0.5)), "power of two"],
    ["an alignment in words", alignment(value.string("32")), "power of two"],
    [
      "two metadata entries of one key",
      {
        metadata: [
          ["k", value.uint8(1)],
          ["k", value.uint8(2)],
        ],
      },
      "twice",
    ],
  ];
  it.each(cases)("%s", async (_, file, message) => {
    const error = await outcome(writeGguf(file));
    expect(error).toMatchObject({
      code: "gguf-invalid",
      message: expect.stringContaining(message),
    });
  });

  it("a bool of 2, a value type of 13, a key that is not UTF-8", async () => {
    const bytes = writeGguf({ metadata: { k: value.bool(true) } });
    const typeAt = 24 + 8 + 1;
    for (const [at, byte, message] of [
      [typeAt + 4, 2, "bool 2"],
      [typeAt, 13, "value type 13"],
      [typeAt - 1, 0xff, "not UTF-8"],
    ] as const) {
      const broken = bytes.slice();
      broken[at] = byte;
      expect(await outcome(broken)).toMatchObject({
        code: "gguf-invalid",
        message: expect.stringContaining(message),
      });
    }
  });

  it("an array longer than the file", async () => {
    const bytes = writeGguf({ metadata: { k: value.array("float64", [1]) } });
    new DataView(bytes.buffer).setUint32(24 + 8 + 1 + 4 + 4, 4_000_000, true);
    expect(await outcome(bytes)).toMatchObject({ code: "gguf-invalid" });
  });

  it("garbage", async () => {
    const random = randomNumbers(7);
    for (let i = 0; i < 50; i++) {
      const garbage = Uint8Array.from({ length: 1 + (random() % 5000) }, () => random());
      expect(await outcome(garbage)).toMatchObject({ code: "gguf-invalid" });
    }
  });

  it("does not repeat a long key in its message", async () => {
    const key = "k".repeat(60_000);
    const entry = [key, value.uint8(1)] as const;
    const error = await outcome(writeGguf({ metadata: [entry, entry] }));
    expect((error as Error).message.length).toBeLessThan(300);
  });
});

describe("mutations end in a file or a QuireError", () => {
  const NUM_MUTATIONS = 3000;

  it(`${NUM_MUTATIONS} of them, quickly and without reading on`, async () => {
    const random = randomNumbers(42);
    const codes: Record<string, number> = {};
    const start = performance.now();
    for (let i = 0; i < NUM_MUTATIONS; i++) {
      const bytes = mutate(VALID, random);
      // Every other one claims to go on for terabytes.
      const source = hugeSource({ at: 0, bytes });
      const result = await outcome(i % 2 === 0 ? bytes : source);
      if (result instanceof Error && !(result instanceof QuireError)) {
        throw new Error(`Mutation ${i} ended in ${result}`, { cause: result });
      }
      const code = result instanceof QuireError ? result.code : "valid";
      codes[code] = (codes[code] ?? 0) + 1;
      expect(source.bytesRead()).toBeLessThan(headerBytes);
    }
    expect(Object.keys(codes).sort()).toEqual([
      "gguf-invalid",
      "gguf-limit",
      "model-unsupported",
      "valid",
    ]);
    expect(performance.now() - start).toBeLessThan(20_000);
  });

  it("reads what is valid into the file's bounds", async () => {
    const random = randomNumbers(43);
    for (let i = 0; i < 500; i++) {
      const bytes = mutate(VALID, random);
      const file = await parseGguf(createBufferSource(bytes)).catch(() => undefined);
      for (const tensor of file?.tensors.values() ?? []) {
        expect(tensor.byteOffset + tensor.byteLength).toBeLessThanOrEqual(bytes.length);
      }
    }
  });
});

/** Bit flips, overwritten words, a cut, or a piece of the file copied over another. */
function mutate(original: Uint8Array, random: () => number): Uint8Array {
  const bytes = original.slice();
  const view = new DataView(bytes.buffer);
  const at = () => random() % (bytes.length - 8);
  switch (random() % 5) {
    case 0:
      for (let i = 1 + (random() % 8); i > 0; i--) bytes[at()]! ^= 1 << (random() % 8);
      return bytes;
    case 1:
      view.setUint32(at(), [0, 0xffffffff, 0x7fffffff, random()][random() % 4]!, true);
      return bytes;
    case 2:
      view.setBigUint64(at(), 1n << BigInt(random() % 64), true);
      return bytes;
    case 3:
      return bytes.subarray(0, at());
    default: {
      const [from, to, length] = [at(), at(), 1 + (random() % 64)];
      bytes.copyWithin(to, from, from + length);
      return bytes;
    }
  }
}

function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    // xorshift32
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % 0x7fffffff;
  };
}

function vector(changes: Partial<TensorToWrite>): GgufToWrite {
  const data = new Float32Array(8);
  return { metadata: {}, tensors: [{ name: "w", type: "F32", dims: [8], data, ...changes }] };
}
