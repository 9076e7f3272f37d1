// Tokens that end a generation by what they are called: end of turn, message or text, and the tokens
// around files in code models, after which no answer goes on. llama.cpp goes by the same names, and
// takes a token with such a name for a control token whatever its type in the file.
const END_TEXTS: ReadonlySet<string> = new Set([
  "<|eot_id|>",
  "<|im_end|>",
  "<|end|>",
  "<|return|>",
  "<|call|>",
  "<|flush|>",
  "<|calls|>",
  "<end_of_turn>",
  "<|endoftext|>",
  "</s>",
  "<|eom_id|>",
  "<EOT>",
  "_<EOT>",
  "[EOT]",
  "[EOS]",
  "<|end_of_text|>",
  "<end_of_utterance>",
  "<eos>",
  "<turn|>",
  "<|tool_response>",
  "<\uFF5Cend\u2581of\u2581sentence\uFF5C>",
  "[e~[",
  "<|fim_pad|>",
  "<fim-pad>",
  "<fim_pad>",
  "<PAD>",
  "[PAD]",
  "<|fim_repo|>",
  "<|repo_name|>",
  "<fim-repo>",
  "<REPO>",
  "<reponame>",
  "<|file_sep|>",
]);

/** Tokens at which a generation ends: those that the file names by id, and those with a telling name. */
export function findEndTokens(
  tokens: readonly string[],
  namedIds: readonly (number | undefined)[],
): ReadonlySet<number> {
  const ends = new Set<number>();
  for (const id of namedIds) if (id !== undefined) ends.add(id);
  for (const [id, text] of tokens.entries()) if (isEndText(text)) ends.add(id);
  return ends;
}

export function isEndText(text: string): boolean {
  return END_TEXTS.has(text);
}
