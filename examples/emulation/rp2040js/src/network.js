// A network without root: QEMU's user-mode stack, whose ethernet frames come and go by UDP.
// It serves DHCP; the host's 127.0.0.1 is 10.0.2.2 there, and answers pings.
import { spawn } from 'node:child_process';
import dgram from 'node:dgram';

const QEMU = 'qemu-system-arm';
const START_LIMIT_MS = 10_000;
const OUR_MAC = [0x02, 0, 0, 0, 0xff, 0xff];
/** Who has 10.0.2.2? Tell 10.0.2.250 (RFC 826). */
const QUESTION = Buffer.from([
  ...Array(6).fill(0xff), ...OUR_MAC, 8, 6,
  0, 1, 8, 0, 6, 4, 0, 1, ...OUR_MAC, 10, 0, 2, 250, 0, 0, 0, 0, 0, 0, 10, 0, 2, 2,
]);

export class UserNetwork {
  /** Called with each frame (a Buffer) for the board. */
  onFrame = () => {};

  /** Starts it, and waits until it answers. */
  static async start() {
    const network = new UserNetwork();
    network.socket = await bound();
    const theirs = await bound();
    network.port = theirs.address().port;
    await new Promise((done) => theirs.close(done));
    const ours = network.socket.address().port;
    network.qemu = spawn(QEMU, [
      '-M', 'none', '-nodefaults', '-display', 'none', '-monitor', 'none', '-serial', 'none',
      '-netdev', 'user,id=user', '-netdev', 'hubport,hubid=0,id=user-port,netdev=user',
      '-netdev', `socket,id=board,udp=127.0.0.1:${ours},localaddr=127.0.0.1:${network.port}`,
      '-netdev', 'hubport,hubid=0,id=board-port,netdev=board',
    ], { stdio: ['ignore', 'ignore', 'pipe'] });
    network.messages = '';
    network.qemu.stderr.on('data', (text) => (network.messages += text));
    try {
      await network.#answers();
    } catch (error) {
      network.close();
      throw error;
    }
    network.socket.on('message', (frame) => network.onFrame(frame));
    return network;
  }

  /** A frame of the board. */
  send(frame) {
    this.socket.send(frame, this.port, '127.0.0.1');
  }

  close() {
    this.qemu.kill();
    this.socket.close();
  }

  #answers() {
    return new Promise((resolve, reject) => {
      const ask = setInterval(() => this.send(QUESTION), 50);
      const limit = setTimeout(() => end(new Error(`${QEMU} does not answer after ${START_LIMIT_MS} ms`)), START_LIMIT_MS);
      const end = (error) => {
        clearInterval(ask);
        clearTimeout(limit);
        this.socket.removeAllListeners('message');
        if (error) reject(error);
        else resolve();
      };
      this.socket.on('message', () => end());
      this.qemu.on('error', (error) => end(new Error(`${QEMU}: ${error.message}. On Debian: apt-get install qemu-system-arm`)));
      this.qemu.on('exit', (code) => end(new Error(`${QEMU} has ended with status ${code}: ${this.messages.trim()}`)));
    });
  }
}

function bound() {
  return new Promise((resolve, reject) => {
    const socket = dgram.createSocket('udp4');
    socket.once('error', reject);
    socket.bind(0, '127.0.0.1', () => resolve(socket));
  });
}
