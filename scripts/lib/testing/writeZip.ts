import { deflateRawSync } from "node:zlib";

export interface ZipContent {
  readonly name: string;
  readonly bytes: Buffer;
  readonly deflate: boolean;
}

/** The smallest zip file with these contents. Checksums are left out: nothing here checks them. */
export function writeZip(contents: readonly ZipContent[]): Buffer {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const { name, bytes, deflate } of contents) {
    const packed = deflate ? deflateRawSync(bytes) : bytes;
    const nameBytes = Buffer.from(name);
    const fields = Buffer.alloc(26); // what local and central headers share
    fields.writeUInt16LE(20, 0);
    fields.writeUInt16LE(deflate ? 8 : 0, 4);
    fields.writeUInt32LE(packed.length, 14);
    fields.writeUInt32LE(bytes.length, 18);
    fields.writeUInt16LE(nameBytes.length, 22);
    const extra = Buffer.from([0x55, 0x54, 1, 0, 0]); // local header only, as real writers do
    const local = Buffer.concat([Buffer.from("PK\x03\x04"), fields]);
    local.writeUInt16LE(extra.length, 28);
    const central = Buffer.alloc(46);
    central.write("PK\x01\x02");
    central.writeUInt16LE(20, 4);
    fields.copy(central, 6);
    central.writeUInt32LE(offset, 42);
    directory.push(central, nameBytes);
    parts.push(local, nameBytes, extra, packed);
    offset += local.length + nameBytes.length + extra.length + packed.length;
  }
  const list = Buffer.concat(directory);
  const end = Buffer.alloc(22);
  end.write("PK\x05\x06");
  end.writeUInt16LE(contents.length, 8);
  end.writeUInt16LE(contents.length, 10);
  end.writeUInt32LE(list.length, 12);
  end.writeUInt32LE(offset, 16);
  return Buffer.concat([...parts, list, end]);
}
