import { QuireError } from "../errors.ts";

const ROLES = ["system", "user", "assistant"] as const;

export type ChatRole = (typeof ROLES)[number];

/** A part of a message's content, as in OpenAI's API. */
export interface ChatTextPart {
  readonly type: "text";
  readonly text: string;
}

/** A message of a conversation, as in OpenAI's API. */
export interface ChatMessage {
  readonly role: ChatRole;
  /** Parts are joined by line ends. */
  readonly content: string | readonly ChatTextPart[];
}

/** A checked message whose content is one text. */
export interface PlainMessage {
  readonly role: ChatRole;
  readonly content: string;
}

// Roles that OpenAI's API has and Quire does not.
const LATER_ROLES: readonly unknown[] = ["tool", "developer", "function"];

/**
 * Checks messages from outside.
 * Throws `invalid-argument` for what is no message, `unsupported` for kinds that Quire lacks.
 */
export function checkMessages(messages: unknown): readonly PlainMessage[] {
  if (!Array.isArray(messages) || messages.length === 0) {
    throw new QuireError(
      "invalid-argument",
      `messages is ${Array.isArray(messages) ? "empty" : "not a list"}. Pass at least one message, { role, content }.`,
    );
  }
  return messages.map((message: unknown, i) => checkMessage(message, `messages[${i}]`));
}

function checkMessage(message: unknown, where: string): PlainMessage {
  if (!isRecord(message)) throw invalid(`${where} is not an object`, "{ role, content }");
  const { role, content, ...rest } = message;
  for (const [field, value] of Object.entries(rest)) {
    // OpenAI's own answers, which are sent back as messages, hold empty fields.
    if (value !== undefined && value !== null) throw unsupported(`${where}.${field}`);
  }
  if (LATER_ROLES.includes(role)) throw unsupported(`The role "${String(role)}" of ${where}`);
  if (!isRole(role)) throw invalid(`${where}.role is ${JSON.stringify(role)}`, ROLES.join(", "));
  if (typeof content === "string") return { role, content };
  if (!Array.isArray(content) || content.length === 0) {
    throw invalid(`${where}.content is not a text`, "a string or a list of text parts");
  }
  const texts = content.map((part: unknown, i) => checkPart(part, `${where}.content[${i}]`));
  return { role, content: texts.join("\n") };
}

function checkPart(part: unknown, where: string): string {
  if (!isRecord(part)) throw invalid(`${where} is not an object`, '{ type: "text", text }');
  if (part["type"] !== "text")
    throw unsupported(`The type ${JSON.stringify(part["type"])} of ${where}`);
  if (typeof part["text"] !== "string") throw invalid(`${where}.text is not a string`, "a string");
  return part["text"];
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isRole(value: unknown): value is ChatRole {
  return (ROLES as readonly unknown[]).includes(value);
}

function invalid(found: string, expected: string): QuireError {
  return new QuireError("invalid-argument", `${found}. Pass ${expected}.`);
}

function unsupported(what: string): QuireError {
  return new QuireError(
    "unsupported",
    `${what} is not supported. Messages have a role (${ROLES.join(", ")}) and a text.`,
  );
}
