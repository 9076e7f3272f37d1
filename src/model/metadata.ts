import { QuireError } from "../errors.ts";
import type { GgufFile } from "../weights/gguf.ts";

/** Typed reading of one architecture's metadata keys (`llama.block_count`, ...). */
export class ModelMetadata {
  readonly #metadata: GgufFile["metadata"];
  readonly #architecture: string;

  constructor(metadata: GgufFile["metadata"], architecture: string) {
    this.#metadata = metadata;
    this.#architecture = architecture;
  }

  key(name: string): string {
    return `${this.#architecture}.${name}`;
  }

  /** An integer in [1, max]. A list counts if all its entries are equal, as some converters write it. */
  count(name: string, max: number, fallback?: number): number {
    const value = this.number(name, fallback);
    if (Number.isInteger(value) && value >= 1 && value <= max) return value;
    throw this.invalid(name, `an integer from 1 to ${max}`, value);
  }

  /** A finite number. Throws `model-invalid` if the key is missing and there is no fallback. */
  number(name: string, fallback?: number): number {
    const value = this.#single(name) ?? fallback;
    if (typeof value === "number" && Number.isFinite(value)) return value;
    throw this.invalid(name, "a number", value);
  }

  /** A finite number > 0. */
  positive(name: string, fallback?: number): number {
    const value = this.number(name, fallback);
    if (value > 0) return value;
    throw this.invalid(name, "a number above 0", value);
  }

  string(name: string, fallback: string): string {
    const value = this.#metadata.get(this.key(name)) ?? fallback;
    if (typeof value === "string") return value;
    throw this.invalid(name, "a string", value);
  }

  boolean(name: string, fallback: boolean): boolean {
    const value = this.#metadata.get(this.key(name)) ?? fallback;
    if (typeof value === "boolean") return value;
    throw this.invalid(name, "true or false", value);
  }

  has(name: string): boolean {
    return this.#metadata.has(this.key(name));
  }

  invalid(name: string, expected: string, found: unknown): QuireError {
    const what = found === undefined ? "nothing" : describe(found);
    return new QuireError(
      "model-invalid",
      `The model's metadata key "${this.key(name)}" must be ${expected}; found ${what}. Convert the model again.`,
      { key: this.key(name), found: what },
    );
  }

  #single(name: string): unknown {
    const value = this.#metadata.get(this.key(name));
    if (value === undefined || !isList(value)) return value;
    const first = value[0];
    for (let i = 1; i < value.length; i++) {
      if (value[i] !== first) {
        throw new QuireError(
          "model-unsupported",
          `The model's metadata key "${this.key(name)}" differs from layer to layer (${describe(value)}); Quire runs models whose layers are all alike.`,
          { key: this.key(name) },
        );
      }
    }
    return first;
  }
}

function isList(value: unknown): value is ArrayLike<unknown> {
  return Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof DataView));
}

function describe(value: unknown): string {
  const text = isList(value) ? `[${Array.from(value).slice(0, 8).join(", ")}]` : String(value);
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}
