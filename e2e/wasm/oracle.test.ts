import { describe, test } from "vitest";
import { ORACLE_CASES } from "../fixtures/oracleCases.ts";
import { checkOracleCase } from "../suites/oracle.ts";
import { openWasm } from "./openWasm.ts";

describe.each(["relaxed", "plain"] as const)("exact, %s SIMD", async (simd) => {
  const backend = await openWasm("exact", simd);

  test.each(ORACLE_CASES)("$name: logits equal llama.cpp's", (oracleCase) =>
    checkOracleCase(backend, oracleCase, 64),
  );
});
