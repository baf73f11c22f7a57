// Runs a W5500-EVB-Pico with its network: node src/run.js ELF [--log FILE]. Ctrl-C ends it.
import { parseArgs } from 'node:util';
import { Board } from './board.js';
import { Log } from './log.js';
import { UserNetwork } from './network.js';
import { W5500, attachW5500 } from './w5500.js';

const { values, positionals } = parseArgs({ allowPositionals: true, options: { log: { type: 'string' } } });
if (positionals.length !== 1) {
  console.error('usage: node src/run.js ELF [--log FILE]');
  process.exit(2);
}

let network;
let log;
let status = 0;
try {
  const board = new Board(positionals[0]);
  const chip = new W5500();
  attachW5500(board.rp, chip);
  network = await UserNetwork.start();
  chip.onFrame = (frame) => network.send(frame);
  network.onFrame = (frame) => chip.receive(frame);
  log = new Log(board, positionals[0], { file: values.log });
  let ended = false;
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => (ended = true));
  await board.run(() => {
    log.poll();
    return ended;
  });
  console.log(`${board.seconds.toFixed(1)} s; frames: ${JSON.stringify(chip.statistics)}`);
} catch (error) {
  console.error(`error: ${error.message}`);
  status = 1;
} finally {
  log?.close();
  network?.close();
}
process.exitCode = status;
