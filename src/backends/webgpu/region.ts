/** A place in the arena, bindable as it is. Valid as a GPUBufferBinding once the arena is allocated. */
export interface Region {
  readonly buffer: GPUBuffer;
  readonly offset: number;
  readonly size: number;
}
