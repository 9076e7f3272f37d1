import { describeSmolLm2 } from "../suites/smollm2.ts";
import { openWasm } from "./openWasm.ts";

describeSmolLm2("WASM, exact", await openWasm("exact"));
