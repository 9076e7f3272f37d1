/**
 * A rule of the engine and how it is broken: what must hold, so that a test must fail if it does not; text
 * that the file has once; what takes its place.
 * @typedef {readonly [rule: string, find: string, replace: string]} Mutant
 */

/**
 * By file in `src/engine`.
 * @type {Readonly<Record<string, readonly Mutant[]>>}
 */
export const MUTANTS = {
  "scheduler.ts": [
    [
      "every decoding sequence has a row in every step",
      "numRowsWanted(sequence) === 1);\n    let numSpare",
      "numRowsWanted(sequence) === 1).slice(0, 2);\n    let numSpare",
    ],
    [
      "nobody is admitted in a step that preempted for blocks",
      "numPreempted === 0 ? this.#newcomers",
      "numPreempted >= 0 ? this.#newcomers",
    ],
    [
      "no row behind the sample that is the last",
      "  if (numPendingTokens > 0 && numOutputTokens >= maxTokens) return 0;\n",
      "",
    ],
    [
      "rows end where others fork",
      "if (forks.length > 0) count = Math.min(count, forkAt - numComputedTokens);",
      "",
    ],
    [
      "samples of a shared row count as logits",
      "if (isComplete && last - first + numSamples > numLogits) count -= 1;",
      "",
    ],
    [
      "swapped blocks come back after the result of the step that took them out",
      "if (sequence.swapped.stepId > this.numCompletedSteps) return false;",
      "",
    ],
    ["nobody waits for a swap-out that no step carries", "this.residents.cancelSwapOuts(id);", ""],
    [
      "nobody is overtaken more than MAX_SKIPS times",
      "if (starving.some((other) => isPassedOver(other, sequence))) continue;",
      "",
    ],
    [
      "no lower priority passes one that does not fit",
      "if (sequence.priority > lowestPriority) continue;",
      "",
    ],
    ["nobody passes a preempted sequence", "if (sequence.isPaused) return;", ""],
    [
      "a sequence that has aged is not preempted for a later one",
      " && comesBefore(first, sequence),",
      ",",
    ],
    [
      "nobody is preempted for what would lack blocks even then",
      "if (needed > pool.numFree + most) return;",
      "",
    ],
    [
      "nobody is preempted for what would lack slots even then",
      "if (numForksOf(first) >= this.residents.numFreeSlots + slots) return;",
      "",
    ],
    [
      "no more is preempted for a priority than it needs",
      "if (hasBlocks && numForksOf(first) < this.residents.numFreeSlots) return;",
      "",
    ],
    [
      "the worst priority is preempted first",
      "b.priority - a.priority || (comesBefore(a, b) ? 1 : -1)",
      "a.priority - b.priority || (comesBefore(a, b) ? 1 : -1)",
    ],
    [
      "newcomers share rows max-min fairly",
      "const most = Math.min(numRows, Math.max(share, planned.get(sequence) ?? 0));",
      "const most = share;",
    ],
    [
      "prompts share rows fairly",
      "const shares = fairShares(wants, maxRows - builder.numRows);\n    for",
      "const shares = wants.map(() => maxRows - builder.numRows);\n    for",
    ],
    [
      "admission leaves blocks for those who run",
      "return running.size === 0 ? 0 : this.#admission",
      "return running.size >= 0 ? 0 : this.#admission",
    ],
    [
      "drafts take only spare logits",
      "let numSpare = this.residents.numFreeSlots;",
      "let numSpare = this.#options.maxLogits;",
    ],
    [
      "drafts end at maxTokens",
      "Math.min(numSpare, maxTokens - numOutputTokens - 1)",
      "Math.min(numSpare, maxTokens)",
    ],
    [
      "drafts need blocks",
      "return this.kvCache.reserve(sequence, 1 + drafts.length) ? drafts : [];",
      "return drafts;",
    ],
    ["more samples than slots take turns", "    residents.trimForks(sequence);\n", ""],
    ["resumed beams compute what is their own", "if (fork.numTokens > forkAt) continue;", ""],
    [
      "a lookup is counted once",
      "if (sequence.cachedTokens === undefined) {",
      "if (numPromptTokens > 0) {",
    ],
    [
      "what is being computed is waited for",
      "if (this.#newcomers.waitsToShare(sequence)) {",
      "if (sequence.numTokens < 0) {",
    ],
    ["who waits to share holds nobody up", "sharing.add(sequence);", ""],
  ],
  "residents.ts": [
    [
      "samples outlive the one that computes the prompt",
      "for (const fork of sequence.forks) this.#release(fork);",
      "",
    ],
    [
      "an ended sample gives its promised slot back",
      "if (isSeated(parent)) this.#slots.reserve(-1);",
      "",
    ],
    ["results of who left its slot are void", "sequence.epoch += 1;", ""],
    ["tokens in flight are forgotten with the slot", "sequence.numPendingTokens = 0;", ""],
    ["tokens are spelled out after a preemption", "sequence.lastTokenInSlot = false;", ""],
    ["a new occupant resets its slot", "sequence.isFresh = true;", ""],
    [
      "nothing is swapped out of a pool that is lost",
      'if (reason === "caller" || reason === "device") return false;',
      "",
    ],
    ["beams forget what came of a void step", "sequence.beams?.reset();", ""],
    ["host blocks are void with the device", 'if (reason === "device") this.#voidSwapOuts(0);', ""],
    ["nobody is swapped out without host memory", "this.#hostBlocks.close();", ""],
    [
      "what a failed step was to swap out is void",
      "this.#voidSwapOuts(lastStepId + 1);",
      "this.#swapOuts = [];",
    ],
    [
      "what was swapped out before stays usable",
      "this.#voidSwapOuts(lastStepId + 1);",
      "this.#voidSwapOuts(0);",
    ],
    [
      "slots of dropped beams are kept for copies",
      "this.#slots.reserve(dropped.length - copies.length);",
      "",
    ],
  ],
  "kvCache.ts": [
    [
      "hits that nobody holds count as taken",
      "const numNeeded = numBlocks - hits.length + this.#countFree(hits);",
      "const numNeeded = numBlocks - hits.length;",
    ],
    [
      "the source of a partial hit is held",
      "if (copied !== undefined) this.#pool.retain(copied.block);",
      "",
    ],
    [
      "the last token is computed, whatever is cached",
      "return Math.floor(sequence.firstNeededRow / this.#blockSize);",
      "return Math.ceil((sequence.firstNeededRow + 1) / this.#blockSize);",
    ],
    [
      "only known tokens are cached",
      "return Math.min(numComputedTokens, tokens.length);",
      "return numComputedTokens;",
    ],
    [
      "a tail that others write into is not cached",
      "if (this.#pool.refCount(block) > 1 || this.#tables.copies.hasTarget(block)) return;",
      "",
    ],
    [
      "swapping in needs its blocks, the reserve beside",
      "if (numNew + this.#countFree(hits) > this.#pool.numFree - reserveBlocks) return undefined;",
      "if (numNew > this.#pool.numFree) return undefined;",
    ],
    [
      "rejected drafts give their blocks back",
      "      Math.max(Math.ceil(sequence.numTokens / this.#blockSize), numHashedBlocks),\n",
      "      sequence.blockTable.length,\n",
    ],
  ],
  "blockTables.ts": [
    [
      "the first writer into a shared block gets a copy",
      "if (this.isShared(blockTable[i]!)) this.#replace(holder, i);",
      "",
    ],
    [
      "the last holder writes in place",
      "return this.copies.numOwners(block) > 1;",
      "return this.copies.numOwners(block) > 0;",
    ],
    [
      "a replaced block is sent again",
      "holder.numSentBlocks = Math.min(numSentBlocks, index);",
      "",
    ],
    [
      "a copy into a block that was let go is dropped",
      "if (this.#pool.refCount(block) === 0) this.copies.drop(block);",
      "",
    ],
  ],
  "victim.ts": [
    ["the first in line is spared", "if (isSpared || kvCache", "if (kvCache"],
    [
      "a victim has blocks to give",
      "|| kvCache.exclusiveBlocks(sequence) === 0) continue;",
      ") continue;",
    ],
    ["the cheapest victim is taken", "return cost < victimCost;", "return cost > victimCost;"],
    [
      "the victim has the worst priority",
      "return sequence.priority > victim.priority;",
      "return sequence.priority < victim.priority;",
    ],
  ],
  "outcomes.ts": [
    [
      "void samples are not delivered",
      "      if (sequence.epoch !== epoch) continue;\n      const { beams }",
      "      const { beams }",
    ],
    [
      "a draft counts only if it is what was sampled",
      "if (i > start && draft !== sequence.tokens.at(-1)) break;",
      "",
    ],
    ["nothing comes after a stop", "i < end && finishReason === undefined; i++", "i < end; i++"],
    [
      "the output ends at maxTokens",
      "return numOutputTokens === sequence.maxTokens ?",
      "return numOutputTokens > sequence.maxTokens ?",
    ],
    [
      "the best samples are delivered",
      "const difference = mean(b) - mean(a);",
      "const difference = mean(a) - mean(b);",
    ],
    [
      "rejected drafts are not computed tokens",
      "if (numDrafts > 0) kvCache.truncate(",
      "if (numDrafts < 0) kvCache.truncate(",
    ],
    [
      "a stop among drafts cuts nothing that is cached",
      "const numRowless = sequence.stopToken === undefined ? 1 : 0;",
      "const numRowless = 1;",
    ],
  ],
  "stepBuilder.ts": [
    [
      "only what the slot sampled last is left to it",
      "const inSlot = position === last && sequence.lastTokenInSlot;",
      "const inSlot = position === last;",
    ],
    ["entries are sent once", "    sequence.numSentBlocks = blockTable.length;\n", ""],
    [
      "penalties know the tokens so far",
      "const counted = usesPenalties(sampling);",
      "const counted = false;",
    ],
  ],
  "sequence.ts": [
    [
      "who forks does so from a row of the step",
      "const end = this.forks.length > 0 ? this.forkAt : this.tokens.length;",
      "const end = this.tokens.length;",
    ],
  ],
  "hostBlocks.ts": [
    [
      "no host block goes out and in in one step",
      "const end = this.#free.length - numFresh;",
      "const end = this.#free.length;",
    ],
  ],
  "blockCopies.ts": [
    ["copies let go of their sources", "for (const copy of copies) this.#letGo(copy);", ""],
  ],
  "waitingQueue.ts": [
    [
      "better priorities stand before others",
      "return sequence.arrivalMs + sequence.priority * AGING_MS;",
      "return sequence.arrivalMs;",
    ],
  ],
  "pipelineDepth.ts": [
    [
      "a deeper pipeline must pay",
      "triedMs < (1 - WORTHWHILE_GAIN) * baseMs",
      "triedMs <= (1 + WORTHWHILE_GAIN) * baseMs",
    ],
  ],
  "newcomers.ts": [
    [
      "a step looks at a bounded part of the queue",
      "if (candidates.length === numFreeSlots + LOOKAHEAD) break;",
      "",
    ],
    ["no prefix goes before a better priority", "a.priority - b.priority || cached", "cached"],
    [
      "no rows are set aside for who lacks slots",
      "const slots = Math.min(1 + numForksOf(sequence), this.#residents.numSlots);",
      "const slots = 1;",
    ],
  ],
  "fairShares.ts": [
    [
      "what somebody does not need goes to the others",
      "Math.floor(left / (order.length - place))",
      "Math.floor(total / order.length)",
    ],
  ],
  "prefixCache.ts": [
    ["kept prefixes are evicted last", "if (node.numPins > 0) return BLOCK_RANK.kept;", ""],
    [
      "superseded prefixes are evicted first",
      "return node.isSuperseded ? BLOCK_RANK.superseded : BLOCK_RANK.cached;",
      "return BLOCK_RANK.cached;",
    ],
    [
      "what the step itself writes is not copied",
      "this.#writtenIn[own]! < this.stepId",
      "this.#writtenIn[own]! <= this.stepId",
    ],
  ],
  "retention.ts": [
    ["kept prefixes lapse", "if (pin.dueAt > now) return;", "if (pin.dueAt !== now + 1e9) return;"],
  ],
  "deadlines.ts": [
    [
      "a deadline is met in the first step after it",
      "if (first.queueKey > nowMs) break;",
      "if (first.queueKey >= nowMs - 100) break;",
    ],
  ],
  "engine.ts": [
    [
      "no step is submitted beside void ones",
      "if (canGoOn) await Promise.allSettled(this.#inFlight.map(({ result }) => result));",
      "",
    ],
    [
      "steps in flight are void with the device",
      '    this.#inFlight = [];\n    this.#scheduler.preemptAll("device");',
      '    this.#scheduler.preemptAll("device");',
    ],
  ],
  "admission.ts": [["blocks of those who end first come back", "returned += blocks;", ""]],
};
