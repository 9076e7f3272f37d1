import { describeNoNumber } from "../suites/noNumber.ts";
import { openBackend, testedIcd } from "./device.ts";

describeNoNumber(testedIcd, () => openBackend());
