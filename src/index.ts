export { checkSupport, type Support, type SupportReason } from "./client/checkSupport.ts";
export { createEngine } from "./client/createEngine.ts";
export { deleteModel, listModels } from "./client/storedModels.ts";
export type * from "./client/types.ts";
export type { WasmSupport } from "./client/wasmSupport.ts";
export {
  QuireError,
  type QuireErrorCode,
  type QuireErrorData,
  type QuireErrorValue,
} from "./errors.ts";
