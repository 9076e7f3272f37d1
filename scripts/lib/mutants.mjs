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
      "nothing is drafted for whom others fork from",
      " || forks.length > 0) return [];",
      ") return [];",
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
      "sequence.priority > first.priority && comesBefore(first, sequence);",
      "sequence.priority > first.priority;",
    ],
    [
      "nobody is preempted for what would lack blocks even then",
      "if (!hasBlocks(staying, pool.numFree + most)) return;",
      "",
    ],
    [
      "nobody is preempted for what those who stay leave no blocks for",
      "if (!hasBlocks(staying, pool.numFree + most)) return;",
      "if (!hasBlocks([], pool.numFree + most)) return;",
    ],
    [
      "rows of prompts that are under way are few where they attend to many",
      "const depth = Math.max(0, ...prompts.map(({ numComputedTokens }) => numComputedTokens));",
      "const depth = 0;",
    ],
    [
      "rows of newcomers are few where they attend to many",
      "rowsLeft(sequence.numComputedTokens)",
      "rowsLeft(0)",
    ],
    [
      "nobody is preempted for what would lack slots even then",
      "if (numForksOf(first) >= this.residents.numFreeSlots + slots) return;",
      "",
    ],
    [
      "no more is preempted for a priority than it needs",
      "if (hasSlots && hasBlocks(running, pool.numFree)) return;",
      "",
    ],
    [
      "the worst priority is preempted first",
      "b.priority - a.priority || (comesBefore(a, b) ? 1 : -1)",
      "a.priority - b.priority || (comesBefore(a, b) ? 1 : -1)",
    ],
    [
      "newcomers share rows max-min fairly",
      "const most = Math.max(share, planned.get(sequence) ?? 0);",
      "const most = share;",
    ],
    [
      "prompts share rows fairly",
      "const shares = fairShares(wants, maxRows - builder.numRows);\n    for",
      "const shares = wants.map(() => maxRows - builder.numRows);\n    for",
    ],
    [
      "admission leaves blocks for those who run",
      "return this.#admission.reserveBlocks(running);",
      "return running === undefined ? 1 : 0;",
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
      "what this step is to write is not swapped out",
      " || this.#prefixes.isWrittenNow(block);",
      ";",
    ],
    [
      "the source of a partial hit is held",
      "if (copied !== undefined) this.#pool.retain(copied.block);",
      "",
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
      "if (this.#hits.blocksNeeded(sequence) > this.#pool.numFree - reserveBlocks) return undefined;",
      "if (numBlocks - this.#hits.find(sequence).length > this.#pool.numFree) return undefined;",
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
      "      if (sequence.epoch !== epoch) continue;\n      const request",
      "      const request",
    ],
    [
      "a draft counts only if it is what was sampled",
      "if (i > start && (draft !== sequence.tokens.at(-1) || token === NO_TOKEN)) break;",
      "if (i > start && token === NO_TOKEN) break;",
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
    ["what nobody will swap in is given up", "      this.#released.add(block);\n", ""],
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
    [
      "what was evicted is found no more",
      "while (count > maxBlocks || (node !== undefined && !isIn(node))) {",
      "while (count > maxBlocks) {",
    ],
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
    ["what is in use is not shortened", "&& !this.#isInUse(pin)", ""],
    ["kept prefixes lapse", "if (pin.dueAt > now) return;", "if (pin.dueAt !== now + 1e9) return;"],
  ],
  "deadlines.ts": [
    [
      "a deadline is met in the first step after it",
      "while (this.nextMs <= nowMs) {",
      "while (this.nextMs < nowMs - 100) {",
    ],
  ],
  "stepsInFlight.ts": [
    [
      "nobody waits for a back end that was replaced",
      "    this.#steps = [];\n    this.#release();",
      "    this.#steps = [];",
    ],
    [
      "deadlines and stalls are looked after while the back end is silent",
      "cancel = this.#setTimer?.(this.#release, ms);",
      "",
    ],
  ],
  "watchdog.ts": [
    [
      "a machine that slept is forgiven",
      "if (now - this.#lastTurnMs > 2 * this.turnMs) this.#awakeSinceMs = now;",
      "",
    ],
  ],
  "stepBudget.ts": [
    [
      "what a slow step says ends with the next",
      "const isCheap = MAX_SURPRISE * ms < this.msOf(load);",
      "const isCheap = false;",
    ],
    [
      "small steps that were slow are forgotten when a large one shows it",
      "if (small && small.work < large.work && small.ms > large.ms) this.#small = undefined;",
      "",
    ],
    [
      "the floor's rows take a second at most",
      "Math.min(MIN_PREFILL_ROWS - promptRows, this.#rowsAtFloor(used, depth))",
      "MIN_PREFILL_ROWS - promptRows",
    ],
    ["rows are never free", "Math.max(slope, MIN_ROWS_SHARE * most)", "Math.max(slope, 0)"],
  ],
  "prefixHits.ts": [
    [
      "hits that nobody holds count as taken",
      "return Math.ceil(sequence.numTokens / this.#blockSize) - this.#numHeld(sequence);",
      "return Math.ceil(sequence.numTokens / this.#blockSize) - this.find(sequence).length;",
    ],
    [
      "the last token is computed, whatever is cached",
      "return Math.floor(firstNeededRow / this.#blockSize);",
      "return Math.ceil((firstNeededRow + 1) / this.#blockSize);",
    ],
  ],
  "engine.ts": [
    [
      "no step is submitted beside void ones",
      "while (!(await this.#inFlight.settle(this.#msToTurn()))) {",
      "while (call === undefined) {",
    ],
    [
      "steps in flight are void with the device",
      '    this.#inFlight.clear();\n    this.#scheduler.preemptAll("device");',
      '    this.#scheduler.preemptAll("device");',
    ],
  ],
  "admission.ts": [["blocks of those who end first come back", "returned += blocks;", ""]],
};
