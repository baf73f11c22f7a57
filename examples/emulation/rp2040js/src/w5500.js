// The ethernet chip W5500 as far as drivers use it in MACRAW mode: SPI frames, the common registers, and socket 0.
// Numbers of registers, bits and commands are those of the W5500 datasheet, sections 2 to 4.

const BUFFER_BYTES = 16 * 1024;

const BLOCK = { COMMON: 0, SOCKET: 1, TX: 2, RX: 3 };
const COMMON = { MR: 0x00, SHAR: 0x09, SIR: 0x17, SIMR: 0x18, PHYCFGR: 0x2e, VERSIONR: 0x39, BYTES: 0x40 };
const SOCKET = {
  MR: 0x00,
  CR: 0x01,
  IR: 0x02,
  SR: 0x03,
  RXBUF_SIZE: 0x1e,
  TXBUF_SIZE: 0x1f,
  TX_FSR: 0x20,
  TX_RD: 0x22,
  TX_WR: 0x24,
  RX_RSR: 0x26,
  RX_RD: 0x28,
  RX_WR: 0x2a,
  IMR: 0x2c,
  BYTES: 0x30,
};
const COMMAND = { OPEN: 0x01, CLOSE: 0x10, SEND: 0x20, RECV: 0x40 };
const INTERRUPT = { RECV: 0x04, SENDOK: 0x10 };
const MODE_RESET = 0x80;
const MODE_MACRAW = 0x04;
const MODE_MAC_FILTER = 0x80;
const STATUS_MACRAW = 0x42;
const PHY_LINK = 0x01;
const VERSION = 0x04;

export class W5500 {
  /** Called with each frame (a Buffer) that the chip sends. */
  onFrame = () => {};
  /** Called with the level of the interrupt pin, which is low while an interrupt is pending. */
  onInterrupt = () => {};

  constructor() {
    this.linkUp = true;
    this.statistics = { sent: 0, received: 0, dropped: 0 };
    this.reset();
  }

  /** The reset pin, or bit RST of MR. */
  reset() {
    this.common = new Uint8Array(COMMON.BYTES);
    this.socket = new Uint8Array(SOCKET.BYTES);
    this.socket[SOCKET.RXBUF_SIZE] = 2;
    this.socket[SOCKET.TXBUF_SIZE] = 2;
    this.socket[SOCKET.IMR] = 0xff;
    this.txBuffer = new Uint8Array(BUFFER_BYTES);
    this.rxBuffer = new Uint8Array(BUFFER_BYTES);
    this.#clearPointers();
    this.interrupts = 0;
    this.isOpen = false;
    this.deselect();
    this.#tellInterrupt();
  }

  /** Pulls the cable, or plugs it in. */
  setLink(up) {
    this.linkUp = up;
  }

  /** A frame has arrived on the wire. */
  receive(frame) {
    if (!this.isOpen || !this.linkUp || !this.#isForUs(frame)) return;
    const bytes = frame.length + 2;
    if (bytes > this.#bufferBytes(SOCKET.RXBUF_SIZE) - this.#unreadBytes()) {
      this.statistics.dropped += 1;
      return;
    }
    this.#putRx(bytes >> 8);
    this.#putRx(bytes & 0xff);
    for (const byte of frame) this.#putRx(byte);
    this.statistics.received += 1;
    this.interrupts |= INTERRUPT.RECV;
    this.#tellInterrupt();
  }

  // --- SPI: two bytes of address, one of control, then data ---

  /** Chip select has become low: a frame begins. */
  select() {
    this.position = 0;
  }

  /** Chip select has become high. */
  deselect() {
    this.position = null;
  }

  /** A byte in both directions. */
  exchange(byte) {
    if (this.position === null) return 0;
    switch (this.position++) {
      case 0:
        this.address = byte << 8;
        return 0;
      case 1:
        this.address |= byte;
        return 0;
      case 2:
        this.block = byte >> 3;
        this.isWrite = (byte & 4) !== 0;
        return 0;
      default: {
        const address = this.address;
        this.address = (address + 1) & 0xffff;
        if (!this.isWrite) return this.#read(this.block, address);
        this.#write(this.block, address, byte);
        return 0;
      }
    }
  }

  // --- registers ---

  #read(block, address) {
    switch (block) {
      case BLOCK.COMMON:
        return this.#readCommon(address);
      case BLOCK.SOCKET:
        return this.#readSocket(address);
      case BLOCK.TX:
        return this.txBuffer[address % BUFFER_BYTES];
      case BLOCK.RX:
        return this.rxBuffer[address % BUFFER_BYTES];
      default: // the sockets 1 to 7, which are closed
        return 0;
    }
  }

  #readCommon(address) {
    switch (address) {
      case COMMON.VERSIONR:
        return VERSION;
      case COMMON.PHYCFGR: // 100 Mbit/s, full duplex
        return 0xbe | (this.linkUp ? PHY_LINK : 0);
      case COMMON.SIR:
        return this.interrupts !== 0 ? 1 : 0;
      default:
        return this.common[address] ?? 0;
    }
  }

  #readSocket(address) {
    const half = (value) => (address % 2 === 0 ? value >> 8 : value & 0xff);
    switch (address) {
      case SOCKET.CR: // a command is accepted at once
        return 0;
      case SOCKET.IR:
        return this.interrupts;
      case SOCKET.SR:
        return this.isOpen ? STATUS_MACRAW : 0;
      case SOCKET.TX_FSR:
      case SOCKET.TX_FSR + 1:
        return half(this.#bufferBytes(SOCKET.TXBUF_SIZE) - ((this.txWrite - this.txRead) & 0xffff));
      case SOCKET.TX_RD:
      case SOCKET.TX_RD + 1:
        return half(this.txRead);
      case SOCKET.TX_WR:
      case SOCKET.TX_WR + 1:
        return half(this.txWrite);
      case SOCKET.RX_RSR:
      case SOCKET.RX_RSR + 1:
        return half(this.#unreadBytes());
      case SOCKET.RX_RD:
      case SOCKET.RX_RD + 1:
        return half(this.rxRead);
      case SOCKET.RX_WR:
      case SOCKET.RX_WR + 1:
        return half(this.rxWrite);
      default:
        return this.socket[address] ?? 0;
    }
  }

  #write(block, address, byte) {
    switch (block) {
      case BLOCK.COMMON:
        if (address === COMMON.MR && byte & MODE_RESET) this.reset();
        else if (address < COMMON.BYTES) this.common[address] = byte;
        break;
      case BLOCK.SOCKET:
        this.#writeSocket(address, byte);
        break;
      case BLOCK.TX:
        this.txBuffer[address % BUFFER_BYTES] = byte;
        break;
    }
    this.#tellInterrupt();
  }

  #writeSocket(address, byte) {
    const high = (value) => (value & 0xff) | (byte << 8);
    const low = (value) => (value & 0xff00) | byte;
    switch (address) {
      case SOCKET.CR:
        this.#command(byte);
        break;
      case SOCKET.IR: // a 1 clears the bit
        this.interrupts &= ~byte;
        break;
      case SOCKET.TX_WR:
        this.txWrite = high(this.txWrite);
        break;
      case SOCKET.TX_WR + 1:
        this.txWrite = low(this.txWrite);
        break;
      case SOCKET.RX_RD:
        this.rxRead = high(this.rxRead);
        break;
      case SOCKET.RX_RD + 1:
        this.rxRead = low(this.rxRead);
        break;
      default:
        if (address < SOCKET.BYTES) this.socket[address] = byte;
    }
  }

  #command(command) {
    switch (command) {
      case COMMAND.OPEN:
        this.isOpen = (this.socket[SOCKET.MR] & 0x0f) === MODE_MACRAW;
        this.#clearPointers();
        break;
      case COMMAND.CLOSE:
        this.isOpen = false;
        break;
      case COMMAND.SEND: {
        const frame = Buffer.alloc((this.txWrite - this.txRead) & 0xffff);
        for (let i = 0; i < frame.length; i++) frame[i] = this.txBuffer[(this.txRead + i) % BUFFER_BYTES];
        this.txRead = this.txWrite;
        this.interrupts |= INTERRUPT.SENDOK;
        if (this.isOpen && this.linkUp) {
          this.statistics.sent += 1;
          this.onFrame(frame);
        }
        break;
      }
      case COMMAND.RECV:
        // RX_RD counts from here on. What is left in the buffer raises the interrupt again.
        this.rxReadDone = this.rxRead;
        if (this.#unreadBytes() > 0) this.interrupts |= INTERRUPT.RECV;
        break;
    }
  }

  #clearPointers() {
    this.txRead = 0;
    this.txWrite = 0;
    this.rxRead = 0;
    this.rxReadDone = 0;
    this.rxWrite = 0;
  }

  /** The buffer's size register is in kilobytes. */
  #bufferBytes(register) {
    return Math.min(this.socket[register] * 1024, BUFFER_BYTES);
  }

  #unreadBytes() {
    return (this.rxWrite - this.rxReadDone) & 0xffff;
  }

  #putRx(byte) {
    this.rxBuffer[this.rxWrite % BUFFER_BYTES] = byte;
    this.rxWrite = (this.rxWrite + 1) & 0xffff;
  }

  #isForUs(frame) {
    if (!(this.socket[SOCKET.MR] & MODE_MAC_FILTER) || frame[0] & 1) return true;
    for (let i = 0; i < 6; i++) if (frame[i] !== this.common[COMMON.SHAR + i]) return false;
    return true;
  }

  #tellInterrupt() {
    const pending = this.interrupts & this.socket[SOCKET.IMR] && this.common[COMMON.SIMR] & 1;
    this.onInterrupt(!pending);
  }
}

/** A byte at 50 MHz, in nanoseconds. */
const BYTE_NANOS = 160;

/** Connects the chip to an RP2040 as on the W5500-EVB-Pico. */
export function attachW5500(rp, chip, { spi = 0, cs = 17, interrupt = 21, reset = 20 } = {}) {
  // Not at once: DMA would then fill the transmit FIFO faster than it empties the receive FIFO, and bytes would be lost.
  let answer = 0;
  const done = rp.clock.createAlarm(() => rp.spi[spi].completeTransmit(answer));
  rp.spi[spi].onTransmit = (byte) => {
    answer = chip.exchange(byte & 0xff);
    done.schedule(BYTE_NANOS);
  };
  rp.gpio[cs].addListener((level) => (level === 0 ? chip.select() : chip.deselect()));
  rp.gpio[reset].addListener((level) => level === 0 && chip.reset());
  chip.onInterrupt = (level) => rp.gpio[interrupt].setInputValue(level);
  chip.onInterrupt(true);
}
