//! A host's outbox grows up to its limit before anything is dropped.

use grafolean_std::core::bot::{Anything, Bot, Context};
use grafolean_std::core::jobs::Due;
use grafolean_std::core::outbox::{DropReason, Ledger};
use grafolean_std::core::time::UnixMillis;
use grafolean_std::core::values::Number;
use grafolean_std::driver::{Config, Runner};

struct Idle;

impl Bot for Idle {
    type Name = ();
    type Entity = Anything;
    type Credential = Anything;
    type Sensor = Anything;
    type Job = ();
    type Error = String;

    fn protocol(&self) -> Option<&str> {
        None
    }

    async fn perform<C: Context<Bot = Self>>(&self, (): &(), _: &Due, _: &mut C) -> Result<(), String> {
        Ok(())
    }
}

/// What becomes of so many values while nobody takes them.
fn keep(values: u64, outbox_bytes: usize) -> Ledger {
    let mut config = Config::new("http://127.0.0.1:9/api", "77777777-7777-4777-8777-777777777777").unwrap();
    config.limits.outbox_bytes = outbox_bytes;
    let runner = Runner::new(Idle, config).unwrap();
    runner.inspect(|c| {
        for n in 0..values {
            let (path, number) = (format!("lab.device{n}.temperature"), 21.5.number_text().unwrap());
            // Many accounts, too.
            c.handle_value(1 + n % 50, Some(UnixMillis(1_700_000_000_000 + n)), &path, &number).unwrap();
        }
        *c.ledger()
    })
}

#[test]
fn an_outbox_grows_up_to_its_limit_before_anything_is_dropped() {
    let kept = keep(50_000, 16 << 20);
    assert_eq!((kept.collected, kept.queued, kept.dropped_total()), (50_000, 50_000, 0), "{kept}");
    let full = keep(50_000, 1 << 20);
    assert!(full.balanced() && full.queued > 5_000, "{full}");
    assert_eq!(full.dropped_by(DropReason::Full), 50_000 - full.queued, "{full}");
}
