//! Numbers and paths made into text, and the outbox in memory.

use std::fmt::Write as _;
use std::hint::black_box;

use super::{Effort, instructions, shortest};
use crate::table::{Table, figure, ns};
use crate::values::{Queue, decimals, floats, integers, paths, times_s};

/// Floats to text by the standard library.
pub fn std_format(numbers: &[f64]) -> usize {
    let mut text = String::with_capacity(32);
    let mut one = |n: &f64| {
        text.clear();
        write!(text, "{n}").unwrap();
        black_box(&text).len()
    };
    numbers.iter().map(&mut one).sum()
}

/// Floats to text by serde_json.
pub fn serde_json(numbers: &[f64]) -> usize {
    let mut text = Vec::with_capacity(32);
    let mut one = |n: &f64| {
        text.clear();
        serde_json::to_writer(&mut text, n).unwrap();
        black_box(&text).len()
    };
    numbers.iter().map(&mut one).sum()
}

/// Prints it.
pub fn run(effort: Effort) {
    println!("## Values\n\nround-trip times in seconds with up to 6 places, paths of a ping bot\n");
    let n = if effort == Effort::Quick { 10_000 } else { 100_000 };
    let numbers = times_s(n);
    let micros: Vec<i64> = numbers.iter().map(|t| (t * 1e6) as i64).collect();
    let mut table = Table::new(&["what", "ns/value", "instructions/value"]);
    let mut row = |name: &str, case: &str, work: &mut dyn FnMut()| {
        let took = shortest(effort, || (), |()| work());
        let count = instructions(case).map_or("-".to_owned(), figure);
        table.row(vec![name.to_owned(), figure(ns(took, n as u64)), count]);
    };
    row("**f64** to text", "values-float", &mut || assert!(floats(&numbers) > n));
    row("f64: `{}` of std", "values-std", &mut || assert!(std_format(&numbers) > n));
    row("f64: serde_json", "values-serde_json", &mut || assert!(serde_json(&numbers) > n));
    row("**Decimal** to text, without float code", "values-decimal", &mut || assert!(decimals(&micros) > n));
    row("i64 to text", "-", &mut || assert!(integers(&micros) > n));
    row("path written and checked", "values-path", &mut || assert!(paths(n) > n));
    table.print();

    println!("outbox in memory (in files: `cargo bench -p grafolean-std --bench outbox`)\n");
    let mut table = Table::new(&["what", "ns/value", "instructions/value", "bytes/value"]);
    let took = shortest(effort, || Queue::new(n), Queue::hand_over);
    let bytes = figure(Queue::new(n).bytes_per_value());
    let count = |case: &str| instructions(case).map_or("-".to_owned(), figure);
    let hand_over = count("outbox-hand-over");
    table.row(vec!["handed over".into(), figure(ns(took, n as u64)), hand_over, bytes]);
    let full = || {
        let mut queue = Queue::new(n);
        queue.hand_over();
        queue
    };
    let took = shortest(effort, full, Queue::deliver);
    let deliver = count("outbox-deliver");
    table.row(vec![
        "delivered: bodies made and let go".into(),
        figure(ns(took, n as u64)),
        deliver,
        "-".into(),
    ]);
    table.print();
}
