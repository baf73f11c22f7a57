//! Expressions against math.js, against a straightforward evaluation of trees, and against another crate; and what is told of
//! those that are none.

use exmex::Express as _;
use grafolean_bot_snmp::expression::{Expression, ExpressionErrorKind as Kind, Missing, Operand};
use grafolean_core::random::SplitMix64;
use grafolean_core::values::Number as _;
use proptest::prelude::*;

const N: fn(f64) -> Operand = Operand::Number;

fn value(text: &str, operands: &[Operand]) -> Result<f64, Missing> {
    match Expression::<64>::parse(text, operands.len()) {
        Ok(expression) => expression.evaluate(operands),
        Err(error) => panic!("`{text}`: {error}"),
    }
}

/// As it is posted.
fn posted(text: &str, operands: &[Operand]) -> String {
    value(text, operands).unwrap().number_text().unwrap().to_string()
}

fn fault(text: &str, operands: usize) -> (usize, usize, Kind) {
    let error = Expression::<64>::parse(text, operands).map(|_| ()).expect_err(text);
    (error.offset, error.column, error.kind)
}

/// Equal but for what two libraries of functions may differ by.
fn is_near(a: f64, b: f64) -> bool {
    a == b || (a - b).abs() <= 1e-11 * a.abs().max(b.abs()) || (a - b).abs() < 1e-300
}

#[test]
fn what_was_read_is_computed_with_as_the_product_documents_it() {
    assert_eq!(posted("$1", &[N(68000.0)]), "68000");
    assert_eq!(posted("$1 + $2", &[N(68000.0), N(200.0)]), "68200");
    assert_eq!(posted("$1/$2", &[N(60000.0), N(10.0)]), "6000");
    assert_eq!(posted("$1/$2", &[N(61000.0), N(10.0)]), "6100");
    assert_eq!(value("$1/$2", &[N(62000.0), Operand::Absent]), Err(Missing::Absent { operand: 2 }));
    assert_eq!(posted("$2 * 8", &[Operand::Text, N(125.0)]), "1000");
    assert_eq!(posted("$2 / 1000.0", &[Operand::Text, N(41500.0)]), "41.5");
    assert_eq!(posted("$1 / 100", &[N(123.0)]), "1.23");
}

#[test]
fn a_thousand_expressions_have_the_values_that_math_js_gives_them() {
    let mut with_value = 0;
    for line in include_str!("mathjs_vectors.tsv").lines() {
        let (text, expected) = line.split_once('\t').unwrap();
        match (value(text, &[]), expected) {
            (Err(Missing::Text { .. } | Missing::Absent { .. } | Missing::NoRate { .. }), _) => {
                panic!("{text}")
            }
            (Err(_), "none") => {}
            (Ok(value), expected) => {
                let expected = expected.parse().unwrap_or(f64::NAN);
                assert!(is_near(value, expected), "{text}: {value}, math.js: {expected}");
                with_value += 1;
            }
            (Err(why), expected) => panic!("{text}: {why}, math.js: {expected}"),
        }
    }
    assert!(with_value > 900, "{with_value}");
}

#[test]
fn the_differences_that_are_documented_are_those() {
    let is = |text, expected: f64| assert_eq!(value(text, &[]), Ok(expected), "{text}");
    // From the Python bot.
    assert_eq!(value("1/0", &[]), Err(Missing::DivisionByZero));
    assert_eq!(value("$1/$2", &[N(5.0), N(0.0)]), Err(Missing::DivisionByZero));
    is("2^3^2", 512.0);
    is("-2^2", -4.0);
    is("1e-3", 0.001);
    is("-5 % 3", 1.0);
    is("(0-5) % 3", 1.0);
    is("5 % -3", -1.0);
    is("5 % 0", 5.0);
    is("round(2.5)", 3.0);
    is("round(-2.5)", -3.0);
    is("round(1.005, 2)", 1.01);
    is("trunc(-2.7)", -2.0);
    is("sgn(-3)", -1.0);
    is("0.1 + 0.2 == 0.3", 1.0);
    // From math.js.
    assert_eq!(value("0/0", &[]), Err(Missing::DivisionByZero));
    for complex in ["sqrt(-1)", "log(-1)", "(-8)^(1/3)", "sqrt(-1) > 0 ? 1 : 2", "min(1, log10(-1))"] {
        assert_eq!(value(complex, &[]), Err(Missing::NotReal), "{complex}");
    }
    is("1 < 2", 1.0);
    is("1 ? 0 ? 3 : 4 : 5", 4.0);
    for (refused, column, kind) in [
        ("1 < 2 < 3", 7, Kind::Chained),
        ("1 < 2 == true", 7, Kind::Chained),
        ("2 pi", 3, Kind::OperatorExpected),
        ("2(3)", 2, Kind::OperatorExpected),
        ("(2)(3)", 4, Kind::OperatorExpected),
        ("5!", 2, Kind::Character),
        ("0x10", 2, Kind::OperatorExpected),
        ("5 cm", 3, Kind::OperatorExpected),
        ("50%", 4, Kind::OperandExpected),
        ("a = 1", 1, Kind::UnknownName),
        ("5 & 1", 3, Kind::Character),
        ("[1]", 1, Kind::Character),
        ("\"x\"", 1, Kind::Character),
        ("1e309", 1, Kind::NumberTooLarge),
    ] {
        let (_, at, found) = fault(refused, 0);
        assert_eq!((at, found), (column, kind), "{refused}");
    }
}

#[test]
fn an_infinity_on_the_way_is_no_result_but_may_lead_to_one() {
    assert_eq!(value("1 / (1 / 0)", &[]), Ok(0.0));
    assert_eq!(value("min(1 / 0, 5)", &[]), Ok(5.0));
    assert_eq!(value("1/0 > 5", &[]), Ok(1.0));
    assert_eq!(value("log(0)", &[]), Err(Missing::DivisionByZero));
    assert_eq!(value("log(8, 1)", &[]), Err(Missing::DivisionByZero));
    assert_eq!(value("0^-1", &[]), Err(Missing::DivisionByZero));
    assert_eq!(value("1/0 - 1/0", &[]), Err(Missing::DivisionByZero));
    assert_eq!(value("1e308 * 10", &[]), Err(Missing::Overflow));
    assert_eq!(value("exp(1000)", &[]), Err(Missing::Overflow));
    assert_eq!(value("exp(1000) - exp(1000)", &[]), Err(Missing::NotReal));
    assert_eq!(value("round(1, 16)", &[]), Err(Missing::Decimals));
    assert_eq!(value("round(1, 0.5)", &[]), Err(Missing::Decimals));
    assert_eq!(value("round(1, -1)", &[]), Err(Missing::Decimals));
}

#[test]
fn only_what_the_result_depends_on_must_be_there() {
    let none = [N(5.0), N(0.0), Operand::Absent, Operand::Text, Operand::NoRate];
    assert_eq!(value("$2 == 0 ? 0 : $1 / $2", &none), Ok(0.0));
    assert_eq!(value("$2 != 0 and $1 / $2 > 5", &none), Ok(0.0));
    assert_eq!(value("$1 or $3", &none), Ok(1.0));
    assert_eq!(value("$1 ? $1 : $3", &none), Ok(5.0));
    assert_eq!(value("$1 and $3", &none), Err(Missing::Absent { operand: 3 }));
    assert_eq!(value("$2 ? $1 : $4", &none), Err(Missing::Text { operand: 4 }));
    assert_eq!(value("$3 ? 1 : 2", &none), Err(Missing::Absent { operand: 3 }));
    assert_eq!(value("$5 * 0", &none), Err(Missing::NoRate { operand: 5 }));
    assert_eq!(value("min($1, $4)", &none), Err(Missing::Text { operand: 4 }));
    assert_eq!(value("$4", &none), Err(Missing::Text { operand: 4 }));
    // Fewer than it was parsed for.
    assert_eq!(
        Expression::<4>::parse("$2", 2).unwrap().evaluate(&[N(1.0)]),
        Err(Missing::Absent { operand: 2 })
    );
    assert_eq!(Missing::Absent { operand: 2 }.to_string(), "the device gave nothing for $2");
}

#[test]
fn a_text_that_is_a_number_counts_as_one() {
    for (text, number) in
        [("0.52", 0.52), (" 12 ", 12.0), ("-3", -3.0), ("+1e3", 1000.0), ("5.", 5.0), ("7\0", 7.0)]
    {
        assert_eq!(Operand::from_text(text.as_bytes()), N(number), "{text:?}");
    }
    for text in
        ["", " ", "12 V", "1,5", "0x10", "inf", "NaN", "infinity", "1e999", "--1", "1 2", "e", "\u{663}"]
    {
        assert_eq!(Operand::from_text(text.as_bytes()), Operand::Text, "{text:?}");
    }
    assert_eq!(Operand::from_text(&[0x31, 0xff]), Operand::Text);
    // laLoad.
    assert_eq!(posted("$1 * 100", &[Operand::from_text(b"0.25")]), "25");
}

#[test]
fn whole_results_below_2_to_the_53_are_exact_and_printed_without_a_point() {
    assert_eq!(posted("$1 * 8", &[N(1_125_899_906_842_623.0)]), "9007199254740984");
    assert_eq!(posted("0.5 + 0.5", &[]), "1");
    assert_eq!(posted("3 / 2", &[]), "1.5");
    assert_eq!(posted("0 * -1", &[]), "0");
    assert_eq!(posted("round(-0.4)", &[]), "0");
    assert_eq!(posted("10^15 + 1", &[]), "1000000000000001");
}

#[test]
fn errors_say_where_and_what_was_expected() {
    for (text, offset, column, kind) in [
        ("", 0, 1, Kind::Empty),
        ("  ", 2, 3, Kind::Empty),
        ("$1 +", 4, 5, Kind::OperandExpected),
        ("$1 / * 2", 5, 6, Kind::OperandExpected),
        ("()", 1, 2, Kind::OperandExpected),
        ("min()", 4, 5, Kind::OperandExpected),
        ("min(1,)", 6, 7, Kind::OperandExpected),
        ("$1 $2", 3, 4, Kind::OperatorExpected),
        ("2 ($1)", 2, 3, Kind::OperatorExpected),
        ("($1", 0, 1, Kind::ParenthesisExpected),
        ("1 + min($1", 4, 5, Kind::ParenthesisExpected),
        ("$1)", 2, 3, Kind::StrayParenthesis),
        ("1 ? 2", 2, 3, Kind::ColonExpected),
        ("(1 ? 2)", 3, 4, Kind::ColonExpected),
        ("min(1 ? 2, 3)", 6, 7, Kind::ColonExpected),
        ("1 : 2", 2, 3, Kind::StrayColon),
        ("1 ? 2 : 3 : 4", 10, 11, Kind::StrayColon),
        ("(1 : 2)", 3, 4, Kind::StrayColon),
        ("1, 2", 1, 2, Kind::StrayComma),
        ("(1, 2)", 2, 3, Kind::StrayComma),
        ("foo($1)", 0, 1, Kind::UnknownName),
        ("Min($1)", 0, 1, Kind::UnknownName),
        ("$1 + x", 5, 6, Kind::UnknownName),
        ("min + 1", 0, 1, Kind::NoArguments),
        ("1 + mod", 4, 5, Kind::OperandExpected),
        ("1 + abs(1, 2)", 4, 5, Kind::ArgumentCount),
        ("pow(2)", 0, 1, Kind::ArgumentCount),
        ("round(1, 2, 3)", 0, 1, Kind::ArgumentCount),
        ("mod(2)", 0, 1, Kind::ArgumentCount),
        ("$", 0, 1, Kind::OperandNumber),
        ("$0", 0, 1, Kind::OperandNumber),
        ("$x", 0, 1, Kind::OperandNumber),
        ("1 + $3", 4, 5, Kind::UnknownOperand { operands: 2 }),
        ("$99999999999", 0, 1, Kind::UnknownOperand { operands: 2 }),
        ("\u{fc} + 1", 0, 1, Kind::Character),
        ("1 \u{d7} 2", 2, 3, Kind::Character),
        ("1 = 2", 2, 3, Kind::Character),
        ("1 && 2", 2, 3, Kind::Character),
        ("!1", 0, 1, Kind::Character),
        ("1 + .", 4, 5, Kind::Character),
        ("2e", 1, 2, Kind::OperatorExpected),
    ] {
        assert_eq!(fault(text, 2), (offset, column, kind), "{text:?}");
    }
    // In characters where some have several bytes.
    assert_eq!(fault("1 \u{2003}+", 0).1, 3);
    let error = Expression::<4>::parse("1+2+3", 0).unwrap_err();
    assert_eq!(error.to_string(), "column 4: too many numbers and operators (limit 4)");
}

#[test]
fn what_is_nested_too_deep_or_too_long_is_refused_and_nothing_overflows() {
    let parse = |text: &str| Expression::<64>::parse(text, 1).map(|_| ()).map_err(|e| e.kind);
    let nested = |depth| format!("{}1{}", "(".repeat(depth), ")".repeat(depth));
    assert_eq!(parse(&nested(32)), Ok(()));
    assert_eq!(parse(&nested(33)), Err(Kind::TooDeep { limit: 32 }));
    assert_eq!(parse(&"(".repeat(60_000)), Err(Kind::TooDeep { limit: 32 }));
    assert_eq!(parse(&"-".repeat(60_000)), Err(Kind::TooDeep { limit: 32 }));
    assert_eq!(parse(&"abs(".repeat(10_000)), Err(Kind::TooDeep { limit: 32 }));
    assert_eq!(parse(&"1 ? 2 : ".repeat(5_000)), Err(Kind::TooDeep { limit: 24 }));
    assert_eq!(parse(&"1^".repeat(1_000)), Err(Kind::TooDeep { limit: 24 }));
    let sum = |n: usize| format!("1{}", "+1".repeat(n));
    assert_eq!(parse(&sum(31)), Ok(()));
    assert_eq!(parse(&sum(32)), Err(Kind::TooLong { limit: 64 }));
    assert_eq!(parse(&format!("min({}1)", "1,".repeat(30))), Err(Kind::TooDeep { limit: 24 }));
    assert_eq!(parse(&format!("min({}1)", "1,".repeat(23))), Ok(()));
    assert_eq!(parse(&" ".repeat(70_000)), Err(Kind::TooLong { limit: 64 }));
}

#[test]
fn it_is_known_which_operands_are_used() {
    let expression: Expression = Expression::parse("$2 + abs($4)", 4).unwrap();
    assert_eq!([1, 2, 3, 4, 5].map(|n| expression.uses(n)), [false, true, false, true, false]);
}

proptest! {
    #[test]
    fn any_text_gives_a_program_or_an_error_within_it(text in "\\PC{0,40}|[-+*/%^()<>=!?:,.$0-9a-z ]{0,60}") {
        match Expression::<16>::parse(&text, 2) {
            Ok(program) => {
                if let Ok(value) = program.evaluate(&[N(3.0), N(-0.5)]) {
                    prop_assert!(value.is_finite());
                }
            }
            Err(error) => {
                prop_assert!(error.offset <= text.len() && text.is_char_boundary(error.offset));
                prop_assert_eq!(error.column, text[..error.offset].chars().count() + 1);
            }
        }
    }
}

// ---- random trees ----

/// An expression as a tree: what it means does not depend on how tightly operators bind.
enum Tree {
    Number(f64),
    Operand(usize),
    Unary(&'static str, Box<Tree>),
    Binary(&'static str, Box<Tree>, Box<Tree>),
    Select(Box<Tree>, Box<Tree>, Box<Tree>),
    Call(&'static str, Vec<Tree>),
}

const LEVELS: [&[&str]; 7] =
    [&["or"], &["xor"], &["and"], &["==", "!=", "<", "<=", ">", ">="], &["+", "-"], &["*", "/"], &["^"]];

impl Tree {
    fn random(random: &mut SplitMix64, depth: u32, operators: &[&'static str]) -> Tree {
        let below = |random: &mut SplitMix64| Box::new(Tree::random(random, depth - 1, operators));
        let pick = |random: &mut SplitMix64, n: usize| (random.next_u64() % n as u64) as usize;
        match if depth == 0 { pick(random, 2) } else { 2 + pick(random, 8) } {
            0 => Tree::Number([0.0, 1.0, 2.0, 3.0, 0.5, 7.25, 1e3, 1e-2][pick(random, 8)]),
            1 => Tree::Operand(pick(random, 4)),
            2 => Tree::Unary(
                ["-", "+", "not "][pick(random, if operators.len() > 5 { 3 } else { 2 })],
                below(random),
            ),
            3 if operators.len() > 5 => Tree::Select(below(random), below(random), below(random)),
            4 => {
                let name = ["min", "max"][pick(random, 2)];
                let arguments = 1 + pick(random, 3);
                Tree::Call(name, (0..arguments).map(|_| *below(random)).collect())
            }
            5 => Tree::Call(
                ["abs", "sqrt", "exp", "cbrt", "log2", "log10"][pick(random, 6)],
                vec![*below(random)],
            ),
            _ => Tree::Binary(operators[pick(random, operators.len())], below(random), below(random)),
        }
    }

    fn level(&self) -> usize {
        match self {
            Tree::Select(..) => 1,
            // Unary signs stand between multiplication and powers.
            Tree::Binary("^", ..) => 9,
            Tree::Binary(op, ..) => 2 + LEVELS.iter().position(|level| level.contains(op)).unwrap(),
            Tree::Unary(..) => 8,
            Tree::Number(_) | Tree::Operand(_) | Tree::Call(..) => 10,
        }
    }

    /// With parentheses only where the meaning needs them.
    fn text(&self) -> String {
        let within = |tree: &Tree, least: usize| {
            if tree.level() < least { format!("({})", tree.text()) } else { tree.text() }
        };
        match self {
            Tree::Number(number) => number.to_string(),
            Tree::Operand(index) => format!("${}", index + 1),
            Tree::Unary(sign, a) => format!("{sign}{}", within(a, 8)),
            // What is right of `^` may be a sign.
            Tree::Binary("^", a, b) => format!("{} ^ {}", within(a, 10), within(b, 8)),
            Tree::Binary(op, a, b) => {
                let level = self.level();
                // Comparisons are not chained.
                let left = if level == 5 { 6 } else { level };
                format!("{} {op} {}", within(a, left), within(b, level + 1))
            }
            Tree::Select(a, b, c) => format!("{} ? {} : {}", within(a, 2), within(b, 1), within(c, 1)),
            Tree::Call(name, arguments) => {
                let arguments: Vec<String> = arguments.iter().map(Tree::text).collect();
                format!("{name}({})", arguments.join(", "))
            }
        }
    }

    /// `None`: no value. By the standard library's functions.
    fn value(&self, operands: &[Option<f64>]) -> Option<f64> {
        let truth = |is_true| Some(f64::from(u8::from(is_true)));
        let near = |a: f64, b: f64| {
            a == b
                || a.is_finite()
                    && b.is_finite()
                    && (a - b).abs() <= (1e-12 * a.abs().max(b.abs())).max(1e-15)
        };
        let result = match self {
            Tree::Number(number) => *number,
            Tree::Operand(index) => operands[*index]?,
            Tree::Unary(sign, a) => match (*sign, a.value(operands)?) {
                ("-", a) => -a,
                ("+", a) => a,
                (_, a) => truth(a == 0.0)?,
            },
            Tree::Select(a, b, c) => if a.value(operands)? != 0.0 { b } else { c }.value(operands)?,
            Tree::Binary("and", a, b) => truth(a.value(operands)? != 0.0 && b.value(operands)? != 0.0)?,
            Tree::Binary("or", a, b) => truth(a.value(operands)? != 0.0 || b.value(operands)? != 0.0)?,
            Tree::Binary(op, a, b) => {
                let (a, b) = (a.value(operands)?, b.value(operands)?);
                match *op {
                    "xor" => truth((a != 0.0) != (b != 0.0))?,
                    "==" => truth(near(a, b))?,
                    "!=" => truth(!near(a, b))?,
                    "<" => truth(a < b && !near(a, b))?,
                    "<=" => truth(a < b || near(a, b))?,
                    ">" => truth(a > b && !near(a, b))?,
                    ">=" => truth(a > b || near(a, b))?,
                    "+" => a + b,
                    "-" => a - b,
                    "*" => a * b,
                    "/" => a / b,
                    _ => a.powf(b),
                }
            }
            Tree::Call(name, arguments) => {
                let arguments: Option<Vec<f64>> = arguments.iter().map(|a| a.value(operands)).collect();
                let arguments = arguments?;
                let a = arguments[0];
                match *name {
                    "min" => arguments.iter().copied().fold(f64::INFINITY, f64::min),
                    "max" => arguments.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                    "abs" => a.abs(),
                    "sqrt" => a.sqrt(),
                    "exp" => a.exp(),
                    "cbrt" => a.cbrt(),
                    "log2" => a.log2(),
                    _ => a.log10(),
                }
            }
        };
        (!result.is_nan()).then_some(result)
    }

    /// For exmex: a parenthesis around everything, `min` and `max` by pairs.
    fn exmex(&self) -> String {
        match self {
            Tree::Number(number) => number.to_string(),
            Tree::Operand(index) => format!("{{v{index}}}"),
            Tree::Unary(sign, a) => format!("({sign}({}))", a.exmex()),
            Tree::Binary(op, a, b) => format!("(({}){op}({}))", a.exmex(), b.exmex()),
            Tree::Call(name @ ("min" | "max"), arguments) => {
                let nested = arguments.iter().map(Tree::exmex).reduce(|a, b| format!("(({a}) {name} ({b}))"));
                nested.unwrap()
            }
            Tree::Call(name, arguments) => format!("{name}({})", arguments[0].exmex()),
            Tree::Select(..) => unreachable!("exmex is given arithmetic only"),
        }
    }

    fn uses(&self, index: usize) -> bool {
        match self {
            Tree::Number(_) => false,
            Tree::Operand(own) => *own == index,
            Tree::Unary(_, a) => a.uses(index),
            Tree::Binary(_, a, b) => a.uses(index) || b.uses(index),
            Tree::Select(a, b, c) => a.uses(index) || b.uses(index) || c.uses(index),
            Tree::Call(_, arguments) => arguments.iter().any(|a| a.uses(index)),
        }
    }
}

fn seed() -> u64 {
    let seed =
        std::env::var("EXPRESSION_SEED").ok().map_or(20_261_123, |seed| seed.parse().expect("a number"));
    println!("EXPRESSION_SEED={seed}");
    seed
}

#[test]
fn random_trees_printed_with_few_parentheses_have_the_value_of_the_tree() {
    let mut random = SplitMix64::new(seed());
    let operators: Vec<&'static str> = LEVELS.concat();
    let (mut values, mut missing) = (0, 0);
    for round in 0..20_000 {
        let tree = Tree::random(&mut random, 1 + round % 5, &operators);
        let text = tree.text();
        let operands = [Some(2.0), Some(-0.75), None, Some((round % 7) as f64)];
        let given = operands.map(|operand| operand.map_or(Operand::Absent, Operand::Number));
        let Ok(program) = Expression::<128>::parse(&text, 4) else {
            let error = Expression::<128>::parse(&text, 4).unwrap_err();
            assert!(error.kind.limit().is_some(), "round {round}: {text}: {error}");
            continue;
        };
        let expected = tree.value(&operands).filter(|value| value.is_finite());
        match (program.evaluate(&given), expected) {
            (Ok(value), Some(expected)) => {
                assert!(is_near(value, expected), "round {round}: {text}: {value}, expected {expected}");
                values += 1;
            }
            (Err(_), None) => missing += 1,
            (value, expected) => panic!("round {round}: {text}: {value:?}, expected {expected:?}"),
        }
    }
    assert!(values > 5_000 && missing > 2_000, "{values} values, {missing} without");
}

#[test]
fn random_arithmetic_has_the_value_that_exmex_gives_it() {
    let mut random = SplitMix64::new(seed() ^ 1);
    let mut values = 0;
    for round in 0..3_000 {
        let tree = Tree::random(&mut random, 1 + round % 4, &["+", "-", "*", "/", "^"]);
        let text = tree.text();
        let numbers = [2.0, -0.75, 1e6, (round % 7) as f64];
        let theirs = exmex::parse::<f64>(&tree.exmex()).unwrap();
        // Their variables are those that occur, in the order of their names.
        let used: Vec<f64> = (0..4).filter(|i| tree.uses(*i)).map(|i| numbers[i]).collect();
        let expected = theirs.eval(&used).unwrap();
        let Ok(program) = Expression::<128>::parse(&text, 4) else { continue };
        match program.evaluate(&numbers.map(Operand::Number)) {
            Ok(value) if expected.is_finite() => {
                assert!(is_near(value, expected), "round {round}: {text}: {value}, exmex: {expected}");
                values += 1;
            }
            // A NaN on the way may vanish in their `min`.
            Ok(value) => panic!("round {round}: {text}: {value}, exmex: {expected}"),
            Err(why) => {
                let vanishes = text.contains("min") || text.contains("max") || text.contains('^');
                assert!(!expected.is_finite() || vanishes, "round {round}: {text}: {why}, exmex: {expected}");
            }
        }
    }
    assert!(values > 1_000, "{values}");
}
