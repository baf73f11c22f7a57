// The firmware's messages: defmt's bytes over RTT, turned into text by `defmt-print` where it is installed.
import { spawn } from 'node:child_process';
import fs from 'node:fs';

export class Log {
  /** Prints what is read from `board`; `file` (optional) takes the bytes as they are. */
  constructor(board, path, { file } = {}) {
    this.board = board;
    this.file = file ? fs.openSync(file, 'w') : null;
    this.printer = spawn('defmt-print', ['-e', path], { stdio: ['pipe', 'inherit', 'inherit'] });
    this.printer.on('error', () => {
      this.printer = null;
      console.log('(messages of the firmware are not shown: cargo install defmt-print)');
    });
    this.printer.stdin.on('error', () => {});
  }

  /** Takes what the firmware has written since the last call. Must be called often: the buffer holds 1 kB. */
  poll() {
    const bytes = this.board.readRtt();
    if (bytes.length === 0) return;
    if (this.file !== null) fs.writeSync(this.file, bytes);
    this.printer?.stdin.write(bytes);
  }

  close() {
    this.poll();
    this.printer?.stdin.end();
    if (this.file !== null) fs.closeSync(this.file);
  }
}
