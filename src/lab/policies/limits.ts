/** Longest sequence of the paper's models. */
export const MAX_MODEL_TOKENS = 2048;

/** Limits of a step in the authors' benchmark, for all systems that batch at every iteration. */
export const MAX_BATCHED_TOKENS = 2560;
export const MAX_SEQUENCES = 256;
