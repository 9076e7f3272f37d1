// What is wanted of the raw logits: of samples by their slots' records, of scores by the step itself.
// A place counts through the step's samples and then its scores; rows of logits are in that order.
struct Report {
  isWanted: bool,
  isScore: bool,
  numTop: u32,  // best tokens
  token: u32,   // of a score: the token that it judges
}

fn numPlaces() -> u32 {
  return header.more.z;
}

fn reportOf(place: u32) -> Report {
  let at = header.counts.w + place * 4u;
  let word = stepWords[at + 1u];
  if (stepWords[at + 3u] != 0u) {
    return Report(true, true, stepWords[at + 2u], word);
  }
  let isWanted = (slotWord(word, SLOT_FLAGS) & LOGPROBS_FLAG) != 0u;
  return Report(isWanted, false, slotWord(word, SLOT_NUM_TOP), NO_TOKEN);
}
