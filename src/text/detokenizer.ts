/** What a detokenizer needs to know of a tokenizer. */
export interface TokenBytes {
  /** Whether encoding put a space before the text. */
  readonly addSpacePrefix: boolean;
  tokenBytes(id: number): Uint8Array;
  isControl(id: number): boolean;
}

export interface DetokenizerOptions {
  /**
   * Whether the tokens go on after other text. Then the space that some vocabularies put before a
   * text's first word belongs to the text and stays. Default: false.
   */
  readonly continuesText?: boolean;
}

const SPACE = 0x20;

/**
 * Text of tokens as they come. A character that is spread over tokens appears when it is whole;
 * bytes that can't become a character appear as U+FFFD. Control tokens are passed over.
 * Each token costs its own bytes, however long the text is.
 */
export class Detokenizer {
  readonly #tokenizer: TokenBytes;
  // The text may hold U+FEFF, which is not a mark of its encoding.
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  #dropsSpace: boolean;

  constructor(tokenizer: TokenBytes, { continuesText = false }: DetokenizerOptions = {}) {
    this.#tokenizer = tokenizer;
    this.#dropsSpace = tokenizer.addSpacePrefix && !continuesText;
  }

  /** Takes the next token; returns the text that is certain now, often the token's own. */
  push(id: number): string {
    if (this.#tokenizer.isControl(id)) return "";
    let bytes = this.#tokenizer.tokenBytes(id);
    if (this.#dropsSpace && bytes.length > 0) {
      this.#dropsSpace = false;
      if (bytes[0] === SPACE) bytes = bytes.subarray(1);
    }
    return this.#decoder.decode(bytes, { stream: true });
  }

  /** Ends the text: what is left of an unfinished character becomes U+FFFD. Push no more after it. */
  finish(): string {
    return this.#decoder.decode();
  }
}
