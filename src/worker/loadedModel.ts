import { Engine } from "../engine/engine.ts";
import { openModel } from "../model/model.ts";
import { planSpec } from "../model/planSpec.ts";
import { type ChatTemplate, createChatTemplate, readChatTemplate } from "../text/chatTemplate.ts";
import { createTokenizer, type Tokenizer } from "../text/tokenizer.ts";
import type { ByteSource } from "../weights/byteSource.ts";
import type { GgufFile } from "../weights/gguf.ts";
import type { ChosenBackend } from "./chooseBackend.ts";
import { type PlaceableModel, type Placement, placeModel } from "./placement.ts";
import type { EngineStats, LoadProgress, LoadRequest } from "./protocol.ts";

/** All that a running model consists of. */
export interface LoadedParts {
  readonly info: EngineStats["model"];
  readonly tokenizer: Tokenizer;
  readonly chatTemplate: ChatTemplate;
  readonly engine: Engine;
  readonly placeable: PlaceableModel;
  readonly placement: Placement;
  /** Longest sequence in tokens. */
  readonly maxContext: number;
  /** Tokens a KV block. */
  readonly blockSize: number;
  /** Blocks of the KV pool that the engine gives out. */
  readonly numBlocks: number;
}

export interface LoadContext {
  readonly createBackend: (signal: AbortSignal) => Promise<ChosenBackend>;
  readonly openSource: (signal: AbortSignal) => Promise<ByteSource>;
  readonly signal: AbortSignal;
  readonly onProgress: (progress: LoadProgress) => void;
  readonly now: () => number;
}

/** Opens, checks and loads a model. On failure nothing stays allocated. */
export async function loadModel(request: LoadRequest, context: LoadContext): Promise<LoadedParts> {
  // The back end comes up while the file is opened; whoever fails first ends the other.
  const failure = new AbortController();
  const signal = AbortSignal.any([context.signal, failure.signal]);
  const backendSoon = context.createBackend(signal);
  try {
    const backendFails = backendSoon.then(() => new Promise<never>(() => {}));
    return await Promise.race([loadParts(request, context, backendSoon, signal), backendFails]);
  } catch (error) {
    failure.abort(error);
    // Not awaited: a back end that is still coming up must not hold up the news.
    backendSoon.then(
      ({ backend }) => backend.dispose(),
      () => {},
    );
    throw error;
  }
}

async function loadParts(
  request: LoadRequest,
  context: LoadContext,
  backendSoon: Promise<ChosenBackend>,
  signal: AbortSignal,
): Promise<LoadedParts> {
  const { onProgress } = context;
  const source = await context.openSource(signal);
  onProgress({ phase: "prepare", loadedBytes: 0, totalBytes: 0 });
  const model = await openModel(source, signal);
  const { metadata } = model.gguf;
  const tokenizer = createTokenizer(metadata);
  const chatTemplate = openChatTemplate(request.chatTemplate, metadata, tokenizer);
  const spec = planSpec(model.config, {
    blockSize: request.blockSize,
    kvCacheBytes: request.kvCacheBytes,
    kvBlocks: request.kvCacheBlocks,
    kvCacheDtype: request.kvCacheDtype,
    maxSequences: request.maxSequences,
    swapBytes: request.swapBytes,
  });
  // Without the file's metadata, which nobody needs again.
  const placeable = { model: { tensors: model.tensors }, spec, source };
  const report = monotonic(onProgress);
  const placement = await placeModel(placeable, await backendSoon, signal, report);
  const { plan } = placement;
  const engine = new Engine({
    executor: plan,
    numBlocks: plan.numBlocks,
    blockSize: spec.blockSize,
    blockBytes: plan.blockBytes,
    numHostBlocks: spec.numHostBlocks,
    maxSequences: spec.maxSequences,
    maxRows: plan.maxRows,
    maxContext: spec.maxContext,
    endTokens: tokenizer.endTokens,
    now: context.now,
    setTimer: (callback, ms) => {
      const timer = setTimeout(callback, ms);
      return () => clearTimeout(timer);
    },
    ...(request.waitingOrder === undefined ? {} : { waitingOrder: request.waitingOrder }),
  });
  const info: EngineStats["model"] = {
    name: modelName(metadata, source.name),
    file: source.name,
    byteLength: source.byteLength,
    architecture: model.config.architecture,
    parameters: [...model.gguf.tensors.values()].reduce((sum, t) => sum + t.rows * t.columns, 0),
    contextLength: spec.maxContext,
    vocabularySize: spec.vocabularySize,
    hasChatTemplate: (request.chatTemplate ?? readChatTemplate(metadata)) !== undefined,
  };
  const { maxContext, blockSize } = spec;
  return {
    info,
    tokenizer,
    chatTemplate,
    engine,
    placeable,
    placement,
    maxContext,
    blockSize,
    numBlocks: plan.numBlocks,
  };
}

/** Reports that never go back, whatever order the parts finish in. */
export function monotonic(
  onProgress: (progress: LoadProgress) => void,
  phase: LoadProgress["phase"] = "weights",
): (progress: Omit<LoadProgress, "phase">) => void {
  let best = -1;
  return ({ loadedBytes, totalBytes }) => {
    if (loadedBytes <= best) return;
    best = loadedBytes;
    onProgress({ phase, loadedBytes, totalBytes });
  };
}

/** A template given by the user is tried with a small chat at once; the file's own when it is needed. */
function openChatTemplate(
  given: string | undefined,
  metadata: GgufFile["metadata"],
  tokenizer: Tokenizer,
): ChatTemplate {
  if (given === undefined) {
    return createChatTemplate({ source: readChatTemplate(metadata), tokenizer });
  }
  const template = createChatTemplate({ source: given, tokenizer, name: "given as chatTemplate" });
  template.encode([{ role: "user", content: "Hello" }], { addGenerationPrompt: true });
  return template;
}

function modelName(metadata: GgufFile["metadata"], file: string): string {
  const name = metadata.get("general.name");
  if (typeof name === "string" && name.trim() !== "") return name.trim().slice(0, 200);
  return file.split("/").pop() || file;
}
