import { describeNoNumber } from "../suites/noNumber.ts";
import { openWasm } from "./openWasm.ts";

describeNoNumber("WASM, exact", () => openWasm("exact"));
describeNoNumber("WASM, fast", () => openWasm("fast"));
