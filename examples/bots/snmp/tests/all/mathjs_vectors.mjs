// Makes `mathjs_vectors.tsv`: random expressions with what math.js makes of them.
//
//     npm install mathjs@15.2.0 && node mathjs_vectors.mjs 20261123 1000 > mathjs_vectors.tsv
//
// Left out: chained comparisons, and where a step is not a real number but the result is (both are listed as differences).
import { all, create } from "mathjs";

const plain = create(all);
const real = create(all, { predictable: true });
let seed = BigInt(process.argv[2]);
const random = (n) => {
  seed = (seed * 6364136223846793005n + 1442695040888963407n) & ((1n << 64n) - 1n);
  return Number((seed >> 33n) % BigInt(n));
};
const pick = (list) => list[random(list.length)];

const numbers = ["0", "1", "2", "3", "7", "10", "0.5", "2.5", "1e-3", ".25", "100", "1e6", "12.", "4294967295", "0.1", "0.2",
  "0.3", "1.005", "pi", "e", "true", "false"];
const functions = ["abs", "ceil", "floor", "round", "fix", "sign", "sqrt", "cbrt", "exp", "expm1", "log", "log2", "log10", "log1p"];
const operators = ["+", "-", "*", "/", "%", "^", " mod ", "==", "!=", "<", "<=", ">", ">=", " and ", " or ", " xor "];

function make(depth) {
  if (depth <= 0 || random(7) === 0) return pick(numbers);
  const next = () => make(depth - 1);
  const blank = pick(["", " "]);
  switch (random(10)) {
    case 0: return `(${next()})`;
    case 1: return pick(["-", "+", "not ", "- "]) + next();
    case 2: return `${pick(functions)}(${next()})`;
    case 3: return `${next()} ? (${next()}) : ${next()}`;
    case 4: return `${pick(["min", "max", "hypot"])}(${Array.from({ length: 1 + random(3) }, next).join(", ")})`;
    case 5: return pick([() => `round(${next()}, ${random(6)})`, () => `log(${next()}, ${pick(["2", "10", "3"])})`,
      () => `pow(${next()},${pick(numbers)})`, () => `mod(${next()},${pick(numbers)})`])();
    default: return next() + blank + pick(operators) + blank + next();
  }
}

const isMissing = (value) => (value && value.isComplex) || (typeof value === "number" && !Number.isFinite(value));
const lines = new Set();
while (lines.size < Number(process.argv[3])) {
  const text = make(4);
  if (text.length > 80 || !/[^0-9a-z.()]/.test(text)) continue;
  let value, same, strange = false;
  try {
    value = plain.evaluate(text);
    same = real.evaluate(text);
    real.parse(text).traverse((node) => {
      strange ||= node.type === "RelationalNode";
      const step = node.evaluate?.();
      strange ||= typeof step === "number" && Number.isNaN(step) && !isMissing(same);
    });
  } catch {
    continue;
  }
  if (strange || (isMissing(value) ? !isMissing(same) : !Object.is(value, same))) continue;
  const missing = isMissing(value);
  // Few of them, else they are half of all.
  if (missing && random(8) !== 0) continue;
  lines.add(`${text}\t${missing ? "none" : String(Number(value))}`);
}
for (const line of lines) console.log(line);
