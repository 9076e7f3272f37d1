import { afterAll, test } from "vitest";
import { ORACLE_CASES } from "../fixtures/oracleCases.ts";
import { checkOracleCase } from "../suites/oracle.ts";
import { openBackend, testedIcd } from "./device.ts";

const backend = await openBackend();
afterAll(() => backend.dispose());

test.each(ORACLE_CASES)(
  `$name: logits equal llama.cpp's, on ${testedIcd}`,
  { timeout: 600_000 },
  (oracleCase) => checkOracleCase(backend, oracleCase, 64),
);
