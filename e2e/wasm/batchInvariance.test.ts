import { describeBatchInvariance } from "../suites/batchInvariance.ts";
import { openWasm } from "./openWasm.ts";

describeBatchInvariance("WASM, fast", await openWasm("fast"));
describeBatchInvariance("WASM, exact", await openWasm("exact"));
