//! A sensor's expression: parsed once to a program of fixed capacity, then evaluated over `$1`..`$N` for each row.
//!
//! ```
//! use grafolean_bot_snmp::expression::{Expression, Missing, Operand};
//!
//! let expression: Expression = Expression::parse("$2 == 0 ? 0 : round(100 * $1 / $2, 1)", 2)?;
//! assert_eq!(expression.evaluate(&[Operand::Number(1.0), Operand::Number(3.0)]), Ok(33.3));
//! assert_eq!(expression.evaluate(&[Operand::Number(1.0), Operand::Number(0.0)]), Ok(0.0));
//! assert_eq!(expression.evaluate(&[Operand::Number(1.0), Operand::Absent]), Err(Missing::Absent { operand: 2 }));
//!
//! let error = Expression::<32>::parse("$1 + $3", 2).unwrap_err();
//! assert_eq!(error.to_string(), "column 6: `$` with a number that no OID of this sensor has");
//! # Ok::<(), grafolean_bot_snmp::expression::ExpressionError>(())
//! ```
//!
//! # The language
//! That of math.js, which the product's web page refers its users to, as far as it is about real numbers. From the loosest
//! to the tightest, operators of one row from left to right unless it says otherwise:
//!
//! | | |
//! | --- | --- |
//! | `a ? b : c` | from right to left; what is 0 or false chooses `c` |
//! | `or` | 1 or 0, as `xor`, `and`, `not` and comparisons give |
//! | `xor` | |
//! | `and` | |
//! | `==` `!=` `<` `<=` `>` `>=` | equal is what differs by no more than 1e-12 of the larger one (or 1e-15); not chained |
//! | `+` `-` | |
//! | `*` `/` `%` `mod` | `%` and `mod` are the same; the result has the sign of the divisor; by 0 it is the dividend |
//! | `-a` `+a` `not a` | |
//! | `^` | from right to left: `2^3^2` is 512, and `-2^2` is -4 |
//!
//! Numbers (`12`, `.5`, `1e-3`), parentheses, the constants `pi`, `e`, `true` (1) and `false` (0), and these functions:
//! `abs` `ceil` `floor` `fix` `round(a)` `round(a, decimals)` `sign` `sqrt` `cbrt` `exp` `expm1` `log(a)` `log(a, base)`
//! `log2` `log10` `log1p` `pow` `mod`, and of any number of arguments `min` `max` `hypot`. `trunc` is `fix` and `sgn` is
//! `sign`, as the Python bot names them. Rounding is by the decimal digits that a number shows, halves away from zero:
//! `round(2.5)` is 3 and `round(1.005, 2)` is 1.01. What is a hair (1e-12 of it) off a whole number counts as that in
//! `ceil`, `floor`, `fix` and `mod`.
//!
//! # What gives no value
//! Only what the result depends on counts: `$2 != 0 and $1 / $2 > 5` has a value where `$2` is 0, and so has
//! `$1 > 0 ? $1 : $2` where `$2` is missing and not chosen. See [`Missing`].
//!
//! # Differences
//! | | Python bot | math.js | here |
//! | --- | --- | --- | --- |
//! | `1/0` | 0 | Infinity | no value: 0 is a reading that never was, and the backend can't store an infinity. Who wants 0 writes `$2 == 0 ? 0 : $1 / $2`. **Existing series get gaps where they had zeros**; each is counted, and the first is told in the log |
//! | `0/0`, `sqrt(-1)`, `log(-1)`, `(-8)^(1/3)` | an error | NaN, or a complex number | no value |
//! | `2^3^2` | 64 | 512 | 512 |
//! | `-2^2`, unary minus at all, `1e-3` | errors | -4, 0.001 | as math.js |
//! | `-5 % 3` | an error; `(0-5) % 3` is -2 | 1 | 1 |
//! | `round(2.5)` | 2 | 3 | 3 |
//! | `trunc`, `sgn` | known | unknown | known |
//! | `0.1 + 0.2 == 0.3` | false | true | true |
//! | `1 < 2` as the result | true | true | 1 |
//! | `1 < 2 < 3` | (`1 < 2`) `< 3` | `1 < 2 and 2 < 3` | refused, write the latter |
//! | `2 pi`, `2(3)`, `50%`, `5!`, `0x10`, units, bits, matrices, texts, `a = 1` | | known | refused |
//! | `1 ? 0 ? 3 : 4 : 5` | | refused | 4 |
//! | a number above 1.8e308 | | Infinity | refused |
//!
//! # Cost
//! No allocation, no recursion. A program takes 16 bytes for each number, `$n`, operator and call, of which it has `OPS`;
//! parsing and evaluating take about 500 bytes of stack each and time linear in the length. Results are `f64`: whole ones
//! below 2^53 are exact and are printed without a point.

use core::fmt;
use core::fmt::Write as _;

use heapless::Vec;

/// How deep parentheses, calls and operators that wait for their right side may be nested.
pub const MAX_DEPTH: usize = 32;
/// How many intermediate results may wait at once.
pub const MAX_PENDING: usize = 24;
/// The most operands, `$1` to `$32`.
pub const MAX_OPERANDS: usize = 32;

/// What comes in as `$n`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Operand {
    /// A number, finite.
    Number(f64),
    /// A text that is no number.
    Text,
    /// The device gave nothing: no such object, or no such row in this table.
    Absent,
    /// A counter of which there is no rate: see [`crate::rates`].
    NoRate,
}

impl Operand {
    /// An OCTET STRING: a number if its text is one (decimal, with or without sign, fraction, exponent and blanks
    /// around it), else [`Operand::Text`].
    #[must_use]
    pub fn from_text(text: &[u8]) -> Self {
        let text = text.strip_suffix(b"\0").unwrap_or(text).trim_ascii();
        let plain = |c: &u8| c.is_ascii_digit() || matches!(c, b'+' | b'-' | b'.' | b'e' | b'E');
        if !text.iter().all(plain) {
            return Operand::Text;
        }
        match core::str::from_utf8(text).ok().and_then(|text| text.parse::<f64>().ok()) {
            Some(number) if number.is_finite() => Operand::Number(number),
            _ => Operand::Text,
        }
    }
}

/// Why an expression has no value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Missing {
    /// An operand is a text that is no number.
    Text {
        /// The `n` of its `$n`.
        operand: u8,
    },
    /// The device gave nothing for an operand.
    Absent {
        /// The `n` of its `$n`.
        operand: u8,
    },
    /// An operand is a counter of which there is no rate.
    NoRate {
        /// The `n` of its `$n`.
        operand: u8,
    },
    /// It divides by zero.
    DivisionByZero,
    /// It has no real result: the root or logarithm of a negative number, a difference of infinities.
    NotReal,
    /// Beyond what a double can hold.
    Overflow,
    /// The number of decimals in `round` is not a whole number from 0 to 15.
    Decimals,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::Text { operand } => write!(f, "${operand} is a text that is no number"),
            Missing::Absent { operand } => write!(f, "the device gave nothing for ${operand}"),
            Missing::NoRate { operand } => write!(f, "${operand} is a counter of which there is no rate yet"),
            Missing::DivisionByZero => f.write_str("division by zero"),
            Missing::NotReal => f.write_str("the result is not a real number"),
            Missing::Overflow => f.write_str("the result is beyond what a double can hold"),
            Missing::Decimals => f.write_str("`round` takes 0 to 15 decimals"),
        }
    }
}

impl core::error::Error for Missing {}

/// Why a text is no expression, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExpressionError {
    /// Where, in bytes from the start.
    pub offset: usize,
    /// Where, in characters, counted from 1.
    pub column: usize,
    /// What is wrong.
    pub kind: ExpressionErrorKind,
}

/// Why a text is no expression.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ExpressionErrorKind {
    /// It holds nothing.
    Empty,
    /// A number, a `$n`, a function, `(` or a sign is expected.
    OperandExpected,
    /// An operator or the end is expected.
    OperatorExpected,
    /// A parenthesis was not closed.
    ParenthesisExpected,
    /// A `?` lacks its `:`.
    ColonExpected,
    /// A `)` that closes nothing.
    StrayParenthesis,
    /// A `:` without its `?`.
    StrayColon,
    /// A `,` that is not between a function's arguments.
    StrayComma,
    /// A name that is neither a constant nor a function.
    UnknownName,
    /// A function's name without `(`.
    NoArguments,
    /// Too few or too many arguments for the function that stands here.
    ArgumentCount,
    /// A `$` without a number from 1.
    OperandNumber,
    /// A `$n` beyond the sensor's OIDs.
    UnknownOperand {
        /// How many OIDs there are.
        operands: usize,
    },
    /// A character that no expression has.
    Character,
    /// A number beyond what a double can hold.
    NumberTooLarge,
    /// Comparisons in a row.
    Chained,
    /// More steps than the program has room for.
    TooLong {
        /// How many numbers, `$n`, operators and calls there can be.
        limit: usize,
    },
    /// Nested too deep.
    TooDeep {
        /// How deep it may be.
        limit: usize,
    },
}

impl ExpressionErrorKind {
    /// What is wrong, without its numbers.
    #[must_use]
    pub const fn text(self) -> &'static str {
        use ExpressionErrorKind as K;
        match self {
            K::Empty => "empty",
            K::OperandExpected => "a number, `$n`, function, `(` or sign is expected",
            K::OperatorExpected => "an operator or the end is expected",
            K::ParenthesisExpected => "this parenthesis is not closed: `)` is expected at the end",
            K::ColonExpected => "this `?` lacks its `:`",
            K::StrayParenthesis => "this `)` closes nothing",
            K::StrayColon => "this `:` has no `?`",
            K::StrayComma => "`,` outside of a function's arguments",
            K::UnknownName => "unknown name",
            K::NoArguments => "`(` is expected behind this function",
            K::ArgumentCount => "this function takes another number of arguments",
            K::OperandNumber => "`$` lacks a number from 1",
            K::UnknownOperand { .. } => "`$` with a number that no OID of this sensor has",
            K::Character => "a character that has no meaning here",
            K::NumberTooLarge => "number too large",
            K::Chained => "comparisons can't be chained: join them with `and`",
            K::TooLong { .. } => "too many numbers and operators",
            K::TooDeep { .. } => "nested too deep",
        }
    }

    /// The limit that it is beyond.
    #[must_use]
    pub const fn limit(self) -> Option<usize> {
        match self {
            ExpressionErrorKind::TooLong { limit } | ExpressionErrorKind::TooDeep { limit } => Some(limit),
            _ => None,
        }
    }
}

impl fmt::Display for ExpressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {}: {}", self.column, self.kind.text())?;
        match self.kind.limit() {
            Some(limit) => write!(f, " (limit {limit})"),
            None => Ok(()),
        }
    }
}

impl core::error::Error for ExpressionError {}

/// A parsed expression of up to `OPS` numbers, `$n`, operators and calls.
#[derive(Clone, PartialEq, Debug)]
pub struct Expression<const OPS: usize = 32> {
    /// In the order in which a stack machine does them.
    ops: Vec<Op, OPS>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Op {
    Number(f64),
    Operand(u8),
    Unary(Unary),
    Binary(Binary),
    /// `a ? b : c`.
    Select,
    Call(Function, u8),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Unary {
    Minus,
    Plus,
    Not,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Binary {
    Or,
    Xor,
    And,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Power,
}

/// How tightly operators bind.
const SELECT: u8 = 1;
const COMPARISON: u8 = 5;
const UNARY: u8 = 8;

impl Binary {
    const fn precedence(self) -> u8 {
        match self {
            Binary::Or => 2,
            Binary::Xor => 3,
            Binary::And => 4,
            Binary::Equal
            | Binary::NotEqual
            | Binary::Less
            | Binary::LessOrEqual
            | Binary::Greater
            | Binary::GreaterOrEqual => COMPARISON,
            Binary::Add | Binary::Subtract => 6,
            Binary::Multiply | Binary::Divide | Binary::Modulo => 7,
            Binary::Power => 9,
        }
    }
}

macro_rules! functions {
    ($($variant:ident $names:pat => $min:literal..=$max:literal,)*) => {
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        enum Function { $($variant),* }

        impl Function {
            fn named(name: &str) -> Option<Self> {
                match name {
                    $($names => Some(Function::$variant),)*
                    _ => None,
                }
            }

            /// How many arguments it takes.
            const fn takes(self, arguments: u8) -> bool {
                match self {
                    $(Function::$variant => $min <= arguments && arguments <= $max,)*
                }
            }
        }
    };
}

functions! {
    Abs "abs" => 1..=1,
    Ceil "ceil" => 1..=1,
    Floor "floor" => 1..=1,
    Round "round" => 1..=2,
    Fix "fix" | "trunc" => 1..=1,
    Sign "sign" | "sgn" => 1..=1,
    Sqrt "sqrt" => 1..=1,
    Cbrt "cbrt" => 1..=1,
    Exp "exp" => 1..=1,
    Expm1 "expm1" => 1..=1,
    Log "log" => 1..=2,
    Log2 "log2" => 1..=1,
    Log10 "log10" => 1..=1,
    Log1p "log1p" => 1..=1,
    Pow "pow" => 2..=2,
    Modulo "mod" => 2..=2,
    Min "min" => 1..=250,
    Max "max" => 1..=250,
    Hypot "hypot" => 1..=250,
}

impl<const OPS: usize> Expression<OPS> {
    /// Parses `text`, whose operands are `$1` to `$operands`.
    ///
    /// # Errors
    /// [`ExpressionError`], for the first fault from the left.
    pub fn parse(text: &str, operands: usize) -> Result<Self, ExpressionError> {
        let mut parser = Parser { operands, ops: Vec::new(), waiting: Vec::new(), pending: 0 };
        match parser.parse(text) {
            Ok(()) => Ok(Expression { ops: parser.ops }),
            Err((offset, kind)) => {
                let before = text.get(..offset).unwrap_or(text);
                Err(ExpressionError { offset, column: before.chars().count() + 1, kind })
            }
        }
    }

    /// Its value where `operands[0]` is `$1`; what is not there is [`Operand::Absent`]. Finite, and never -0.
    ///
    /// # Errors
    /// [`Missing`]: there is no value.
    pub fn evaluate(&self, operands: &[Operand]) -> Result<f64, Missing> {
        let mut machine = Machine { stack: Vec::new(), divided_by_zero: false };
        for op in &self.ops {
            machine.step(*op, operands);
        }
        let result = machine.pop()?;
        if result.is_finite() {
            // Without the sign of a zero, which a reader of the series would wonder about.
            Ok(result + 0.0)
        } else if machine.divided_by_zero {
            Err(Missing::DivisionByZero)
        } else {
            Err(Missing::Overflow)
        }
    }

    /// Whether the value depends on `$n`, counted from 1, in whichever rows.
    #[must_use]
    pub fn uses(&self, n: usize) -> bool {
        self.ops.iter().any(|op| matches!(op, Op::Operand(at) if usize::from(*at) + 1 == n))
    }
}

/// What waits for its right side or its closing parenthesis, and where it stood.
#[derive(Clone, Copy)]
struct Waiting {
    what: Opener,
    offset: u16,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Opener {
    Unary(Unary),
    Binary(Binary),
    Parenthesis,
    /// A call with the arguments begun so far.
    Call(Function, u8),
    /// Waits for its `:`.
    Question,
    /// `a ? b :`, waits for `c`.
    Colon,
}

impl Opener {
    /// How tightly an operator binds; `None` if it is an opened bracket of some kind.
    const fn precedence(self) -> Option<u8> {
        match self {
            Opener::Unary(_) => Some(UNARY),
            Opener::Binary(binary) => Some(binary.precedence()),
            Opener::Colon => Some(SELECT),
            Opener::Parenthesis | Opener::Call(..) | Opener::Question => None,
        }
    }
}

type Fault = (usize, ExpressionErrorKind);

/// Dijkstra's shunting yard.
struct Parser<const OPS: usize> {
    operands: usize,
    ops: Vec<Op, OPS>,
    waiting: Vec<Waiting, MAX_DEPTH>,
    /// Intermediate results that wait when the program has come so far.
    pending: usize,
}

impl<const OPS: usize> Parser<OPS> {
    fn parse(&mut self, text: &str) -> Result<(), Fault> {
        use ExpressionErrorKind as K;
        if usize::from(u16::MAX) < text.len() {
            return Err((0, K::TooLong { limit: OPS }));
        }
        let mut lexer = Lexer { text, at: 0 };
        let mut operand_expected = true;
        loop {
            let (offset, token) = lexer.next()?;
            operand_expected = match (token, operand_expected) {
                (Token::End, true) if offset == 0 || text.trim_ascii().is_empty() => {
                    return Err((offset, K::Empty));
                }
                (Token::End, true) => return Err((offset, K::OperandExpected)),
                (Token::End, false) => break,

                (Token::Number(number), true) => self.emit(offset, Op::Number(number))?,
                (Token::Dollar(number), true) => {
                    let index = usize::try_from(number).ok().and_then(|n| n.checked_sub(1));
                    let index = index.ok_or((offset, K::OperandNumber))?;
                    if index >= self.operands.min(MAX_OPERANDS) {
                        return Err((offset, K::UnknownOperand { operands: self.operands }));
                    }
                    self.emit(offset, Op::Operand(index as u8))?
                }
                (Token::Name(name), true) => match constant(name) {
                    Some(number) => self.emit(offset, Op::Number(number))?,
                    None => {
                        let function = Function::named(name).ok_or((offset, K::UnknownName))?;
                        if !matches!(lexer.next()?, (_, Token::Open)) {
                            return Err((offset, K::NoArguments));
                        }
                        self.wait(offset, Opener::Call(function, 1))?
                    }
                },
                (Token::Open, true) => self.wait(offset, Opener::Parenthesis)?,
                (Token::Not, true) => self.wait(offset, Opener::Unary(Unary::Not))?,
                (Token::Operator(Binary::Subtract), true) => {
                    self.wait(offset, Opener::Unary(Unary::Minus))?
                }
                (Token::Operator(Binary::Add), true) => self.wait(offset, Opener::Unary(Unary::Plus))?,
                // `mod` is a function, too.
                (Token::Operator(Binary::Modulo), true) if lexer.is_word_before("mod") => {
                    if !matches!(lexer.next()?, (_, Token::Open)) {
                        return Err((offset, K::OperandExpected));
                    }
                    self.wait(offset, Opener::Call(Function::Modulo, 1))?
                }
                // A function takes at least one argument, so a `)` that follows its `(` is told like this as well.
                (_, true) => return Err((offset, K::OperandExpected)),

                (Token::Operator(binary), false) => self.binary(offset, binary)?,
                (Token::Question, false) => {
                    self.release(SELECT + 1)?;
                    self.wait(offset, Opener::Question)?
                }
                (Token::Colon, false) => {
                    self.release(SELECT)?;
                    match self.waiting.last_mut() {
                        Some(Waiting { what: what @ Opener::Question, .. }) => *what = Opener::Colon,
                        _ => return Err((offset, K::StrayColon)),
                    }
                    true
                }
                (Token::Comma, false) => {
                    self.release(SELECT)?;
                    match self.waiting.last_mut() {
                        Some(Waiting { what: Opener::Call(_, arguments), .. }) => {
                            *arguments = arguments.saturating_add(1);
                        }
                        Some(Waiting { what: Opener::Question, offset }) => {
                            return Err((usize::from(*offset), K::ColonExpected));
                        }
                        _ => return Err((offset, K::StrayComma)),
                    }
                    true
                }
                (Token::Close, false) => {
                    self.release(SELECT)?;
                    match self.waiting.pop() {
                        Some(Waiting { what: Opener::Parenthesis, .. }) => {}
                        Some(Waiting { what: Opener::Call(function, arguments), offset }) => {
                            let offset = usize::from(offset);
                            if !function.takes(arguments) {
                                return Err((offset, K::ArgumentCount));
                            }
                            self.emit(offset, Op::Call(function, arguments))?;
                        }
                        Some(Waiting { what: Opener::Question, offset }) => {
                            return Err((usize::from(offset), K::ColonExpected));
                        }
                        _ => return Err((offset, K::StrayParenthesis)),
                    }
                    false
                }
                (_, false) => return Err((offset, K::OperatorExpected)),
            };
        }
        self.release(SELECT)?;
        match self.waiting.last() {
            None => Ok(()),
            Some(Waiting { what: Opener::Question, offset }) => Err((usize::from(*offset), K::ColonExpected)),
            Some(Waiting { offset, .. }) => Err((usize::from(*offset), K::ParenthesisExpected)),
        }
    }

    fn binary(&mut self, offset: usize, binary: Binary) -> Result<bool, Fault> {
        let precedence = binary.precedence();
        // From right to left: another one of its kind waits.
        self.release(if binary == Binary::Power {
            precedence + 1
        } else {
            precedence + u8::from(precedence == COMPARISON)
        })?;
        if precedence == COMPARISON
            && self.waiting.last().is_some_and(|top| top.what.precedence() == Some(COMPARISON))
        {
            return Err((offset, ExpressionErrorKind::Chained));
        }
        self.wait(offset, Opener::Binary(binary))
    }

    /// Emits the operators that wait, down to those that bind less tightly than `least`, or to a bracket.
    fn release(&mut self, least: u8) -> Result<(), Fault> {
        while let Some(top) = self.waiting.last().copied() {
            if top.what.precedence().is_none_or(|precedence| precedence < least) {
                break;
            }
            self.waiting.pop();
            let op = match top.what {
                Opener::Unary(unary) => Op::Unary(unary),
                Opener::Binary(binary) => Op::Binary(binary),
                _ => Op::Select,
            };
            self.emit(usize::from(top.offset), op)?;
        }
        Ok(())
    }

    /// Whether an operand is expected next: yes.
    fn wait(&mut self, offset: usize, what: Opener) -> Result<bool, Fault> {
        let waiting = Waiting { what, offset: offset as u16 };
        match self.waiting.push(waiting) {
            Ok(()) => Ok(true),
            Err(_) => Err((offset, ExpressionErrorKind::TooDeep { limit: MAX_DEPTH })),
        }
    }

    /// Whether an operand is expected next: no.
    fn emit(&mut self, offset: usize, op: Op) -> Result<bool, Fault> {
        let taken = match op {
            Op::Number(_) | Op::Operand(_) => 0,
            Op::Unary(_) => 1,
            Op::Binary(_) => 2,
            Op::Select => 3,
            Op::Call(_, arguments) => usize::from(arguments),
        };
        self.pending = self.pending.saturating_sub(taken) + 1;
        if self.pending > MAX_PENDING {
            return Err((offset, ExpressionErrorKind::TooDeep { limit: MAX_PENDING }));
        }
        match self.ops.push(op) {
            Ok(()) => Ok(false),
            Err(_) => Err((offset, ExpressionErrorKind::TooLong { limit: OPS })),
        }
    }
}

fn constant(name: &str) -> Option<f64> {
    match name {
        "pi" | "PI" => Some(core::f64::consts::PI),
        "e" | "E" => Some(core::f64::consts::E),
        "true" => Some(1.0),
        "false" => Some(0.0),
        _ => None,
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Token<'a> {
    Number(f64),
    Dollar(u32),
    Name(&'a str),
    Operator(Binary),
    Not,
    Open,
    Close,
    Comma,
    Question,
    Colon,
    End,
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    /// The next token and where it begins.
    fn next(&mut self) -> Result<(usize, Token<'a>), Fault> {
        use ExpressionErrorKind as K;
        self.take_while(|c| c.is_ascii_whitespace());
        let start = self.at;
        let Some(first) = self.peek(0) else { return Ok((start, Token::End)) };
        let token = match first {
            b'0'..=b'9' => self.number(start)?,
            b'.' if self.peek(1).is_some_and(|c| c.is_ascii_digit()) => self.number(start)?,
            b'$' => {
                self.at += 1;
                let digits = self.take_while(|c| c.is_ascii_digit());
                if digits.is_empty() || digits.bytes().all(|c| c == b'0') {
                    return Err((start, K::OperandNumber));
                }
                // One that is too long for an integer is beyond the operands as well.
                Token::Dollar(digits.parse().unwrap_or(u32::MAX))
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                match self.take_while(|c| c.is_ascii_alphanumeric() || c == b'_') {
                    "and" => Token::Operator(Binary::And),
                    "or" => Token::Operator(Binary::Or),
                    "xor" => Token::Operator(Binary::Xor),
                    "mod" => Token::Operator(Binary::Modulo),
                    "not" => Token::Not,
                    name => Token::Name(name),
                }
            }
            _ => {
                let (token, len) = match (first, self.peek(1)) {
                    (b'=', Some(b'=')) => (Token::Operator(Binary::Equal), 2),
                    (b'!', Some(b'=')) => (Token::Operator(Binary::NotEqual), 2),
                    (b'<', Some(b'=')) => (Token::Operator(Binary::LessOrEqual), 2),
                    (b'>', Some(b'=')) => (Token::Operator(Binary::GreaterOrEqual), 2),
                    (b'<', _) => (Token::Operator(Binary::Less), 1),
                    (b'>', _) => (Token::Operator(Binary::Greater), 1),
                    (b'+', _) => (Token::Operator(Binary::Add), 1),
                    (b'-', _) => (Token::Operator(Binary::Subtract), 1),
                    (b'*', _) => (Token::Operator(Binary::Multiply), 1),
                    (b'/', _) => (Token::Operator(Binary::Divide), 1),
                    (b'%', _) => (Token::Operator(Binary::Modulo), 1),
                    (b'^', _) => (Token::Operator(Binary::Power), 1),
                    (b'(', _) => (Token::Open, 1),
                    (b')', _) => (Token::Close, 1),
                    (b',', _) => (Token::Comma, 1),
                    (b'?', _) => (Token::Question, 1),
                    (b':', _) => (Token::Colon, 1),
                    _ => return Err((start, K::Character)),
                };
                self.at += len;
                token
            }
        };
        Ok((start, token))
    }

    /// Digits with at most one point, and an exponent if it has digits.
    fn number(&mut self, start: usize) -> Result<Token<'a>, Fault> {
        let is_digit = |c: u8| c.is_ascii_digit();
        self.take_while(is_digit);
        if self.peek(0) == Some(b'.') {
            self.at += 1;
            self.take_while(is_digit);
        }
        if matches!(self.peek(0), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(self.peek(1), Some(b'+' | b'-')));
            if self.peek(1 + sign).is_some_and(is_digit) {
                self.at += 1 + sign;
                self.take_while(is_digit);
            }
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Token::Number(number)),
            _ => Err((start, ExpressionErrorKind::NumberTooLarge)),
        }
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + ahead).copied()
    }

    /// Whether `word` ends where the lexer stands.
    fn is_word_before(&self, word: &str) -> bool {
        self.text.get(..self.at).is_some_and(|before| before.ends_with(word))
    }

    fn take_while(&mut self, is_part: impl Fn(u8) -> bool) -> &'a str {
        let start = self.at;
        while self.peek(0).is_some_and(&is_part) {
            self.at += 1;
        }
        self.text.get(start..self.at).unwrap_or_default()
    }
}

/// A number, which may be infinite but is never NaN, or why there is none.
type Cell = Result<f64, Missing>;

struct Machine {
    stack: Vec<Cell, MAX_PENDING>,
    divided_by_zero: bool,
}

impl Machine {
    /// The parser has made sure that something is there.
    fn pop(&mut self) -> Cell {
        self.stack.pop().unwrap_or(Err(Missing::NotReal))
    }

    fn step(&mut self, op: Op, operands: &[Operand]) {
        let result = match op {
            Op::Number(number) => Ok(number),
            Op::Operand(at) => {
                let operand = at + 1;
                match operands.get(usize::from(at)) {
                    Some(Operand::Number(number)) => self.real(*number),
                    Some(Operand::Text) => Err(Missing::Text { operand }),
                    Some(Operand::Absent) | None => Err(Missing::Absent { operand }),
                    Some(Operand::NoRate) => Err(Missing::NoRate { operand }),
                }
            }
            Op::Unary(unary) => self.pop().map(|a| match unary {
                Unary::Minus => -a,
                Unary::Plus => a,
                Unary::Not => truth(a == 0.0),
            }),
            Op::Binary(binary) => {
                let (b, a) = (self.pop(), self.pop());
                self.binary(binary, a, b)
            }
            Op::Select => {
                let (c, b, a) = (self.pop(), self.pop(), self.pop());
                match a {
                    Ok(0.0) => c,
                    Ok(_) => b,
                    Err(why) => Err(why),
                }
            }
            Op::Call(function, arguments) => self.call(function, usize::from(arguments)),
        };
        let pushed = self.stack.push(result);
        debug_assert!(pushed.is_ok(), "the parser has bounded the stack");
    }

    fn binary(&mut self, binary: Binary, a: Cell, b: Cell) -> Cell {
        let a = a?;
        // What the first decides needs no second.
        match binary {
            Binary::And if a == 0.0 => return Ok(0.0),
            Binary::Or if a != 0.0 => return Ok(1.0),
            _ => {}
        }
        let b = b?;
        let result = match binary {
            Binary::And | Binary::Or => truth(b != 0.0),
            Binary::Xor => truth((a != 0.0) != (b != 0.0)),
            Binary::Equal => truth(nearly_equal(a, b)),
            Binary::NotEqual => truth(!nearly_equal(a, b)),
            Binary::Less => truth(a < b && !nearly_equal(a, b)),
            Binary::LessOrEqual => truth(a <= b || nearly_equal(a, b)),
            Binary::Greater => truth(a > b && !nearly_equal(a, b)),
            Binary::GreaterOrEqual => truth(a >= b || nearly_equal(a, b)),
            Binary::Add => a + b,
            Binary::Subtract => a - b,
            Binary::Multiply => a * b,
            Binary::Divide => {
                self.divided_by_zero |= b == 0.0;
                a / b
            }
            Binary::Modulo => modulo(a, b),
            Binary::Power => {
                self.divided_by_zero |= a == 0.0 && b < 0.0;
                libm::pow(a, b)
            }
        };
        self.real(result)
    }

    fn call(&mut self, function: Function, arguments: usize) -> Cell {
        let from = self.stack.len().saturating_sub(arguments);
        let mut given = [Ok(0.0); MAX_PENDING];
        for (to, cell) in given.iter_mut().zip(self.stack.get(from..).unwrap_or_default()) {
            *to = *cell;
        }
        self.stack.truncate(from);
        let mut numbers = [0.0; MAX_PENDING];
        for (to, cell) in numbers.iter_mut().zip(given) {
            *to = cell?;
        }
        let numbers = numbers.get(..arguments).unwrap_or_default();
        let [a, b, ..] = *numbers else {
            let [a] = *numbers else { return Err(Missing::NotReal) };
            return self.call_of_one(function, a);
        };
        let result = match function {
            Function::Round => round_to(a, b)?,
            Function::Log => {
                let (of, base) = (self.logarithm(a, libm::log(a)), libm::log(b));
                self.divided_by_zero |= base == 0.0;
                of / base
            }
            Function::Pow => return self.binary(Binary::Power, Ok(a), Ok(b)),
            Function::Modulo => modulo(a, b),
            Function::Min => numbers.iter().fold(a, |least, x| least.min(*x)),
            Function::Max => numbers.iter().fold(a, |most, x| most.max(*x)),
            Function::Hypot => numbers.iter().fold(0.0, |length, x| libm::hypot(length, *x)),
            _ => f64::NAN,
        };
        self.real(result)
    }

    fn call_of_one(&mut self, function: Function, a: f64) -> Cell {
        let result = match function {
            Function::Abs | Function::Hypot => libm::fabs(a),
            Function::Ceil => whole(a, libm::ceil),
            Function::Floor => whole(a, libm::floor),
            Function::Fix => whole(a, libm::trunc),
            Function::Round => round_to(a, 0.0)?,
            Function::Sign => truth(a > 0.0) - truth(a < 0.0),
            Function::Sqrt => libm::sqrt(a),
            Function::Cbrt => libm::cbrt(a),
            Function::Exp => libm::exp(a),
            Function::Expm1 => libm::expm1(a),
            Function::Log => self.logarithm(a, libm::log(a)),
            Function::Log2 => self.logarithm(a, libm::log2(a)),
            Function::Log10 => self.logarithm(a, libm::log10(a)),
            Function::Log1p => self.logarithm(a + 1.0, libm::log1p(a)),
            Function::Min | Function::Max => a,
            Function::Pow | Function::Modulo => f64::NAN,
        };
        self.real(result)
    }

    /// `result`, the logarithm of `a`: that of 0 is infinite for the same reason as a division by it.
    fn logarithm(&mut self, a: f64, result: f64) -> f64 {
        self.divided_by_zero |= a == 0.0;
        result
    }

    /// Not NaN.
    fn real(&self, number: f64) -> Cell {
        match (number.is_nan(), self.divided_by_zero) {
            (false, _) => Ok(number),
            (true, true) => Err(Missing::DivisionByZero),
            (true, false) => Err(Missing::NotReal),
        }
    }
}

const fn truth(is_true: bool) -> f64 {
    if is_true { 1.0 } else { 0.0 }
}

/// As math.js compares: with a tolerance of 1e-12 of the larger one, and of 1e-15 near zero.
fn nearly_equal(a: f64, b: f64) -> bool {
    if a == b {
        return true;
    }
    if !a.is_finite() || !b.is_finite() {
        return false;
    }
    let larger = libm::fmax(libm::fabs(a), libm::fabs(b));
    libm::fabs(a - b) <= libm::fmax(1e-12 * larger, 1e-15)
}

/// The whole number that `a` is but for a rounding error, else that to which `to_whole` takes it.
fn whole(a: f64, to_whole: fn(f64) -> f64) -> f64 {
    let near = libm::round(a);
    if nearly_equal(a, near) { near } else { to_whole(a) }
}

/// With the sign of the divisor; by 0, the dividend.
fn modulo(a: f64, b: f64) -> f64 {
    if b == 0.0 { a } else { a - b * whole(a / b, libm::floor) }
}

/// `a` to so many decimals.
fn round_to(a: f64, decimals: f64) -> Cell {
    if !(0.0..=15.0).contains(&decimals) || libm::trunc(decimals) != decimals {
        return Err(Missing::Decimals);
    }
    // Without the last digits, if they are a rounding error.
    let short = round_digits(a, 12);
    Ok(round_digits(if nearly_equal(a, short) { short } else { a }, decimals as i32))
}

/// Rounds the shortest digits that stand for `a`, halves away from zero.
fn round_digits(a: f64, decimals: i32) -> f64 {
    let mut shortest = Digits::default();
    // `[-]d[.ddd]e[-]x`; infinities have no digits.
    if !a.is_finite() || write!(shortest, "{a:e}").is_err() {
        return a;
    }
    let negative = a < 0.0;
    let (mut digits, exponent) = shortest.split();
    // How many of the digits stay.
    let keep = exponent + 1 + decimals;
    let Ok(keep) = usize::try_from(keep) else { return 0.0 };
    let Some(first_dropped) = digits.get(keep).copied() else { return a };
    let mut carry = first_dropped >= b'5';
    digits.truncate(keep);
    for digit in digits.iter_mut().rev() {
        if !carry {
            break;
        }
        carry = *digit == b'9';
        *digit = if carry { b'0' } else { *digit + 1 };
    }
    let mut text = Digits::default();
    let head = if carry { "1" } else { "0" };
    let kept = core::str::from_utf8(&digits).unwrap_or("0");
    // The digits as a whole number, times a power of ten.
    if write!(text, "{head}{kept}e{}", -decimals).is_err() {
        return a;
    }
    let size = core::str::from_utf8(&text.0).ok().and_then(|text| text.parse::<f64>().ok()).unwrap_or(a);
    if negative { -size } else { size }
}

/// Room for a number's text.
#[derive(Default)]
struct Digits(Vec<u8, 32>);

impl Digits {
    /// The digits and the exponent of `{:e}`.
    fn split(&self) -> (Vec<u8, 32>, i32) {
        let mut parts = self.0.split(|c| *c == b'e');
        let mut digits = Vec::new();
        for c in parts.next().unwrap_or_default().iter().filter(|c| c.is_ascii_digit()) {
            let _ = digits.push(*c);
        }
        let exponent = parts.next().and_then(|e| core::str::from_utf8(e).ok()).and_then(|e| e.parse().ok());
        (digits, exponent.unwrap_or(0))
    }
}

impl fmt::Write for Digits {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes()).map_err(|_| fmt::Error)
    }
}
