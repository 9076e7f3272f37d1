/** What this page's WebAssembly offers. */
export interface WasmSupport {
  /**
   * True where the WASM back end can run. A Content-Security-Policy without `'wasm-unsafe-eval'`
   * does not show here: `createEngine` tells.
   */
  readonly ok: boolean;
  /** Best instructions that the back end can use; null where there is no SIMD. */
  readonly simd: "relaxed" | "plain" | null;
  /** True on a cross-origin isolated page, where several threads can share memory. */
  readonly threads: boolean;
}

/** Makes a vector and takes it apart again. */
const SIMD128_BODY = [0x41, 0, 0xfd, 0x0f, 0xfd, 0x15, 0]; // i32.const 0, i8x16.splat, i8x16.extract_lane_s 0

/** The one relaxed instruction that is used: i16x8.relaxed_dot_i8x16_i7x16_s. */
const RELAXED_BODY = [
  ...[0x41, 0, 0xfd, 0x0f], // i32.const 0, i8x16.splat
  ...[0x41, 0, 0xfd, 0x0f],
  ...[0xfd, 0x92, 0x02], // relaxed dot
  ...[0xfd, 0x15, 0], // i8x16.extract_lane_s 0
];

export function wasmSupport(): WasmSupport {
  const simd = bestSimd();
  return { ok: simd !== null, simd, threads: globalThis.crossOriginIsolated === true };
}

function bestSimd(): WasmSupport["simd"] {
  if (typeof WebAssembly === "undefined") return null;
  if (!WebAssembly.validate(moduleOf(SIMD128_BODY))) return null;
  return WebAssembly.validate(moduleOf(RELAXED_BODY)) ? "relaxed" : "plain";
}

/** A module of one function () -> i32. */
export function moduleOf(body: readonly number[]): Uint8Array<ArrayBuffer> {
  const END = 0x0b;
  return Uint8Array.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0], // "\0asm", version 1
    ...[1, 5, 1, 0x60, 0, 1, 0x7f], // one type: () -> i32
    ...[3, 2, 1, 0], // one function of that type
    ...[10, body.length + 4, 1, body.length + 2, 0, ...body, END], // its code, without locals
  ]);
}
