/** Made by scripts/lib/wasmKernels.mjs when the library is built: see kernels/module.ts. */
declare module "virtual:quire-wasm-kernels" {
  interface PackedModule {
    /** The module's bytes: raw deflate, then base64. */
    readonly base64: string;
    readonly sharedFlagOffset: number;
  }
  export const common: readonly PackedModule[];
  export const relaxed: PackedModule;
  export const plain: PackedModule;
}
