// A W5500-EVB-Pico, its network, and the stand-in backend: `./run` calls this with what it has built.
import fs from 'node:fs';
import { parseArgs } from 'node:util';
import { Board } from './board.js';
import { Log } from './log.js';
import { UserNetwork } from './network.js';
import { StandIn } from './stand-in.js';
import { TlsFront } from './tls.js';
import { W5500, attachW5500 } from './w5500.js';

/** How long each step of the test may take, in seconds: with TLS on a busy machine one takes a minute. */
const STEP_LIMIT_S = 180;
/** How long the cable is pulled, in simulated seconds: long enough for the firmware to see it, and to measure meanwhile. */
const OUTAGE_S = 8;
/** How long the ring oscillator stands still at first, in simulated seconds: longer than the first connection takes otherwise. */
const STANDSTILL_S = 5;

const { values: options } = parseArgs({
  options: {
    elf: { type: 'string' },
    'stand-in': { type: 'string' },
    port: { type: 'string' },
    log: { type: 'string' },
    stack: { type: 'string' },
    test: { type: 'boolean', default: false },
    'tls-cert': { type: 'string' },
    'tls-key': { type: 'string' },
  },
});

/** Everything that runs, to be ended in any case. */
const running = [];
let interrupted = false;

async function main() {
  const show = (path, number) => console.log(`value ${path} ${number}`);
  // With TLS the board's port is the front's, which decrypts for the stand-in.
  const hasTls = options['tls-cert'] !== undefined;
  const standIn = new StandIn(options['stand-in'], Number(options.port) + (hasTls ? 1 : 0), { onValue: show });
  running.push(() => standIn.stop());
  const front = hasTls ? await TlsFront.start(options, Number(options.port)) : null;
  if (front !== null) running.push(() => front.stop());
  const network = await UserNetwork.start();
  running.push(() => network.close());
  const board = new Board(options.elf);
  const chip = new W5500();
  attachW5500(board.rp, chip);
  chip.onFrame = (frame) => network.send(frame);
  network.onFrame = (frame) => chip.receive(frame);
  const log = new Log(board, options.elf, { file: options.log });
  running.push(() => log.close());

  const until = async (what, is) => {
    const limit = Date.now() + STEP_LIMIT_S * 1000;
    let late = false;
    await board.run(() => {
      log.poll();
      if (standIn.ended !== null) throw new Error(`the stand-in: ${standIn.ended}`);
      late = what !== null && Date.now() > limit;
      return interrupted || late || is();
    });
    if (late) throw new Error(`not within ${STEP_LIMIT_S} s: ${what}`);
    if (what !== null && !interrupted) console.log(`ok ${what} (${board.seconds.toFixed(1)} s after power-on)`);
  };
  await (options.test ? test(board, chip, standIn, front, until) : until(null, () => false));
  const stack = board.stackBytes();
  console.log(`call stack: ${stack ?? 'unknown'} bytes used at most`);
  // For examples/firmware/sizes: what runs of this firmware took.
  if (options.stack !== undefined && stack !== null) fs.appendFileSync(options.stack, `${stack}\n`);
  console.log(`${board.seconds.toFixed(1)} s, ${standIn.values.length} values, frames: ${JSON.stringify(chip.statistics)}`);
}

async function test(board, chip, standIn, front, until) {
  const near = (celsius) => (number) => Math.abs(number - celsius) < 1;
  const asked = (what) => standIn.requests.some((request) => request.startsWith(`GET /api/${what}`) && request.endsWith(' 200'));
  if (front !== null) {
    board.oscillates = false;
    await until('some seconds without random numbers', () => board.seconds > STANDSTILL_S);
    if (front.connections > 0) throw new Error('a connection without random numbers');
    board.oscillates = true;
  }
  await until('both bots fetch their configuration', () =>
    asked('accounts/1/entities/?b=<ping>') && asked('accounts/1/sensors/?b=<ping>') && asked('profile/?b=<custom>'));
  await until('the ping bot reaches the host', () =>
    standIn.has('entity.31.ping.p0.rtt', (seconds) => seconds > 0) && standIn.has('entity.31.ping.success', (share) => share === 1));
  await until('the temperature is what the chip measures', () => standIn.has('board.temperature', near(27)));
  board.setTemperature(61);
  await until('a change of the temperature shows', () => standIn.has('board.temperature', near(61)));

  chip.setLink(false);
  board.setTemperature(-9);
  const before = board.seconds;
  await until('the cable is pulled', () => board.seconds > before + OUTAGE_S);
  if (standIn.has('board.temperature', near(-9))) throw new Error('a value went over a cable that was pulled');
  board.setTemperature(33);
  chip.setLink(true);
  await until('what was measured meanwhile arrives afterwards', () => standIn.has('board.temperature', near(-9)));
  const after = standIn.values.length;
  await until('both bots go on', () =>
    standIn.has('board.temperature', near(33), after) && standIn.has('entity.31.ping.success', (share) => share === 1, after));
}

for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => (interrupted = true));
try {
  await main();
} catch (error) {
  console.error(`error: ${error.message}`);
  process.exitCode = 1;
} finally {
  for (const end of running.reverse()) end();
}
