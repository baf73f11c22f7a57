// Reads what is needed of a firmware's ELF file (32 bit, little-endian): what lies where in flash, and addresses of symbols.
import fs from 'node:fs';

const PT_LOAD = 1;
const SHT_SYMTAB = 2;
const EM_ARM = 40;

export class Elf {
  constructor(path) {
    this.bytes = fs.readFileSync(path);
    const b = this.bytes;
    if (b.length < 52 || b.readUInt32BE(0) !== 0x7f454c46 || b[4] !== 1 || b[5] !== 1) {
      throw new Error(`${path}: not an ELF file of 32 bits, little-endian`);
    }
    if (b.readUInt16LE(18) !== EM_ARM) throw new Error(`${path}: not for ARM`);
    if (this.segments().length === 0) throw new Error(`${path}: has no code (RUSTFLAGS set? it replaces the link arguments)`);
  }

  /** What is to be loaded: physical addresses and bytes. */
  segments() {
    const b = this.bytes;
    const table = table_of(b, 28, 42, 44);
    return table
      .filter((at) => b.readUInt32LE(at) === PT_LOAD && b.readUInt32LE(at + 16) > 0)
      .map((at) => {
        const offset = b.readUInt32LE(at + 4);
        return { address: b.readUInt32LE(at + 12), bytes: b.subarray(offset, offset + b.readUInt32LE(at + 16)) };
      });
  }

  /** The address of a symbol, or undefined. */
  symbol(name) {
    const b = this.bytes;
    const sections = table_of(b, 32, 46, 48);
    for (const at of sections.filter((at) => b.readUInt32LE(at + 4) === SHT_SYMTAB)) {
      const names = b.readUInt32LE(sections[b.readUInt32LE(at + 24)] + 16);
      const [start, bytes] = [b.readUInt32LE(at + 16), b.readUInt32LE(at + 20)];
      for (let entry = start; entry < start + bytes; entry += 16) {
        const from = names + b.readUInt32LE(entry);
        if (b.toString('latin1', from, b.indexOf(0, from)) === name) return b.readUInt32LE(entry + 4);
      }
    }
    return undefined;
  }
}

/** Offsets of a table's entries; the header has its offset, an entry's size and their number at these places. */
function table_of(b, offsetAt, sizeAt, countAt) {
  const [offset, size, count] = [b.readUInt32LE(offsetAt), b.readUInt16LE(sizeAt), b.readUInt16LE(countAt)];
  return Array.from({ length: count }, (_, i) => offset + i * size);
}
