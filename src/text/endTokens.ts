import { TOKEN_TYPES, type Vocabulary } from "./vocabulary.ts";

// Control tokens that end a generation by what they are called: end of turn, message or text, and
// the tokens around files in code models, after which no answer goes on. llama.cpp goes by the
// same names.
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

/** Tokens at which a generation ends: the file's own, and control tokens with a telling name. */
export function findEndTokens(vocabulary: Vocabulary): ReadonlySet<number> {
  const { eosToken, eotToken, eomToken, tokens, types } = vocabulary;
  const ends = new Set<number>();
  for (const id of [eosToken, eotToken, eomToken]) if (id !== undefined) ends.add(id);
  for (const [id, text] of tokens.entries()) {
    if (types[id] === TOKEN_TYPES.control && END_TEXTS.has(text)) ends.add(id);
  }
  return ends;
}
