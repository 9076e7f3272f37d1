export { checkSupport, type Support } from "./client/checkSupport.ts";
export { createEngine } from "./client/createEngine.ts";
export { deleteModel, listModels } from "./client/storedModels.ts";
export type * from "./client/types.ts";
export { QuireError, type QuireErrorCode, type QuireErrorData } from "./errors.ts";
