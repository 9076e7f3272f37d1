/**
 * Lets a device compile its compute pipelines when they are first set in a pass, not when they are asked for.
 * A plan asks for every variant of every kernel; most tests run a few of them, and each takes a software
 * driver up to seconds. What runs is the same; that all of them compile is compile.test.ts's business.
 */
export function compileAtFirstUse(device: GPUDevice): void {
  const descriptors = new Map<GPUComputePipeline, GPUComputePipelineDescriptor>();
  const compiled = new Map<GPUComputePipeline, GPUComputePipeline>();
  const { createCommandEncoder } = device;

  device.createComputePipelineAsync = async (descriptor) => {
    const promised = { label: descriptor.label ?? "" } as GPUComputePipeline;
    descriptors.set(promised, descriptor);
    return promised;
  };

  const pipelineOf = (promised: GPUComputePipeline): GPUComputePipeline => {
    const known = compiled.get(promised);
    if (known) return known;
    const descriptor = descriptors.get(promised);
    if (!descriptor) return promised;
    const pipeline = device.createComputePipeline(descriptor);
    compiled.set(promised, pipeline);
    return pipeline;
  };

  device.createCommandEncoder = (descriptor) => {
    const encoder = createCommandEncoder.call(device, descriptor);
    const { beginComputePass } = encoder;
    encoder.beginComputePass = (passDescriptor) => {
      const pass = beginComputePass.call(encoder, passDescriptor);
      const { setPipeline } = pass;
      pass.setPipeline = (pipeline) => setPipeline.call(pass, pipelineOf(pipeline));
      return pass;
    };
    return encoder;
  };
}
