//! A small bot in the board's driver, against the stand-in that misbehaves, over sockets of this machine: it delivers what a test hands
//! it, when it does.
//!
//! Each kind of misbehaviour, the rules of collector and values that it proves, and a test that uses it
//! (`each_kind_of_misbehaviour_is_used_by_the_test_that_this_table_names` holds them together):
//!
//! | kind | rule | test |
//! |---|---|---|
//! | `refuse` | R6 (connect), V4 (kept) | `a_backend_that_refuses_resets_or_ignores_connections_is_told_and_has_all_values_in_the_end` |
//! | `reset_on_connect` | R6 (connect), V4 (kept) | `a_backend_that_refuses_resets_or_ignores_connections_is_told_and_has_all_values_in_the_end` |
//! | `reset` | V6 (broken connections) | `values_whose_answer_is_late_silent_cut_or_no_http_are_put_again_and_stored_once` |
//! | `close` | R6 (stale connections) | `a_get_put_or_delete_that_finds_its_connection_stale_is_repeated_once_on_a_fresh_one` |
//! | `close_after_doing` | V4 (a POST is never repeated) | `a_post_whose_answer_is_lost_or_says_nothing_is_dropped_as_unknown_and_never_repeated` |
//! | `hang` | R6 (time-out of the head) | `a_refresh_whose_answer_is_late_silent_cut_or_no_http_fails_with_the_cause_and_harms_no_value` |
//! | `hang_after_doing` | V4 (a POST is never repeated) | `a_post_whose_answer_is_lost_or_says_nothing_is_dropped_as_unknown_and_never_repeated` |
//! | `delay` | R6 (within the time-outs) | `a_backend_that_is_slow_within_the_limits_costs_nothing_but_time` |
//! | `status` | V6 (401, 403, 404, 408, 429, 502-504) | `other_refusals_keep_the_values_and_back_off_for_that_account` |
//! | `status_after_doing` | V4 (PUT is idempotent), V6 (500) | `values_stored_in_part_or_in_whole_in_spite_of_a_500_are_put_again_and_are_there_once` |
//! | `pages` | V4 (PUT is idempotent), V6 (500) | `values_stored_in_part_or_in_whole_in_spite_of_a_500_are_put_again_and_are_there_once` |
//! | `body_limit` | V6 (413) | `a_batch_that_is_too_large_is_halved_until_it_fits_and_one_value_too_large_is_dropped` |
//! | `refuse_body` | V6 (400 that names a value, 500) | `a_value_that_is_refused_is_found_named_and_dropped_and_the_others_arrive` |
//! | `plain_http` | V6 (any other 400) | `another_400_is_a_fault_of_setup_of_that_account_and_says_what_to_check` |
//! | `redirect` | R6 (redirects) | `redirects_are_not_followed_but_told` |
//! | `date` | T3 | `a_board_takes_the_time_of_its_values_from_the_backend_and_waits_until_it_is_told` |
//! | `idle_close` | R6 (idle connections) | `connections_that_the_backend_closes_while_idle_cost_nothing` |
//! | `cut_head` | R6, R7 | `a_refresh_whose_answer_is_late_silent_cut_or_no_http_fails_with_the_cause_and_harms_no_value` |
//! | `cut_body` | R6, R7 | `a_refresh_whose_answer_is_late_silent_cut_or_no_http_fails_with_the_cause_and_harms_no_value` |
//! | `drip` | R6 (minimum rate) | `an_answer_that_drips_is_given_up_below_the_minimum_rate` |
//! | `drip_head` | R6 (time-out of the head) | `a_refresh_whose_answer_is_late_silent_cut_or_no_http_fails_with_the_cause_and_harms_no_value` |
//! | `garbage` | V6 (broken connections) | `values_whose_answer_is_late_silent_cut_or_no_http_are_put_again_and_stored_once` |
//! | `wrong_body` | R6 (lengths), R7 | `an_answer_of_another_length_or_another_content_is_no_answer` |
#![allow(dead_code, missing_docs, unreachable_pub, unused_macros)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::fmt::Display;
use std::future::{Future, pending, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use embassy_futures::join::join;
use embassy_time::Timer;
use embedded_io_async::{ErrorType, Read, Write};
use embedded_nal_async::{AddrType, Dns, TcpConnect};
use grafolean_embassy::core::api::{BaseUrl, Resource, Token};
use grafolean_embassy::core::bot::{Anything, Bot, Context, EntityView, JobSink, NewJob};
use grafolean_embassy::core::collector::Settings;
use grafolean_embassy::core::jobs::Due;
use grafolean_embassy::core::journal::Event;
use grafolean_embassy::core::outbox::{DropReason, Ledger, OutboxEvent};
use grafolean_embassy::core::time::UnixMillis;
use grafolean_embassy::http::{Http, Limits};
use grafolean_embassy::nal::NalConnector;
use grafolean_embassy::{DriverSettings, Observer, Shared, run};
use grafolean_stand_in::{
    Config as Backend, Misbehaviour, RequestRecord, Rule, RuleId, StandIn, StandInThread,
};

use crate::support;
use crate::tcp::{Host, IoError, Socket};

/// No wait of a test may take longer.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Nor any lab.
const LAB_PATIENCE: Duration = Duration::from_secs(150);

const TOKEN: &str = "66666666-6666-4666-8666-666666666666";

/// One test of several: each waits most of its time, a second of it for its bot to begin, and there is but a thread per core for tests.
macro_rules! at_once {
    ($name:ident: $($test:ident),+ $(,)?) => {
        #[test]
        fn $name() {
            all_at_once(&[$((stringify!($test), $test as fn())),+]);
        }
    };
}

/// Two accounts with a device each, and a bot that may do everything with both.
const BACKEND: &str = r#"{
  "seed": 5,
  "accounts": [
    {"id": 1, "name": "One",
     "credentials": [{"id": 11, "name": "c", "protocol": "test", "details": {}}],
     "sensors": [{"id": 21, "name": "s", "protocol": "test", "default_interval": 1, "details": {}}],
     "entities": [{"id": 31, "name": "a", "entity_type": "device", "details": {},
       "protocols": {"test": {"credential": 11, "bot": 41, "sensors": [{"sensor": 21, "interval": null}]}}}]},
    {"id": 2, "name": "Two",
     "credentials": [{"id": 12, "name": "c", "protocol": "test", "details": {}}],
     "sensors": [{"id": 22, "name": "s", "protocol": "test", "default_interval": 1, "details": {}}],
     "entities": [{"id": 32, "name": "b", "entity_type": "device", "details": {},
       "protocols": {"test": {"credential": 12, "bot": 41, "sensors": [{"sensor": 22, "interval": null}]}}}]}],
  "bots": [{"id": 41, "name": "test", "short_name": "test", "protocol": "test",
    "token": "66666666-6666-4666-8666-666666666666"}]
}"#;

/// Cells of the outbox, of which each value with a path of some 20 bytes takes two.
pub const CELLS: usize = 320;

grafolean_embassy::core::inline_storage! {
    pub struct Memory for Courier {
        accounts: 2, entities: 3, links: 2, credentials: 2, sensors: 2, jobs: 3, spare: 1, intervals: 6,
        distinct_intervals: 2, runs: 2, cells: CELLS, element: 1024, scratch: 128, listing: 0, states: 0,
        faults: 8, events: 16,
    }
}

/// A value as it was handed over.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    pub account: u64,
    pub path: String,
    pub time_ms: u64,
    pub number: f64,
}

/// What tells values apart, in an order.
type Key = (u64, String, u64, u64);

impl Given {
    fn key(&self) -> Key {
        (self.account, self.path.clone(), self.time_ms, self.number.to_bits())
    }
}

/// What came of a request of the bot's own, once it is known.
type Told = Rc<RefCell<Option<Result<(), String>>>>;

/// What a run of an account's job is asked to do.
enum Order {
    Value(Given),
    /// A value with the board's own time.
    Now(String, f64),
    /// Deletes an entity and says how that went.
    Delete(u64, Told),
}

/// Does what it is told: a job per device, whose run goes on until the lab closes.
#[derive(Default)]
pub struct Courier {
    orders: RefCell<[VecDeque<Order>; 2]>,
    closed: Cell<bool>,
}

impl Courier {
    fn order(&self, account: u64, order: Order) {
        self.orders.borrow_mut()[account as usize - 1].push_back(order);
    }

    /// The next order; none when there will be no more. The tests' executor polls without being woken.
    async fn next(&self, account: u64) -> Option<Order> {
        poll_fn(|_| match self.orders.borrow_mut()[account as usize - 1].pop_front() {
            Some(order) => Poll::Ready(Some(order)),
            None if self.closed.get() => Poll::Ready(None),
            None => Poll::Pending,
        })
        .await
    }
}

impl Bot for Courier {
    type Name = ();
    type Entity = Anything;
    type Credential = Anything;
    type Sensor = Anything;
    type Job = ();
    type Error = String;

    fn protocol(&self) -> Option<&str> {
        Some("test")
    }

    fn entity_jobs(&self, entity: &EntityView<'_, Self>, jobs: &mut dyn JobSink<()>) {
        let intervals = entity.intervals(jobs);
        jobs.add(NewJob::new(intervals, ()).deadline_ms(u32::MAX));
    }

    async fn perform<C: Context<Bot = Self>>(&self, (): &(), due: &Due, cx: &mut C) -> Result<(), String> {
        while let Some(order) = self.next(due.key.account).await {
            match order {
                Order::Value(v) => {
                    cx.value_at(UnixMillis(v.time_ms), &v.path, v.number).map_err(|e| e.to_string())?;
                }
                Order::Now(path, number) => cx.value(&path, number).map_err(|e| e.to_string())?,
                Order::Delete(entity, told) => {
                    let done = cx.delete_entity(entity).await.map_err(|e| e.to_string());
                    told.replace(Some(done));
                }
            }
        }
        Ok(())
    }
}

/// What an observer has seen.
#[derive(Default)]
pub struct Seen {
    events: RefCell<Vec<(Event, String)>>,
    failures: RefCell<Vec<String>>,
}

impl Observer for Seen {
    fn event(&self, event: &Event, path: &str) {
        self.events.borrow_mut().push((*event, path.to_owned()));
    }

    fn request_failed(&self, what: Resource, why: &dyn Display) {
        let text = format!("{what}: {why}");
        assert!(!text.contains(&TOKEN[..8]), "the token is in {text:?}");
        self.failures.borrow_mut().push(text);
    }
}

impl Seen {
    pub fn events(&self) -> Vec<Event> {
        self.events.borrow().iter().map(|(event, _)| *event).collect()
    }

    pub fn count(&self, which: impl Fn(&Event) -> bool) -> usize {
        self.events.borrow().iter().filter(|(event, _)| which(event)).count()
    }

    pub fn outbox(&self, which: impl Fn(&OutboxEvent) -> bool) -> usize {
        self.count(|event| matches!(event, Event::Outbox(event) if which(event)))
    }

    /// The paths of the values that were refused, in order.
    pub fn refused_paths(&self) -> Vec<String> {
        let refused = |e: &Event| matches!(e, Event::Outbox(OutboxEvent::ValueRefused { .. }));
        let events = self.events.borrow();
        events.iter().filter(|(event, _)| refused(event)).map(|(_, path)| path.clone()).collect()
    }

    /// What was said of requests without an answer, each as `what: why`.
    pub fn failures(&self) -> Vec<String> {
        self.failures.borrow().clone()
    }

    /// Of how many failures that hold all of these texts it was told.
    pub fn failed(&self, texts: &[&str]) -> usize {
        self.failures.borrow().iter().filter(|f| texts.iter().all(|text| f.contains(text))).count()
    }
}

pub fn is_good_refresh(event: &Event) -> bool {
    matches!(event, Event::Refreshed(summary) if summary.failed_accounts == 0)
}

/// This machine's TCP, with its sockets counted.
#[derive(Default)]
pub struct Sockets {
    /// Sockets that were made.
    pub made: Cell<usize>,
    pub open: Cell<usize>,
    pub most_open: Cell<usize>,
    /// Attempts to connect meet no answer.
    pub silent: Cell<bool>,
}

/// One of them; it counts as long as it lives.
pub struct Counted<'a> {
    socket: Socket,
    _open: Open<'a>,
}

struct Open<'a>(&'a Cell<usize>);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl TcpConnect for Sockets {
    type Error = IoError;
    type Connection<'a> = Counted<'a>;

    async fn connect(&self, remote: SocketAddr) -> Result<Counted<'_>, IoError> {
        if self.silent.get() {
            pending::<()>().await;
        }
        let socket = Host.connect(remote).await?;
        self.made.set(self.made.get() + 1);
        self.open.set(self.open.get() + 1);
        self.most_open.set(self.most_open.get().max(self.open.get()));
        Ok(Counted { socket, _open: Open(&self.open) })
    }
}

impl ErrorType for Counted<'_> {
    type Error = IoError;
}

impl Read for Counted<'_> {
    async fn read(&mut self, buf: &mut [u8]) -> Result<usize, IoError> {
        self.socket.read(buf).await
    }
}

impl Write for Counted<'_> {
    async fn write(&mut self, buf: &[u8]) -> Result<usize, IoError> {
        self.socket.write(buf).await
    }

    async fn flush(&mut self) -> Result<(), IoError> {
        self.socket.flush().await
    }
}

struct NoNames;

impl Dns for NoNames {
    type Error = ();
    async fn get_host_by_name(&self, _: &str, _: AddrType) -> Result<IpAddr, ()> {
        Err(())
    }
    async fn get_host_by_address(&self, _: IpAddr, _: &mut [u8]) -> Result<usize, ()> {
        Err(())
    }
}

/// What a test may set.
pub struct Setup {
    pub settings: Settings,
    pub limits: Limits,
}

/// The bot, its driver and the backend.
pub struct Lab {
    pub stand_in: StandInThread,
    pub shared: Shared<Courier, Memory, 2>,
    pub seen: Seen,
    pub sockets: Sockets,
    bot: Courier,
    limits: Limits,
    given: RefCell<Vec<Given>>,
    last_ms: Cell<u64>,
}

impl Lab {
    /// With a board's limits of time and short pauses, and a refresh only when it is asked for.
    pub fn new(set: impl FnOnce(&mut Setup)) -> Self {
        // Idle connections are closed only where a test wants it.
        let builder = StandIn::builder().config(Backend::from_json(BACKEND).unwrap()).keep_alive(None);
        let stand_in = builder.keep_bodies(true).spawn_thread().unwrap();
        let mut settings = Settings::board(Token::parse(TOKEN).unwrap(), "/api");
        settings.refresh_interval_s = 3600;
        settings.outbox.linger_ms = 10;
        settings.outbox.backlog_gap_ms = 0;
        settings.outbox.backoff_min_ms = 20;
        settings.outbox.backoff_max_ms = 100;
        let mut setup = Setup { settings, limits: Limits::DEFAULT };
        set(&mut setup);
        Self {
            stand_in,
            shared: Shared::new(setup.settings, Memory::new()),
            seen: Seen::default(),
            sockets: Sockets::default(),
            bot: Courier::default(),
            limits: setup.limits,
            given: RefCell::default(),
            last_ms: Cell::new(0),
        }
    }

    /// Runs the bot while `script` goes on; then all that waits is sent and the connection closed.
    pub fn run(&self, script: impl Future<Output = ()>) -> Ledger {
        let url = self.stand_in.base_url();
        let mut buf = [0; 1024];
        let connector = NalConnector::new(&self.sockets, NoNames);
        let mut http = Http::new(connector, BaseUrl::parse(&url).unwrap(), &mut buf, self.limits).unwrap();
        let ends = async {
            script.await;
            self.bot.closed.set(true);
            self.shared.stop(PATIENCE.as_millis() as u32);
        };
        let driver_settings = DriverSettings::default();
        let driver = run(&self.bot, &self.shared, &mut http, &self.seen, &driver_settings);
        let (ledger, ()) = support::real(LAB_PATIENCE, join(driver, ends));
        // One connection at a time, and none is left on either side.
        assert_eq!((self.sockets.open.get(), self.sockets.most_open.get()), (0, 1));
        let closed = |s: &StandIn| s.counters().open_connections == 0;
        self.stand_in.wait_for(PATIENCE, closed).expect("no connection is left");
        ledger.unwrap()
    }

    /// Hands over a value with the present time, or the next that has not been used.
    pub fn hand(&self, account: u64, path: &str, number: f64) -> Given {
        let time_ms = system_unix_ms().max(self.last_ms.get() + 1);
        self.last_ms.set(time_ms);
        self.hand_at(account, path, time_ms, number)
    }

    /// Hands over a value with this time.
    pub fn hand_at(&self, account: u64, path: &str, time_ms: u64, number: f64) -> Given {
        let given = Given { account, path: path.to_owned(), time_ms, number };
        self.given.borrow_mut().push(given.clone());
        self.bot.order(account, Order::Value(given.clone()));
        given
    }

    /// Hands over some values of one account, which go together.
    pub fn hand_some(&self, account: u64, name: &str, count: usize) -> Vec<Given> {
        (0..count).map(|n| self.hand(account, &format!("test.{name}{n:03}"), n as f64)).collect()
    }

    /// Hands over a value to which the board gives the time; it is not among those that are compared at the end.
    pub fn hand_without_time(&self, account: u64, path: &str, number: f64) {
        self.bot.order(account, Order::Now(path.to_owned(), number));
    }

    /// Lets the bot delete an entity.
    pub async fn delete(&self, account: u64, entity: u64) -> Result<(), String> {
        let told = Told::default();
        self.bot.order(account, Order::Delete(entity, Rc::clone(&told)));
        until("the entity is deleted", || told.borrow().is_some()).await;
        told.take().unwrap()
    }

    pub fn misbehave(&self, rule: Rule) -> RuleId {
        self.stand_in.misbehave(rule).unwrap()
    }

    /// Takes a rule away; panics if it was never applied.
    pub fn behave(&self, rule: RuleId) {
        assert!(self.stand_in.misbehaved(rule) > 0, "the rule was never applied");
        self.stand_in.behave(rule);
    }

    /// Waits until the bot runs and has delivered a first value for each account.
    pub async fn begin(&self) {
        let first = [self.hand(1, "test.first", 1.0), self.hand(2, "test.first", 2.0)];
        self.arrived_in_time(&first).await;
        until("the first refresh is told", || self.seen.count(is_good_refresh) >= 1).await;
    }

    /// The same where values are posted.
    pub async fn begin_posting(&self) {
        // A POST takes only what was handed over just before.
        self.until_it_runs().await;
        self.hand(1, "test.first", 1.0);
        self.hand(2, "test.first", 2.0);
        until("the first refresh is told", || self.seen.count(is_good_refresh) >= 1).await;
        until("the first values are delivered", || self.shared.ledger().delivered == 2).await;
    }

    pub async fn until_it_runs(&self) {
        until("the bot runs", || self.shared.with(|c| c.load().0) == 2).await;
    }

    /// How many jobs there are.
    pub fn jobs(&self) -> usize {
        self.shared.with(|c| c.jobs(|jobs| jobs.iter().count()))
    }

    /// How many values were handed over.
    pub fn given_count(&self) -> u64 {
        self.given.borrow().len() as u64
    }

    pub fn refresh_soon(&self) {
        self.shared.with(|c| c.refresh_soon());
    }

    /// Refreshes, and waits until that has gone well.
    pub async fn refresh(&self) {
        let before = self.seen.count(is_good_refresh);
        self.refresh_soon();
        until("a refresh succeeds", || self.seen.count(is_good_refresh) > before).await;
    }

    /// Lets refreshes succeed one after another, until a condition holds.
    pub async fn while_refreshing(&self, what: &str, condition: impl Fn() -> bool) {
        let seen = Cell::new(usize::MAX);
        until(what, || {
            let good = self.seen.count(is_good_refresh);
            if seen.replace(good) != good {
                self.refresh_soon();
            }
            condition()
        })
        .await;
    }

    /// Waits until an event of the outbox has come.
    pub async fn until_outbox(&self, what: &str, which: impl Fn(&OutboxEvent) -> bool) {
        until(what, || self.seen.outbox(&which) > 0).await;
    }

    /// Waits until nothing waits.
    pub async fn all_gone(&self) {
        until("all values have gone", || {
            let ledger = self.shared.ledger();
            ledger.queued == 0 && ledger.collected == self.given_count()
        })
        .await;
    }

    pub async fn until_dropped(&self, reason: DropReason, values: usize) {
        until("values are dropped", || self.shared.ledger().dropped_by(reason) == values as u64).await;
    }

    /// Waits until all of these are stored and the bot knows it.
    pub async fn arrived_in_time(&self, values: &[Given]) {
        self.arrived_in_time_all_but(values, &[]).await;
    }

    /// Waits until all of these are stored while some others wait.
    pub async fn arrived_in_time_all_but(&self, values: &[Given], waiting: &[Given]) {
        until("values arrive", || {
            let arrived = self.arrived();
            values.iter().all(|v| arrived.contains(&v.key()))
        })
        .await;
        let queued = waiting.len() as u64;
        until("values are known to have arrived", || self.shared.ledger().queued == queued).await;
        let arrived = self.arrived();
        assert!(waiting.iter().all(|v| !arrived.contains(&v.key())), "they wait");
    }

    fn arrived(&self) -> BTreeSet<Key> {
        let stored = [1, 2].into_iter().flat_map(|account| self.stand_in.values(account));
        stored
            .map(|v| {
                let time_ms = u64::try_from(v.time_us).unwrap() / 1000;
                (u64::try_from(v.account).unwrap(), v.path, time_ms, v.value.to_bits())
            })
            .collect()
    }

    /// Requests of a method to a path's last segment, as `PUT`, `values`.
    pub fn requests(&self, method: &str, last: &str) -> Vec<RequestRecord> {
        let mut requests = self.stand_in.requests();
        requests.retain(|r| {
            r.method == method && r.path_only().trim_end_matches('/').rsplit('/').next() == Some(last)
        });
        requests
    }

    pub fn puts(&self) -> usize {
        self.requests("PUT", "values").len()
    }

    pub fn posts(&self) -> usize {
        self.requests("POST", "values").len()
    }

    /// Every value is where it was meant to go, once and with its time; the ledger says so, too.
    pub fn assert_all_arrived(&self, ledger: &Ledger) {
        self.assert_all_arrived_but(ledger, &[]);
    }

    /// The same, but for values that were dropped for these reasons.
    pub fn assert_all_arrived_but(&self, ledger: &Ledger, dropped: &[(DropReason, &[Given])]) {
        self.assert_ledger(ledger, dropped);
        let lost: BTreeSet<_> =
            dropped.iter().flat_map(|(_, values)| values.iter().map(Given::key)).collect();
        let given: BTreeSet<_> = self.given.borrow().iter().map(Given::key).collect();
        assert!(lost.is_subset(&given));
        let expected: BTreeSet<_> = given.difference(&lost).cloned().collect();
        assert_eq!(self.arrived(), expected, "what the backend has is not what was handed over");
    }

    /// The ledger is balanced: nothing waits, and nothing else was dropped.
    pub fn assert_ledger(&self, ledger: &Ledger, dropped: &[(DropReason, &[Given])]) {
        let given = self.given_count();
        let lost: usize = dropped.iter().map(|(_, values)| values.len()).sum();
        assert!(ledger.balanced(), "{ledger}");
        assert_eq!((ledger.collected, ledger.queued), (given, 0), "{ledger}");
        assert_eq!(ledger.delivered, given - lost as u64, "{ledger}");
        for (reason, values) in dropped {
            assert_eq!(ledger.dropped_by(*reason), values.len() as u64, "{ledger}");
        }
    }

    /// The backend has everything but these, each as often as it was handed over. Under POST it sets the times.
    pub fn assert_arrived_by_any_time(&self, lost: &[Given]) {
        let key = |g: &Given| (g.account, g.path.clone(), g.number.to_bits());
        let mut expected: Vec<_> = self.given.borrow().iter().map(key).collect();
        for lost in lost.iter().map(key) {
            let at = expected.iter().position(|e| *e == lost).expect("it was handed over");
            expected.remove(at);
        }
        let arrived = self.arrived().into_iter();
        let mut arrived: Vec<_> = arrived.map(|(account, path, _, number)| (account, path, number)).collect();
        expected.sort();
        arrived.sort();
        assert_eq!(arrived, expected, "what the backend has is not what was handed over");
    }
}

/// The system's clock, in Unix milliseconds.
pub fn system_unix_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64
}

/// Waits until `condition` holds.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        Timer::after_millis(2).await;
    }
}

/// Tries each case in a thread, and so on a clock, of its own.
pub fn each<T: Send>(cases: impl IntoIterator<Item = T>, test: impl Fn(T) + Sync) {
    let name = thread::current().name().unwrap_or_default().to_owned();
    thread::scope(|scope| {
        let spawn = |case| {
            let test = &test;
            thread::Builder::new().name(name.clone()).spawn_scoped(scope, move || test(case)).unwrap()
        };
        let threads: Vec<_> = cases.into_iter().map(spawn).collect();
        // All are waited for; what the first that failed says is what is said of this test.
        let results: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        if let Some(panic) = results.into_iter().find_map(Result::err) {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Runs some tests at once, each in a thread of its name.
pub fn all_at_once(tests: &[(&str, fn())]) {
    let spawn = |(name, test): &(&str, fn())| {
        let test = *test;
        thread::Builder::new().name((*name).to_owned()).spawn(test).unwrap()
    };
    let threads: Vec<_> = tests.iter().map(spawn).collect();
    let results: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
    let failed: Vec<_> =
        tests.iter().zip(results).filter(|(_, r)| r.is_err()).map(|((name, _), _)| name).collect();
    assert!(failed.is_empty(), "failed: {failed:?}");
}

pub fn no_change(_: &mut Setup) {}

/// A rule for requests of a method to a path below `/api`.
pub fn rule(misbehaviour: Misbehaviour, method: &str, path: &str) -> Rule {
    Rule::new(misbehaviour).method(method).path(path)
}

/// A rule for values that are put.
pub fn puts(misbehaviour: Misbehaviour) -> Rule {
    rule(misbehaviour, "PUT", "/accounts/*/values")
}

/// A rule for values that are posted.
pub fn posts(misbehaviour: Misbehaviour) -> Rule {
    rule(misbehaviour, "POST", "/accounts/*/values")
}
