/** A GGUF tensor type that Quire loads. Layouts are ggml's. */
export interface TensorTypeInfo {
  /** The id in the file. */
  readonly id: number;
  /** Weights a block. */
  readonly blockSize: number;
  /** Bytes a block. */
  readonly blockBytes: number;
}

/** Tensor types by ggml's names. */
export const TENSOR_TYPES = {
  F32: { id: 0, blockSize: 1, blockBytes: 4 },
  F16: { id: 1, blockSize: 1, blockBytes: 2 },
  Q4_0: { id: 2, blockSize: 32, blockBytes: 18 },
  Q4_1: { id: 3, blockSize: 32, blockBytes: 20 },
  Q5_0: { id: 6, blockSize: 32, blockBytes: 22 },
  Q5_1: { id: 7, blockSize: 32, blockBytes: 24 },
  Q8_0: { id: 8, blockSize: 32, blockBytes: 34 },
  Q4_K: { id: 12, blockSize: 256, blockBytes: 144 },
  Q5_K: { id: 13, blockSize: 256, blockBytes: 176 },
  Q6_K: { id: 14, blockSize: 256, blockBytes: 210 },
  BF16: { id: 30, blockSize: 1, blockBytes: 2 },
} as const satisfies Record<string, TensorTypeInfo>;

export type TensorType = keyof typeof TENSOR_TYPES;

/** A tensor of a model file. */
export interface TensorInfo {
  readonly name: string;
  readonly type: TensorType;
  /** Weights a row: ggml's dimension 0, the input width of a linear layer. */
  readonly columns: number;
  /** Rows: the product of the other dimensions, the output width of a linear layer; 1 for a vector. */
  readonly rows: number;
  /** Where the data starts in the file, in bytes. */
  readonly byteOffset: number;
  /** rows * columns in the file's type, in bytes. */
  readonly byteLength: number;
}

/** Bytes of one row of the tensor in the file. */
export function rowByteLength(tensor: Pick<TensorInfo, "type" | "columns">): number {
  const { blockSize, blockBytes } = TENSOR_TYPES[tensor.type];
  return (tensor.columns / blockSize) * blockBytes;
}
