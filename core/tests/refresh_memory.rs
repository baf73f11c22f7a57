//! Memory of a refresh: what is not kept costs none, however much of it there is, and inline memory never allocates.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "all/support/mod.rs"]
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use grafolean_core::api::Resource;
use grafolean_core::collector::{Action, BodyStatus, Collector, ResponseHead};
use grafolean_core::journal::Event;
use grafolean_core::storage::Storage;
use grafolean_core::time::Millis;
use support::*;

/// Counts what goes through it.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes on to the system's allocator as it came; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        let now = BYTES.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(now, Relaxed);
        // SAFETY: the caller keeps the rules of this very function.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

struct Bodies {
    accounts: Vec<u8>,
    entities: Vec<u8>,
    credentials: Vec<u8>,
    sensors: Vec<u8>,
}

impl Bodies {
    fn of(lists: &Lists) -> Self {
        Bodies {
            accounts: list(&["{\"id\":7}".into()]).into_bytes(),
            entities: list(&lists.entities).into_bytes(),
            credentials: list(&lists.credentials).into_bytes(),
            sensors: list(&lists.sensors).into_bytes(),
        }
    }
}

/// Has one refresh done; how often it allocated, and how many bytes beyond those at its beginning it had at most.
fn refresh<S: Storage<TestBot>>(
    collector: &mut Collector<TestBot, S>,
    now: Millis,
    bodies: &Bodies,
) -> (usize, usize) {
    let bot = TestBot::CONTROLLED;
    let (before, bytes) = (ALLOCATIONS.load(Relaxed), BYTES.load(Relaxed));
    PEAK.store(bytes, Relaxed);
    collector.handle_time(now);
    let mut ended = false;
    while let Some(action) = collector.poll(&bot) {
        match action {
            Action::Send(id) => {
                let body: &[u8] = match collector.request_head(id).unwrap().resource {
                    Resource::Profile => b"{\"user_id\":1408704727,\"record\":{\"protocol\":\"myprotocol\"}}",
                    Resource::Accounts => &bodies.accounts,
                    Resource::Entities(_) => &bodies.entities,
                    Resource::Credentials(_) => &bodies.credentials,
                    _ => &bodies.sensors,
                };
                collector.handle_response_head(id, ResponseHead { status: 200, ..ResponseHead::default() });
                for piece in body.chunks(1460) {
                    assert_eq!(
                        collector.handle_response_body(&bot, id, piece),
                        BodyStatus::Taken(piece.len())
                    );
                }
                collector.handle_response_end(&bot, id);
            }
            Action::Run(due) => collector.handle_completed(due.run),
            _ => {}
        }
        while let Some(event) = collector.poll_event() {
            ended |= matches!(event, Event::Refreshed(s) if s.faults == 0 && s.jobs == 300);
        }
    }
    assert!(ended);
    (ALLOCATIONS.load(Relaxed) - before, PEAK.load(Relaxed) - bytes)
}

grafolean_core::inline_storage! {
    /// Room for the large account.
    pub struct Inline for TestBot {
        accounts: 1, entities: 300, links: 5, credentials: 8, sensors: 40, jobs: 300, spare: 4, intervals: 1500,
        distinct_intervals: 8, runs: 4, cells: 16, element: 512, scratch: 128, listing: 0, states: 0, faults: 8, events: 8,
    }
}

/// One test, so that nothing else allocates meanwhile.
#[test]
fn ten_thousand_entities_of_others_need_no_byte_more_and_inline_memory_never_allocates() {
    let lists = large().accounts.remove(&ACCOUNT).unwrap();
    let plain = Bodies::of(&lists);
    let mut more = lists.clone();
    for id in 0..10_000u64 {
        let other = device(3_000_000_000 + id, 5, &[(5, "60")]).replace(PROTOCOL, "another");
        more.entities.push(other);
        more.credentials.push(credential(3_000_000_000 + id));
        more.sensors.push(sensor(3_000_000_000 + id, "60"));
    }
    let more = Bodies::of(&more);
    let mut changed = lists.clone();
    changed.entities.iter_mut().take(3).for_each(|e| *e = e.replace("127.0", "127.9"));
    let changed = Bodies::of(&changed);

    let mut inline = Box::new(Collector::new(settings(), Inline::new()));
    assert_eq!(refresh(&mut inline, Millis(0), &plain), (0, 0));
    assert_eq!(refresh(&mut inline, Millis(120_000), &more), (0, 0));
    assert_eq!(refresh(&mut inline, Millis(240_000), &changed), (0, 0));

    let mut heap = Collector::new(settings(), VecStorage::new());
    assert!(refresh(&mut heap, Millis(0), &plain).0 > 300);
    let usual = refresh(&mut heap, Millis(120_000), &plain);
    assert_eq!(refresh(&mut heap, Millis(240_000), &more), usual);
    // What is read is kept in one entity's links at a time.
    assert!(usual.1 < 1024, "{} bytes", usual.1);
}
