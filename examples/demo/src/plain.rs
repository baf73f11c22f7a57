//! Plain lines on standard output: what the bots do, as it happens.

use std::io::Write;
use std::time::{Duration, Instant};

use grafolean_stand_in::{Event as BackendEvent, StandIn};
use grafolean_std::core::jobs::Due;
use grafolean_std::core::journal::Event;
use grafolean_std::driver::{Observer, RunEnd};
use grafolean_std::http::HttpError;

/// Prints what one bot does.
pub(crate) struct Lines {
    pub(crate) bot: &'static str,
    pub(crate) began: Instant,
}

impl Lines {
    fn say(&self, what: &str, text: &str) {
        // A reader that has gone (head, less) is no reason to panic within a run.
        let at = self.began.elapsed().as_secs_f64();
        let _ = writeln!(std::io::stdout(), "{at:>7.2}  {:<8} {what:<6} {text}", self.bot);
    }
}

impl Observer for Lines {
    fn event(&self, event: &Event, path: &str) {
        let what = if event.is_warning() { "warn" } else { "info" };
        self.say(what, &format!("{event}{}{path}", if path.is_empty() { "" } else { ", path " }));
    }

    fn request_failed(&self, error: &HttpError) {
        self.say("warn", &error.to_string());
    }

    fn run_began(&self, due: &Due) {
        let intervals: Vec<String> = due.affecting_seconds().map(|s| format!("{s} s")).collect();
        self.say("run", &format!("{}, due by {}, {} ms late", due.key, intervals.join(", "), due.late_ms));
    }

    fn run_ended(&self, due: &Due, end: &RunEnd, took: Duration, values: u32) {
        let end = match end {
            RunEnd::Done => "done".to_owned(),
            RunEnd::Failed(why) => format!("failed: {why}"),
            other => format!("{other:?}"),
        };
        self.say("end", &format!("{}: {end}, {values} values in {} ms", due.key, took.as_millis()));
    }
}

/// Prints the values that the backend stores.
pub(crate) async fn show_arrivals(stand_in: &StandIn, began: Instant) {
    let lines = Lines { bot: "backend", began };
    let mut events = stand_in.subscribe();
    loop {
        match events.recv().await {
            Ok(BackendEvent::Value(value)) => {
                lines.say("stored", &format!("{} = {}", value.path, value.value))
            }
            Ok(_) => {}
            Err(tokio::sync::broadcast::error::RecvError::Lagged(n)) => {
                lines.say("stored", &format!("... {n} more values and requests"));
            }
            Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
        }
    }
}
