import type { CostModel } from "./costModel.ts";
import { createFasterTransformer } from "./policies/fasterTransformer.ts";
import { createHf } from "./policies/hf.ts";
import { Orca } from "./policies/orca.ts";
import { Quire } from "./policies/quire.ts";
import { Serial } from "./policies/serial.ts";
import { Tgi } from "./policies/tgi.ts";
import { Vllm } from "./policies/vllm.ts";
import type { System, SystemId } from "./system.ts";

export interface SystemOptions {
  readonly model: CostModel;
  readonly seed: number;
  /** Orca: output tokens for which room is reserved, whatever it knows. */
  readonly reservedOutput?: number;
}

/** A fresh system with the defaults of its policy. */
export function createSystem(id: SystemId, options: SystemOptions): System {
  switch (id) {
    case "serial":
      return new Serial(options);
    case "ft":
      return createFasterTransformer(options);
    case "hf":
      return createHf(options);
    case "tgi":
      return new Tgi(options);
    case "orca-max":
      return new Orca({ ...options, knowledge: "max" });
    case "orca-pow2":
      return new Orca({ ...options, knowledge: "pow2" });
    case "orca-oracle":
      return new Orca({ ...options, knowledge: "oracle" });
    case "vllm":
      return new Vllm(options);
    case "quire":
      return new Quire(options);
  }
}
