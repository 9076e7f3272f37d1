/** When a sequence came how far, in milliseconds of the engine's clock. A field of the sequence. */
export interface SequenceTimes {
  readonly arrivalMs: number;
  /** First admission. */
  scheduledMs: number | undefined;
  /** Delivery of its first and of its latest tokens. */
  firstTokenMs: number | undefined;
  lastTokenMs: number | undefined;
}

export function createTimes(arrivalMs: number): SequenceTimes {
  return { arrivalMs, scheduledMs: undefined, firstTokenMs: undefined, lastTokenMs: undefined };
}
