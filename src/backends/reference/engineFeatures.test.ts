import { describeEngineFeatures } from "../../../e2e/suites/engineFeatures.ts";
import { createReferenceBackend } from "./backend.ts";

describeEngineFeatures("the reference back end", async () => createReferenceBackend());
