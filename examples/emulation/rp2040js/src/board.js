// An RP2040 that runs a firmware's ELF file, not faster than real time, so that it can talk to a network outside.
import { randomInt } from 'node:crypto';
import { RP2040 } from 'rp2040js';
import { Elf } from './elf.js';

const FLASH = { start: 0x10000000, end: 0x11000000 };
const RAM_START = 0x20000000;
/** Behind the 256 bytes of the second boot stage. */
const VECTOR_TABLE = 0x100;
const CYCLE_NANOS = 1e9 / 125e6;
/** How long the firmware runs before events of the outside are looked at, in simulated nanoseconds. */
const SLICE_NANOS = 1e6;
const HARD_FAULT = 3;
/** What memory of the call stack holds that was never used. */
const STACK_PAINT = 0xcccccccc;
const ADC_TEMPERATURE_CHANNEL = 4;
/** Registers of the ring oscillator (RP2040 datasheet, section 2.17.8): its base in units of 16 kB, and the random bit's offset. */
const ROSC = 0x40060;
const ROSC_RANDOMBIT = 0x1c;

export class Board {
  /** Whether the ring oscillator runs; where it stands still its random bit does not change. */
  oscillates = true;

  constructor(path) {
    this.elf = new Elf(path);
    this.rp = new RP2040();
    this.rp.logger = new Logger(this.rp.core);
    this.rp.flash.fill(0xff);
    for (const { address, bytes } of this.elf.segments()) {
      if (address >= FLASH.start && address + bytes.length <= FLASH.end) this.rp.flash.set(bytes, address - FLASH.start);
      else throw new Error(`${path}: ${bytes.length} bytes at 0x${address.toString(16)} are not in flash`);
    }
    // There is no boot ROM: it would check and run the second boot stage, which sets up flash and jumps here.
    this.rp.core.VTOR = FLASH.start + VECTOR_TABLE;
    this.rp.core.SP = this.rp.flashView.getUint32(VECTOR_TABLE, true);
    this.rp.core.PC = this.rp.flashView.getUint32(VECTOR_TABLE + 4, true) & ~1;
    this.#paintStack();
    this.fault = null;
    const watchdog = Object.values(this.rp.peripherals).find((p) => 'onWatchdogTrigger' in p);
    // Thrown out of the clock, which would come to the same alarm again and again.
    watchdog.onWatchdogTrigger = () => {
      throw new Error('the watchdog was not fed: the chip would start again');
    };
    // The one register that rp2040js lacks for random numbers. Here they are the machine's: better than the chip's.
    const rosc = this.rp.peripherals[ROSC];
    const others = rosc.readUint32.bind(rosc);
    rosc.readUint32 = (offset) => (offset === ROSC_RANDOMBIT ? (this.oscillates ? randomInt(2) : 1) : others(offset));
    // A panic ends in an undefined instruction, on which the emulator calls this where the chip has a HardFault.
    this.rp.onBreak = () => {
      const pc = this.rp.core.PC - this.rp.core.breakRewind;
      this.fault ??= `the firmware has panicked or stopped, at 0x${pc.toString(16)}: its last messages say why`;
    };
    this.setTemperature(27);
  }

  /** Seconds since power-on, as the firmware counts them. */
  get seconds() {
    return this.rp.clock.nanos / 1e9;
  }

  /** Bytes of the call stack that were ever used; null where the firmware does not say where it ends. */
  stackBytes() {
    if (this.stack === null) return null;
    const { start, end } = this.stack;
    let at = end;
    while (at < start && this.rp.sramView.getUint32(at, true) === STACK_PAINT) at += 4;
    return start - at;
  }

  /** It grows from the vector table's first word down to where static memory ends (cortex-m-rt's name for that). */
  #paintStack() {
    const end = this.elf.symbol('__euninit');
    this.stack = end === undefined ? null : { start: this.rp.core.SP - RAM_START, end: end - RAM_START };
    for (let at = this.stack?.end; at < this.stack?.start; at += 4) this.rp.sramView.setUint32(at, STACK_PAINT, true);
  }

  /** What the on-chip sensor measures, in degrees Celsius (RP2040 datasheet, section 4.9.5). */
  setTemperature(celsius) {
    const volts = 0.706 - (celsius - 27) * 0.001721;
    this.rp.adc.channelValues[ADC_TEMPERATURE_CHANNEL] = Math.round((volts / 3.3) * 4096);
  }

  /** Runs until `until()`, which is asked about every millisecond. Throws if the firmware crashes. */
  async run(until) {
    const started = process.hrtime.bigint();
    const begun = this.rp.clock.nanos;
    const ahead = () => this.rp.clock.nanos - begun - Number(process.hrtime.bigint() - started);
    while (!until()) {
      this.#slice();
      if (this.fault) {
        until(); // what it has written last
        throw new Error(this.fault);
      }
      // Also where it lags behind: whatever has arrived meanwhile comes in now.
      const wait = ahead() > SLICE_NANOS ? (go) => setTimeout(go, 1) : setImmediate;
      await new Promise((go) => wait(go));
    }
  }

  #slice() {
    const { core, clock } = this.rp;
    const end = clock.nanos + SLICE_NANOS;
    while (clock.nanos < end && !this.fault) {
      if (core.waiting) {
        const next = clock.nanosToNextAlarm;
        clock.tick(next > 0 ? Math.min(next, end - clock.nanos) : CYCLE_NANOS);
      } else {
        clock.tick(core.executeInstruction() * CYCLE_NANOS);
        if (core.IPSR === HARD_FAULT) this.fault ??= 'the firmware is in its HardFault handler';
      }
    }
  }

  /** Bytes that defmt has written into its first RTT channel since the last call. */
  readRtt() {
    const block = this.elf.symbol('_SEGGER_RTT');
    if (block === undefined) return Buffer.alloc(0);
    this.readRtt = () => this.#rtt(block - RAM_START + 24);
    return this.readRtt();
  }

  /** A channel: name, address of its buffer, size, write offset, read offset, flags. */
  #rtt(channel) {
    const ram = this.rp.sramView;
    const [buffer, size] = [ram.getUint32(channel + 4, true) - RAM_START, ram.getUint32(channel + 8, true)];
    if (size === 0 || buffer < 0) return Buffer.alloc(0); // not set up yet
    const [write, read] = [ram.getUint32(channel + 12, true), ram.getUint32(channel + 16, true)];
    ram.setUint32(channel + 16, write, true);
    const piece = (from, to) => this.rp.sram.subarray(buffer + from, buffer + to);
    return read <= write ? Buffer.from(piece(read, write)) : Buffer.concat([piece(read, size), piece(0, write)]);
  }
}

/** Prints errors of the emulator. */
class Logger {
  constructor(core) {
    this.core = core;
  }

  info(_, message) {
    // rp2040js 1.4.1 only tells that there was an SEV. Without its effect a task that wakes another one goes to sleep (WFE).
    if (message === 'SEV') this.core.eventRegistered = true;
  }

  error(part, message) {
    console.error(`emulator, ${part}: ${message}`);
  }

  // What firmware may do, but is not emulated: most registers of the ring oscillator, for instance.
  warn() {}
  debug() {}
}
