//! A refresh end to end in the core: bytes of the lists in, jobs out.

use super::{Effort, instructions, shortest};
use crate::refresh::Account;
use crate::table::{Table, figure};

/// Prints it.
pub fn run(effort: Effort) {
    println!("## Refresh, end to end in the core\n");
    println!(
        "300 devices x 5 sensors, one job a device; {} bytes in 1460-byte chunks\n",
        Account::new(1460).bytes()
    );
    let mut table = Table::new(&["refresh", "requests", "ms of CPU", "MB/s", "instructions/byte"]);
    let mut requests = 0;
    let first = shortest(effort, || Account::new(1460), |account| requests = account.refresh());
    let bytes = Account::new(1460).bytes() as f64;
    let count = |case: &str| instructions(case).map_or("-".to_owned(), figure);
    let mut row = |name: &str, requests: u32, took: std::time::Duration, case: &str| {
        let (ms, speed) = (took.as_secs_f64() * 1e3, bytes / took.as_secs_f64() / 1e6);
        table.row(vec![name.into(), requests.to_string(), figure(ms), figure(speed), count(case)]);
    };
    row("**first**: all is new", requests, first, "refresh-first");
    let known = || {
        let mut account = Account::new(1460);
        account.refresh();
        account
    };
    let again = shortest(effort, known, |account| requests = account.refresh());
    row("again: nothing has changed", requests, again, "refresh-same");
    table.row(vec![
        "Python library, 1000 devices x 5".into(),
        "7002".into(),
        "3900".into(),
        "-".into(),
        "-".into(),
    ]);
    table.print();
}
