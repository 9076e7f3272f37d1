import { describeEngineFeatures } from "../suites/engineFeatures.ts";
import { openBackend, testedIcd } from "./device.ts";

describeEngineFeatures(testedIcd, () => openBackend());
