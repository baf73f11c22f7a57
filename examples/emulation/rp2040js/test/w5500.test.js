import assert from 'node:assert/strict';
import test from 'node:test';
import { W5500 } from '../src/w5500.js';

const COMMON = 0;
const SOCKET = 1;
const TX = 2;
const RX = 3;
const MAC = [0x02, 1, 2, 3, 4, 5];

/** A driver: register accesses as SPI frames. */
class Driver {
  constructor(chip) {
    this.chip = chip;
    this.interrupt = true;
    chip.onInterrupt = (level) => (this.interrupt = level);
  }
  transfer(address, block, write, bytes) {
    this.chip.select();
    for (const byte of [address >> 8, address & 0xff, (block << 3) | (write ? 4 : 0)]) this.chip.exchange(byte);
    const answer = bytes.map((byte) => this.chip.exchange(byte));
    this.chip.deselect();
    return answer;
  }
  write(block, address, ...bytes) {
    this.transfer(address, block, true, bytes);
  }
  read(block, address, length = 1) {
    return this.transfer(address, block, false, Array(length).fill(0));
  }
  read16(block, address) {
    const [high, low] = this.read(block, address, 2);
    return (high << 8) | low;
  }
  /** MACRAW with a filter, 16 kB for each direction, interrupts for received frames. */
  open() {
    this.write(COMMON, 0x18, 1);
    this.write(SOCKET, 0x2c, 4);
    this.write(COMMON, 0x09, ...MAC);
    this.write(SOCKET, 0x1e, 16, 16);
    this.write(SOCKET, 0x00, 0x84);
    this.write(SOCKET, 0x01, 0x01);
  }
  /** Takes a frame out of the receive buffer. */
  take() {
    this.write(SOCKET, 0x02, 4);
    const at = this.read16(SOCKET, 0x28);
    const [high, low] = this.read(RX, at, 2);
    const length = ((high << 8) | low) - 2;
    const frame = this.read(RX, (at + 2) & 0xffff, length);
    const next = (at + 2 + length) & 0xffff;
    this.write(SOCKET, 0x28, next >> 8, next & 0xff);
    this.write(SOCKET, 0x01, 0x40);
    return frame;
  }
  send(frame) {
    const at = this.read16(SOCKET, 0x24);
    this.write(TX, at, ...frame);
    const next = (at + frame.length) & 0xffff;
    this.write(SOCKET, 0x24, next >> 8, next & 0xff);
    this.write(SOCKET, 0x01, 0x20);
  }
}

function opened() {
  const chip = new W5500();
  const driver = new Driver(chip);
  driver.open();
  return { chip, driver };
}

const frameTo = (mac, length, fill) => Buffer.from([...mac, ...Array(length - 6).fill(fill)]);

test('the chip says which it is and whether its cable is plugged in', () => {
  const driver = new Driver(new W5500());
  assert.deepEqual(driver.read(COMMON, 0x39), [4]);
  assert.equal(driver.read(COMMON, 0x2e)[0] & 1, 1);
  driver.chip.setLink(false);
  assert.equal(driver.read(COMMON, 0x2e)[0] & 1, 0);
});

test('frames come out as they went in, one interrupt after the other', () => {
  const { chip, driver } = opened();
  const frames = [60, 1514, 61].map((length, i) => frameTo(MAC, length, i + 1));
  for (const frame of frames) chip.receive(frame);
  for (const frame of frames) {
    assert.equal(driver.interrupt, false, 'the pin is low while there is a frame');
    assert.deepEqual(Buffer.from(driver.take()), frame);
  }
  assert.equal(driver.interrupt, true);
  assert.equal(driver.read16(SOCKET, 0x26), 0);
});

test('frames for others are left out, those for all are not', () => {
  const { chip, driver } = opened();
  chip.receive(frameTo([0x02, 9, 9, 9, 9, 9], 60, 0));
  assert.equal(driver.read16(SOCKET, 0x26), 0);
  chip.receive(frameTo(Array(6).fill(0xff), 60, 0));
  assert.equal(driver.read16(SOCKET, 0x26), 62);
});

test('a full receive buffer drops frames, and takes some again when it has been read', () => {
  const { chip, driver } = opened();
  for (let i = 0; i < 11; i++) chip.receive(frameTo(MAC, 1514, i)); // ten take 15,160 of 16,384 bytes
  assert.deepEqual(chip.statistics, { sent: 0, received: 10, dropped: 1 });
  for (let i = 0; i < 10; i++) assert.equal(driver.take()[1513], i);
  chip.receive(frameTo(MAC, 1514, 77));
  assert.equal(driver.take()[1513], 77);
});

test('sent frames are what was written, also over the end of the buffer and of the pointers', () => {
  const { chip, driver } = opened();
  const sent = [];
  chip.onFrame = (frame) => sent.push(frame);
  for (let i = 0; i < 60; i++) driver.send(frameTo(MAC, 1499, i)); // 89,940 bytes: pointers have 16 bits
  assert.equal(sent.length, 60);
  sent.forEach((frame, i) => assert.deepEqual(frame, frameTo(MAC, 1499, i)));
  assert.equal(driver.read16(SOCKET, 0x20), 16384);
});

test('without cable nothing goes in or out', () => {
  const { chip, driver } = opened();
  let sent = 0;
  chip.onFrame = () => (sent += 1);
  chip.setLink(false);
  driver.send(frameTo(MAC, 60, 1));
  chip.receive(frameTo(MAC, 60, 1));
  assert.equal(sent, 0);
  assert.equal(driver.read16(SOCKET, 0x26), 0);
});

test('a reset forgets everything', () => {
  const { chip, driver } = opened();
  chip.receive(frameTo(MAC, 60, 1));
  driver.write(COMMON, 0x00, 0x80);
  assert.equal(driver.interrupt, true);
  chip.receive(frameTo(MAC, 60, 1));
  assert.equal(driver.read16(SOCKET, 0x26), 0, 'the socket is closed');
});
