import { afterAll } from "vitest";
import { describeBatchInvariance } from "../suites/batchInvariance.ts";
import { openBackend, testedIcd } from "./device.ts";

const backend = await openBackend();
afterAll(() => backend.dispose());

describeBatchInvariance(testedIcd, backend);
