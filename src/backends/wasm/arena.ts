import { invariant } from "../../errors.ts";
import { FIRST_FREE_ADDRESS } from "./abi.ts";

/** Regions start at multiples of it: a cache line. */
const ALIGNMENT = 64;

/**
 * Deals out the addresses of a memory that does not exist yet: everything that a plan needs is
 * reserved first, then a memory of just that size is made.
 */
export class Arena {
  #end = FIRST_FREE_ADDRESS;
  readonly #regions: { readonly name: string; readonly byteLength: number }[] = [];

  /** Bytes reserved so far, from address 0. */
  get byteLength(): number {
    return this.#end;
  }

  /** The address of `byteLength` bytes, zero at first. */
  reserve(name: string, byteLength: number): number {
    invariant(Number.isSafeInteger(byteLength) && byteLength >= 0, `${name} has no size.`);
    const address = this.#end;
    this.#end = Math.ceil((address + byteLength) / ALIGNMENT) * ALIGNMENT;
    this.#regions.push({ name, byteLength });
    return address;
  }

  /** Bytes of the regions whose names start with `prefix`. */
  bytesOf(prefix: string): number {
    return this.#regions
      .filter(({ name }) => name.startsWith(prefix))
      .reduce((sum, { byteLength }) => sum + byteLength, 0);
  }
}
