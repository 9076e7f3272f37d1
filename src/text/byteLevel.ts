/**
 * @file The visible letters that byte-level BPE vocabularies write bytes as: printable Latin-1
 * stands for itself, each other byte for a letter from U+0100 on, in order.
 */

const isVisible = (byte: number) =>
  (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;

const letterOfByte: string[] = [];
const byteOfLetter = new Map<string, number>();
for (let byte = 0, next = 0x100; byte < 256; byte++) {
  const letter = String.fromCharCode(isVisible(byte) ? byte : next++);
  letterOfByte.push(letter);
  byteOfLetter.set(letter, byte);
}

const encoder = new TextEncoder();

/** Writes the UTF-8 bytes of a text as letters, one a byte. */
export function bytesToLetters(text: string): string {
  let letters = "";
  for (const byte of encoder.encode(text)) letters += letterOfByte[byte]!;
  return letters;
}

/** Bytes that a token's letters stand for. Letters outside the alphabet stand for their own UTF-8. */
export function lettersToBytes(letters: string): Uint8Array {
  const bytes: number[] = [];
  for (const letter of letters) {
    const byte = byteOfLetter.get(letter);
    if (byte === undefined) bytes.push(...encoder.encode(letter));
    else bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}
