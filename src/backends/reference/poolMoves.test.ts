import { describePoolMoves } from "../../../e2e/suites/poolMoves.ts";
import { createReferenceBackend } from "./backend.ts";

describePoolMoves("the reference back end", async () => createReferenceBackend());
