/** A completion that takes longer than this is noticed by polling only: some browsers look every 100 ms. */
const SLOW_COMPLETION_MS = 20;

/** Milliseconds between two nudges: how late a result may be noticed. */
const NUDGE_MS = 4;

/** Devices that were measured, and whether they report completion late. */
const areLate = new WeakMap<GPUDevice, Promise<boolean>>();

/** Copies results to the CPU through a few mappable buffers that are used in turn. */
export class Readback {
  readonly #device: GPUDevice;
  readonly #free: GPUBuffer[] = [];
  readonly #all: GPUBuffer[] = [];
  #mustNudge = false;
  #numAwaited = 0; // while nudging helps
  #isNudging = false;

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /** Finds out whether the device reports completion late, once for each, and nudges it from then on if so. */
  async calibrate(): Promise<void> {
    const device = this.#device;
    const isLate = areLate.get(device) ?? measureLateness(device);
    areLate.set(device, isLate);
    this.#mustNudge = await isLate;
  }

  /** Encodes the copy of [0, byteLength) of `source` after what is in the encoder. */
  encode(encoder: GPUCommandEncoder, source: GPUBuffer, byteLength: number): GPUBuffer {
    const at = this.#free.findIndex(({ size }) => size >= byteLength);
    const [staging] = at < 0 ? [this.#create(byteLength)] : this.#free.splice(at, 1);
    encoder.copyBufferToBuffer(source, 0, staging!, 0, byteLength);
    return staging!;
  }

  /** The copied bytes, once the submission that held the copy is done. */
  async read(staging: GPUBuffer, byteLength: number): Promise<ArrayBuffer> {
    const bytes = await this.map(staging, byteLength, (mapped) => mapped.slice(0));
    this.#free.push(staging);
    return bytes;
  }

  /**
   * What `take` makes of [0, byteLength) of a buffer that can be mapped for reading, once all that was
   * submitted before is done. The bytes are there only while `take` runs.
   */
  async map<T>(buffer: GPUBuffer, byteLength: number, take: (bytes: ArrayBuffer) => T): Promise<T> {
    const mapped = buffer.mapAsync(GPUMapMode.READ, 0, byteLength);
    if (this.#mustNudge) await this.#nudgeUntil(mapped);
    await mapped;
    const taken = take(buffer.getMappedRange(0, byteLength));
    buffer.unmap();
    return taken;
  }

  /** Resolves when all that was submitted is done. */
  async idle(): Promise<void> {
    const done = this.#device.queue.onSubmittedWorkDone();
    if (this.#mustNudge) await this.#nudgeUntil(done);
    await done;
  }

  dispose(): void {
    for (const buffer of this.#all) buffer.destroy();
  }

  #create(byteLength: number): GPUBuffer {
    const buffer = this.#device.createBuffer({
      label: "readback",
      size: byteLength,
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    });
    this.#all.push(buffer);
    return buffer;
  }

  /**
   * Firefox looks for finished work on a timer of 100 ms, and whenever something is submitted
   * (https://bugzilla.mozilla.org/show_bug.cgi?id=1870699): so empty submissions keep it looking.
   */
  async #nudgeUntil(done: Promise<unknown>): Promise<void> {
    const finish = () => {
      this.#numAwaited -= 1;
    };
    this.#numAwaited += 1;
    if (!this.#isNudging) void this.#nudge();
    await done.then(finish, finish);
  }

  /** One pace for all that is waited for: submissions cost more processor time than the wait. */
  async #nudge(): Promise<void> {
    this.#isNudging = true;
    while (this.#numAwaited > 0) {
      await new Promise((resolve) => setTimeout(resolve, NUDGE_MS));
      if (this.#numAwaited > 0) {
        this.#device.queue.submit([this.#device.createCommandEncoder().finish()]);
      }
    }
    this.#isNudging = false;
  }
}

/** True if an idle device reports completion late. */
async function measureLateness(device: GPUDevice): Promise<boolean> {
  const latencies: number[] = [];
  for (let i = 0; i < 3; i++) {
    const start = performance.now();
    device.queue.submit([device.createCommandEncoder().finish()]);
    await device.queue.onSubmittedWorkDone();
    latencies.push(performance.now() - start);
  }
  return Math.min(...latencies) > SLOW_COMPLETION_MS;
}
