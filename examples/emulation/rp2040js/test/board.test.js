import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import test from 'node:test';
import { Board } from '../src/board.js';

const FLASH = 0x10000000;
const WATCHDOG = 0x40058000;
const RANDOMBIT = 0x4006001c;

/** An ELF file with one segment at the start of flash: a vector table at 0x100, `code` at 0x200. */
function elfOf(code) {
  const image = Buffer.alloc(0x400);
  image.writeUInt32LE(0x20001000, 0x100); // stack pointer
  image.writeUInt32LE(FLASH + 0x201, 0x104); // reset
  image.writeUInt32LE(FLASH + 0x301, 0x10c); // HardFault
  image.writeUInt16LE(0xe7fe, 0x300); // b .
  code.forEach((half, i) => image.writeUInt16LE(half, 0x200 + 2 * i));
  const head = Buffer.alloc(52 + 32);
  head.write('\x7fELF\x01\x01\x01', 'latin1');
  head.writeUInt16LE(40, 18);
  head.writeUInt32LE(52, 28);
  head.writeUInt16LE(32, 42);
  head.writeUInt16LE(1, 44);
  [1, 84, FLASH, FLASH, image.length, image.length, 5, 4].forEach((word, i) => head.writeUInt32LE(word, 52 + 4 * i));
  const file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'rp2040js-')), 'code.elf');
  fs.writeFileSync(file, Buffer.concat([head, image]));
  return file;
}

/** Runs code, for at most 10 simulated seconds. */
async function run(code, prepare = () => {}) {
  const board = new Board(elfOf(code));
  prepare(board);
  await board.run(() => board.seconds > 10);
  return board;
}

const LOOP = 0xe7fe; // b .
const UNDEFINED = 0xde00; // udf #0
const SLEEP = [0xbf20, 0xe7fd]; // wfe; b to it

test('a firmware that panics is told from one that runs', async () => {
  await assert.rejects(run([UNDEFINED]), /panicked or stopped, at 0x10000200/);
});

test('a watchdog that nobody feeds ends the run', async () => {
  const start = (board) => {
    board.rp.writeUint32(WATCHDOG + 0x2c, 0x200 | 12); // ticks of 1 µs
    board.rp.writeUint32(WATCHDOG + 0x04, 2_000_000); // counted down twice as fast: 1 s
    board.rp.writeUint32(WATCHDOG, 1 << 30);
  };
  await assert.rejects(run(SLEEP, start), /watchdog was not fed/);
});

test('an event that was sent keeps the next wait from sleeping', async () => {
  const sent = [0xbf40, 0xbf20, UNDEFINED]; // sev; wfe; udf
  await assert.rejects(run(sent), /panicked or stopped, at 0x10000204/);
});

test('what is no firmware for this chip is refused', () => {
  const file = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'rp2040js-')), 'text');
  fs.writeFileSync(file, 'not an ELF file, but of more than fifty-two bytes so that it has a head');
  assert.throws(() => new Board(file), /not an ELF file/);
  const arm64 = fs.readFileSync(elfOf([LOOP]));
  arm64.writeUInt16LE(183, 18);
  fs.writeFileSync(file, arm64);
  assert.throws(() => new Board(file), /not for ARM/);
});

test('the temperature that is set is what the converter gives', () => {
  const board = new Board(elfOf([LOOP]));
  for (const celsius of [-40, 0, 27, 85]) {
    board.setTemperature(celsius);
    const volts = (board.rp.adc.channelValues[4] * 3.3) / 4096;
    assert.ok(Math.abs(27 - (volts - 0.706) / 0.001721 - celsius) < 0.5, `${celsius}`);
  }
});

test('the ring oscillator gives both bits, and only one of them where it stands still', () => {
  const board = new Board(elfOf([LOOP]));
  const bits = () => new Set(Array.from({ length: 200 }, () => board.rp.readUint32(RANDOMBIT) & 1));
  assert.deepEqual([...bits()].sort(), [0, 1]);
  board.oscillates = false;
  assert.equal(bits().size, 1);
});

test('the call stack is measured from where static memory ends, and is not where that is not said', () => {
  const file = elfOf([LOOP]);
  assert.equal(new Board(file).stackBytes(), null);
  const board = new Board(withSymbol(file, '__euninit', 0x20000800));
  assert.equal(board.stackBytes(), 0);
  board.rp.sramView.setUint32(0x0ff0, 1, true);
  board.rp.sramView.setUint32(0x0f00, 2, true);
  assert.equal(board.stackBytes(), 0x100);
});

/** The same with a symbol. */
function withSymbol(file, name, value) {
  const elf = fs.readFileSync(file);
  const names = Buffer.from(`\0${name}\0`);
  const symbol = Buffer.alloc(16);
  symbol.writeUInt32LE(1, 0);
  symbol.writeUInt32LE(value, 4);
  const sections = Buffer.alloc(80);
  // A symbol table, which names the second one as that of its strings; and that.
  [0, 2, 0, 0, elf.length, symbol.length, 1].forEach((word, i) => sections.writeUInt32LE(word, 4 * i));
  sections.writeUInt32LE(elf.length + symbol.length, 40 + 16);
  elf.writeUInt32LE(elf.length + symbol.length + names.length, 32);
  elf.writeUInt16LE(40, 46);
  elf.writeUInt16LE(2, 48);
  fs.writeFileSync(file, Buffer.concat([elf, symbol, names, sections]));
  return file;
}
