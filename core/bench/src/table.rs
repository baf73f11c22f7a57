//! Tables for people: the first column to the left, numbers to the right.

use std::time::Duration;

/// A table that prints itself.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With these headings.
    #[must_use]
    pub fn new(headings: &[&str]) -> Self {
        Table { rows: vec![headings.iter().map(ToString::to_string).collect()] }
    }

    /// One more row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Prints it, with an empty line behind.
    pub fn print(&self) {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |c: usize| {
            self.rows.iter().filter_map(|r| r.get(c)).map(|s: &String| s.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (n, row) in self.rows.iter().enumerate() {
            let cells = row.iter().zip(&widths).enumerate();
            let padded =
                cells.map(|(c, (s, w))| if c == 0 { format!("{s:<w$}") } else { format!("{s:>w$}") });
            println!("| {} |", padded.collect::<Vec<_>>().join(" | "));
            if n == 0 {
                let lines = widths.iter().enumerate();
                let dashes =
                    lines.map(
                        |(c, w)| if c == 0 { "-".repeat(*w) } else { "-".repeat(w.saturating_sub(1)) + ":" },
                    );
                println!("| {} |", dashes.collect::<Vec<_>>().join(" | "));
            }
        }
        println!();
    }
}

/// A number with as many digits as say something.
#[must_use]
pub fn figure(x: f64) -> String {
    match x.abs() {
        a if a >= 100_000.0 => {
            let whole = format!("{x:.0}");
            let from_right = whole.chars().rev().enumerate();
            let grouped: String = from_right.fold(String::new(), |mut s, (i, c)| {
                if i > 0 && i % 3 == 0 {
                    s.insert(0, ',');
                }
                s.insert(0, c);
                s
            });
            grouped
        }
        a if a >= 100.0 => format!("{x:.0}"),
        a if a >= 10.0 => format!("{x:.1}"),
        _ => format!("{x:.2}"),
    }
}

/// How many times as much `a` is as `b`.
#[must_use]
pub fn times(a: f64, b: f64) -> String {
    format!("{}x", figure(a / b))
}

/// Nanoseconds each.
#[must_use]
pub fn ns(took: Duration, n: u64) -> f64 {
    took.as_nanos() as f64 / n.max(1) as f64
}
