// The stand-in backend as a process, and what it has recorded.
import { spawn } from 'node:child_process';
import path from 'node:path';
import readline from 'node:readline';

const CONFIGURATION = path.join(import.meta.dirname, '..', 'backend.json');

export class StandIn {
  /** Values as `{path, number}`, in the order in which they arrived. */
  values = [];
  /** Requests as `METHOD PATH STATUS`. */
  requests = [];
  /** Why it ended, if it did. */
  ended = null;

  constructor(program, port, { onValue = () => {} } = {}) {
    const options = ['--config', CONFIGURATION, '--listen', `127.0.0.1:${port}`, '--print-values', '--print-requests'];
    this.process = spawn(program, options, { stdio: ['ignore', 'pipe', 'pipe'] });
    let messages = '';
    this.process.stderr.on('data', (text) => (messages += text));
    this.process.on('error', (error) => (this.ended = error.message));
    this.process.on('exit', (code) => (this.ended ??= `it ended with status ${code}: ${messages.trim()}`));
    readline.createInterface({ input: this.process.stdout }).on('line', (line) => {
      const [what, ...rest] = line.split(' ');
      if (what === 'value') {
        const [, , path, number] = rest;
        this.values.push({ path, number: Number(number) });
        onValue(path, number);
      } else if (what === 'request') {
        this.requests.push(rest.slice(3).join(' '));
      }
    });
  }

  /** Whether a value of `path` was recorded that `is` accepts, not counting the first `after` of all values. */
  has(path, is = () => true, after = 0) {
    return this.values.slice(after).some((value) => value.path === path && is(value.number));
  }

  stop() {
    this.process.kill();
  }
}
