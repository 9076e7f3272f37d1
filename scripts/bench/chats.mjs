/** New tokens of every measured chat. */
export const MAX_TOKENS = 64;

const SUBJECTS = [
  ["Rivers", "a river bends, floods and carries sand"],
  ["Bread", "dough rises, rests and turns brown"],
  ["Bridges", "a bridge carries trucks, bends in wind and lasts"],
  ["Bees", "bees find flowers, dance and make honey"],
  ["Clocks", "a clock keeps time, ticks and runs down"],
  ["Glass", "glass is melted, blown and cooled"],
  ["Tides", "the sea rises, falls and pulls at the shore"],
  ["Violins", "a violin is built, tuned and played"],
  ["Volcanoes", "a volcano wakes, erupts and goes quiet"],
  ["Maps", "a map is drawn, printed and read"],
  ["Owls", "an owl listens, flies without noise and hunts"],
  ["Paper", "paper is pulped, pressed and dried"],
  ["Sails", "a sail catches wind, tears and is mended"],
  ["Frost", "frost forms, grows like leaves and melts"],
];

/** A chat in SmolLM2's format, as raw text: the same tokens whoever reads it. @param {string} user @param {string} [system] */
function chatText(user, system) {
  const first = system === undefined ? "" : `<|im_start|>system\n${system}<|im_end|>\n`;
  return `${first}<|im_start|>user\n${user}<|im_end|>\n<|im_start|>assistant\n`;
}

/** Prompts of about 60 tokens that have only the control tokens in common at their start. */
export const PROMPTS = SUBJECTS.map(([name, what]) =>
  chatText(
    `${name} are my subject for school next week. Please explain to me in plain words how ${what}, ` +
      "why that is so, who found it out and when, and give me two examples from daily life that I " +
      "could show to the class.",
  ),
);

const RULES = [
  "Answer in complete sentences and in the language of the question",
  "Say so plainly when you do not know something, and never invent a source, a date or a name",
  "Prefer short words to long ones and examples to definitions",
  "Give numbers with their units and round them to what the question needs",
  "If a question has several parts, answer them in the order in which they were asked",
  "Do not repeat the question, and do not announce what you are about to do",
  "Use a list only where the reader will want to tick things off",
  "When somebody asks for advice on health, law or money, tell them who could help them further",
  "Explain technical terms at their first use, in half a sentence",
  "Keep to the facts when two people disagree, and say what would settle the matter",
  "Quote no more than two lines of any text, song or poem",
  "Write the names of places as they are written there, with the English name behind them",
  "Warn of danger before the step that is dangerous and not after it",
  "Assume that the reader has a kitchen, a phone and an hour, and nothing else",
  "Treat everybody with the same courtesy, however short or angry the question is",
  "Leave out jokes unless somebody asks for one",
  "If a calculation is needed, show its steps on lines of their own",
  "End when the question is answered, without a summary and without an offer to say more",
];

/** A system message that makes, with what follows, a prompt that starts with 500 tokens of it. */
const SYSTEM =
  "You are the assistant at the desk of a public library, and people of every age come to you with " +
  `questions of every kind. These rules hold for every answer. ${RULES.join(". ")}. The library is ` +
  "open from nine to six on weekdays and from ten to four on Saturdays; on Sundays and public " +
  "holidays it is closed. Books are lent for four weeks, films and games for one, and all of them " +
  "can be kept twice as long if nobody is waiting. The reading room on the second floor is quiet; " +
  "the one on the ground floor is not, and children are welcome there. A card costs nothing for " +
  "people who live in the town and ten a year for all others. The printer takes coins, the scanner " +
  "is free, and somebody will help with both on Tuesday and Thursday afternoons. Lost things are kept " +
  "at the desk for a month, and then they go to the town hall. Dogs stay outside, where there is a " +
  "bowl of water for them. Whoever wants to give books away is thanked, and asked to bring no more " +
  "than a bag of them at a time.";

/** Short questions behind one long system message. */
export const SHARED_PROMPTS = [
  "How do I look after a cactus?",
  "What is a good first book about whales?",
  "Why does my bicycle squeak when it rains?",
  "When was the compass invented?",
].map((question) => chatText(question, SYSTEM));

/**
 * What every contestant is measured on, in this order. Prompts are asked once only, so that none is
 * in a cache.
 */
export const CHAT_CASES = /** @type {const} */ ({
  one: PROMPTS.slice(1, 2),
  four: PROMPTS.slice(2, 6),
  shared: SHARED_PROMPTS,
  eight: PROMPTS.slice(6, 14),
});

/** The prompt whose first token ends the loading. */
export const LOAD_PROMPT = /** @type {string} */ (PROMPTS[0]);
