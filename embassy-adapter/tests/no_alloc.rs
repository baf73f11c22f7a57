//! A whole collector on a board's terms: nothing is allocated once everything is set up.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "support/backend.rs"]
mod backend;
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use embassy_futures::join::join;
use embassy_time::Timer;
use grafolean_embassy::core::api::{Method, Resource, Token};
use grafolean_embassy::core::bot::{Anything, Bot, Context, HandOverError, JobSink, NewJob};
use grafolean_embassy::core::collector::Settings;
use grafolean_embassy::core::interval::{Interval, Intervals};
use grafolean_embassy::core::jobs::Due;
use grafolean_embassy::core::values::Decimal;
use grafolean_embassy::{DriverSettings, Shared, run};

use backend::{Answer, Backend, TOKEN};

thread_local!(static ALLOCATIONS: Cell<u64> = const { Cell::new(0) });

/// Counts what each thread allocates.
struct Counting;

// SAFETY: all is left to the system's allocator; counting touches a thread-local that needs no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Reads a thermometer, which takes its time.
struct Thermometer;

impl Bot for Thermometer {
    type Name = ();
    type Entity = Anything;
    type Credential = Anything;
    type Sensor = Anything;
    type Job = u8;
    type Error = HandOverError;

    fn protocol(&self) -> Option<&str> {
        None
    }

    fn own_jobs(&self, _: u64, jobs: &mut dyn JobSink<u8>) {
        for (n, name) in ["first", "second", "third"].into_iter().enumerate() {
            let interval = Intervals::one(Interval::new(10 + n as i64).unwrap());
            jobs.add(NewJob::new(interval, n as u8).named(name));
        }
    }

    async fn perform<C: Context<Bot = Self>>(
        &self,
        job: &u8,
        due: &Due,
        cx: &mut C,
    ) -> Result<(), HandOverError> {
        cx.sleep_ms(750).await;
        cx.value(
            format_args!("board.{}", due.key.name),
            Decimal { mantissa: 215 + i64::from(*job), exponent: -1 },
        )
    }
}

grafolean_embassy::core::inline_storage! {
    struct Memory for Thermometer {
        accounts: 1, entities: 0, links: 0, credentials: 0, sensors: 0, jobs: 4, spare: 1, intervals: 8,
        distinct_intervals: 4, runs: 2, cells: 32, element: 512, scratch: 128, listing: 0, states: 0,
        faults: 4, events: 4,
    }
}

fn answer(method: Method, resource: Resource) -> Answer {
    match (method, resource) {
        (Method::Get, Resource::Profile) => Answer::Is(
            200,
            r#"{"user_id":5,"user_type":"bot","record":{"protocol":null,"tied_to_account":1}}"#,
        ),
        (Method::Put, Resource::Values(1)) => Answer::Is(204, ""),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_collector_does_not_allocate_from_its_first_request_to_its_end() {
    let token = Token::parse(TOKEN).unwrap();
    let settings = Settings { wait_until_ready: false, ..Settings::board(token, "/api") };
    let shared: Shared<Thermometer, Memory, 2> = Shared::new(settings, Memory::new());
    let backend = Backend::new(answer);
    let mut transport = &backend;
    // The first use of a thread's timers, of its waker and of the wake-up may allocate.
    support::simulate(1, Timer::after_millis(1));
    let before = Cell::new(0);
    support::simulate(200, async {
        before.set(ALLOCATIONS.get());
        let driver_settings = DriverSettings::default();
        let stop = async {
            Timer::after_secs(60).await;
            shared.stop(5_000);
        };
        let ledger =
            join(run(&Thermometer, &shared, &mut transport, &(), &driver_settings), stop).await.0.unwrap();
        assert_eq!(ALLOCATIONS.get(), before.get());
        assert!(ledger.delivered >= 15 && ledger.queued == 0, "{ledger}");
    });
    assert!(backend.holding(r#"{"p":"board.third","v":21.7,"t":"#) >= 4);
    // The counter does count.
    let boxed = std::hint::black_box(Box::new(1));
    assert_eq!(ALLOCATIONS.get(), before.get() + *boxed);
}
