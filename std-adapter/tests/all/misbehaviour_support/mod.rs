//! A small bot in the real driver, against the stand-in that misbehaves: it delivers what a test hands it, when it does.
//!
//! Each kind of misbehaviour and a test of it (`each_kind_of_misbehaviour_is_used_by_the_test_that_this_table_names` holds them together):
//!
//! | kind | test |
//! |---|---|
//! | `refuse` | `a_backend_that_refuses_or_resets_connections_is_told_and_has_all_values_in_the_end` |
//! | `reset_on_connect` | `a_backend_that_refuses_or_resets_connections_is_told_and_has_all_values_in_the_end` |
//! | `reset` | `values_whose_answer_is_late_silent_cut_or_no_http_are_put_again_and_stored_once` |
//! | `close` | `a_get_put_or_delete_that_finds_its_connection_stale_is_repeated_once_on_a_fresh_one` |
//! | `close_after_doing` | `a_post_whose_answer_is_lost_or_says_nothing_is_dropped_as_unknown_and_never_repeated` |
//! | `hang` | `values_whose_answer_is_late_silent_cut_or_no_http_are_put_again_and_stored_once` |
//! | `hang_after_doing` | `a_post_whose_answer_is_lost_or_says_nothing_is_dropped_as_unknown_and_never_repeated` |
//! | `delay` | `a_backend_that_is_slow_within_the_limits_costs_nothing_but_time` |
//! | `status` | `other_refusals_keep_the_values_and_back_off_for_that_account` |
//! | `status_after_doing` | `values_stored_in_part_or_in_whole_in_spite_of_a_500_are_put_again_and_are_there_once` |
//! | `pages` | `values_stored_in_part_or_in_whole_in_spite_of_a_500_are_put_again_and_are_there_once` |
//! | `body_limit` | `a_batch_that_is_too_large_is_halved_until_it_fits` |
//! | `refuse_body` | `several_values_that_are_answered_by_500_are_found_within_three_times_the_requests` |
//! | `plain_http` | `another_400_is_a_fault_of_setup_of_that_account_and_says_what_to_check` |
//! | `redirect` | `redirects_are_not_followed_but_told` |
//! | `date` | `a_host_whose_clock_differs_from_the_backends_says_so_once_and_values_keep_their_times` |
//! | `idle_close` | `connections_that_the_backend_closes_while_idle_cost_nothing` |
//! | `cut_head` | `a_refresh_whose_answer_is_late_silent_slow_cut_or_no_http_fails_with_the_cause_and_harms_no_value` |
//! | `cut_body` | `a_refresh_whose_answer_is_late_silent_slow_cut_or_no_http_fails_with_the_cause_and_harms_no_value` |
//! | `drip` | `a_refresh_whose_answer_is_late_silent_slow_cut_or_no_http_fails_with_the_cause_and_harms_no_value` |
//! | `drip_head` | `a_refresh_whose_answer_is_late_silent_slow_cut_or_no_http_fails_with_the_cause_and_harms_no_value` |
//! | `garbage` | `values_whose_answer_is_late_silent_cut_or_no_http_are_put_again_and_stored_once` |
//! | `wrong_body` | `an_answer_of_another_length_or_another_content_is_no_answer` |
#![allow(dead_code, unreachable_pub, unused_macros)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex};

use grafolean_stand_in::{Builder, Config as Backend, Misbehaviour, RequestRecord, Rule, RuleId, StandIn};
use grafolean_std::clock::system_unix_ms;
use grafolean_std::core::bot::{Anything, Bot, Context, EntityView, JobSink, NewJob};
use grafolean_std::core::jobs::Due;
use grafolean_std::core::journal::Event;
use grafolean_std::core::outbox::{DropReason, OutboxEvent};
use grafolean_std::core::time::UnixMillis;
use grafolean_std::driver::{Config, Observer, Report, Runner};
use grafolean_std::http::{HttpError, HttpErrorKind};
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};

use crate::http_support::{PATIENCE, generous, until};

/// One test of several: each waits for the next second, at which its bot begins, and there is but a thread per core for tests.
macro_rules! at_once {
    ($name:ident: $($test:ident),+ $(,)?) => {
        #[tokio::test]
        async fn $name() {
            tokio::join!($($test()),+);
        }
    };
}

/// Two accounts with a device each, and a bot that may do everything with both.
pub const BACKEND: &str = r#"{
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

/// A value as it was handed over.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    pub account: u64,
    pub path: String,
    pub time_ms: u64,
    pub number: f64,
}

impl Given {
    /// What tells values apart, in an order.
    fn key(&self) -> (u64, String, u64, u64) {
        (self.account, self.path.clone(), self.time_ms, self.number.to_bits())
    }
}

/// What a run of an account's job is asked to do.
enum Order {
    Value(Given),
    /// Deletes an entity and says how that went.
    Delete(u64, oneshot::Sender<Result<(), String>>),
}

/// Does what it is told: a job per device, whose run goes on until the lab closes.
pub struct Courier {
    orders: BTreeMap<u64, AsyncMutex<mpsc::UnboundedReceiver<Order>>>,
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
        let Some(orders) = self.orders.get(&due.key.account) else { return Ok(()) };
        let mut orders = orders.lock().await;
        while let Some(order) = orders.recv().await {
            match order {
                Order::Value(v) => {
                    cx.value_at(UnixMillis(v.time_ms), &v.path, v.number).map_err(|e| e.to_string())?;
                }
                Order::Delete(entity, tell) => {
                    let _ = tell.send(cx.delete_entity(entity).await.map_err(|e| e.to_string()));
                }
            }
        }
        Ok(())
    }
}

/// What an observer has seen.
#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<SeenSoFar>>);

#[derive(Default)]
struct SeenSoFar {
    events: Vec<(Event, String)>,
    failures: Vec<HttpErrorKind>,
}

impl Observer for Seen {
    fn event(&self, event: &Event, path: &str) {
        self.0.lock().unwrap().events.push((*event, path.to_owned()));
    }

    fn request_failed(&self, error: &HttpError) {
        self.0.lock().unwrap().failures.push(error.kind().clone());
    }
}

impl Seen {
    pub fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap().events.iter().map(|(event, _)| *event).collect()
    }

    pub fn count(&self, which: impl Fn(&Event) -> bool) -> usize {
        self.0.lock().unwrap().events.iter().filter(|(event, _)| which(event)).count()
    }

    pub fn outbox(&self, which: impl Fn(&OutboxEvent) -> bool) -> usize {
        self.count(|event| matches!(event, Event::Outbox(event) if which(event)))
    }

    /// The paths of the values that were refused, in order.
    pub fn refused_paths(&self) -> Vec<String> {
        let seen = self.0.lock().unwrap();
        let refused = |e: &Event| matches!(e, Event::Outbox(OutboxEvent::ValueRefused { .. }));
        seen.events.iter().filter(|(event, _)| refused(event)).map(|(_, path)| path.clone()).collect()
    }

    pub fn failures(&self) -> Vec<HttpErrorKind> {
        self.0.lock().unwrap().failures.clone()
    }
}

pub fn is_good_refresh(event: &Event) -> bool {
    matches!(event, Event::Refreshed(summary) if summary.failed_accounts == 0)
}

/// The bot, its driver and the backend.
pub struct Lab {
    pub stand_in: StandIn,
    pub runner: Runner<Courier>,
    pub seen: Seen,
    orders: Mutex<BTreeMap<u64, mpsc::UnboundedSender<Order>>>,
    given: Mutex<Vec<Given>>,
    last_ms: Cell<u64>,
}

impl Lab {
    /// With generous limits of time and short pauses, and a refresh only when it is asked for.
    pub async fn new(set: impl FnOnce(&mut Config)) -> Self {
        Self::with(|builder| builder, set).await
    }

    /// The same with another stand-in.
    pub async fn with(build: impl FnOnce(Builder) -> Builder, set: impl FnOnce(&mut Config)) -> Self {
        // Idle connections are closed only where a test wants it.
        let builder = StandIn::builder().config(Backend::from_json(BACKEND).unwrap()).keep_alive(None);
        let stand_in = build(builder.keep_bodies(true)).start().await.unwrap();
        let mut config = Config::new(&stand_in.base_url(), &stand_in.token("test").unwrap()).unwrap();
        config.http = generous();
        config.collector.refresh_interval_s = 3600;
        config.collector.outbox.linger_ms = 10;
        config.collector.outbox.backlog_gap_ms = 0;
        config.collector.outbox.backoff_min_ms = 20;
        config.collector.outbox.backoff_max_ms = 100;
        set(&mut config);
        let (mut senders, mut orders) = (BTreeMap::new(), BTreeMap::new());
        for account in [1, 2] {
            let (sender, receiver) = mpsc::unbounded_channel();
            senders.insert(account, sender);
            orders.insert(account, AsyncMutex::new(receiver));
        }
        let seen = Seen::default();
        let runner = Runner::observed(Courier { orders }, config, seen.clone()).unwrap();
        Self {
            stand_in,
            runner,
            seen,
            orders: Mutex::new(senders),
            given: Mutex::default(),
            last_ms: Cell::new(0),
        }
    }

    /// Runs the bot while `script` goes on; then all that waits is sent.
    pub async fn run(&self, script: impl Future<Output = ()>) -> Report {
        let stop = async {
            script.await;
            self.orders.lock().unwrap().clear();
        };
        self.runner.run(stop).await
    }

    fn order(&self, account: u64, order: Order) {
        assert!(self.orders.lock().unwrap()[&account].send(order).is_ok(), "the bot has gone");
    }

    /// Hands over a value with the present time, or the next that has not been used.
    pub fn hand(&self, account: u64, path: &str, number: f64) -> Given {
        let used = self.last_ms.get();
        let time_ms = system_unix_ms().max(used + 1);
        self.last_ms.set(time_ms);
        self.hand_at(account, path, time_ms, number)
    }

    /// Hands over a value with this time.
    pub fn hand_at(&self, account: u64, path: &str, time_ms: u64, number: f64) -> Given {
        let given = Given { account, path: path.to_owned(), time_ms, number };
        self.given.lock().unwrap().push(given.clone());
        self.order(account, Order::Value(given.clone()));
        given
    }

    /// Hands over some values of one account, which go together.
    pub fn hand_some(&self, account: u64, name: &str, count: usize) -> Vec<Given> {
        (0..count).map(|n| self.hand(account, &format!("test.{name}{n:03}"), n as f64)).collect()
    }

    /// Lets the bot delete an entity.
    pub async fn delete(&self, account: u64, entity: u64) -> Result<(), String> {
        let (tell, told) = oneshot::channel();
        self.order(account, Order::Delete(entity, tell));
        told.await.unwrap()
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
        until("the bot runs", || self.runner.inspect(|c| c.load().0) == 2).await;
        self.hand(1, "test.first", 1.0);
        self.hand(2, "test.first", 2.0);
        until("the first refresh is told", || self.seen.count(is_good_refresh) >= 1).await;
        until("the first values are delivered", || self.runner.report().ledger.delivered == 2).await;
    }

    /// How many values were handed over.
    pub fn given_count(&self) -> u64 {
        self.given.lock().unwrap().len() as u64
    }

    fn given(&self) -> Vec<Given> {
        self.given.lock().unwrap().clone()
    }

    /// Refreshes, and waits until that has gone well.
    pub async fn refresh(&self) {
        let before = self.seen.count(is_good_refresh);
        self.runner.refresh_soon();
        until("a refresh succeeds", || self.seen.count(is_good_refresh) > before).await;
    }

    /// Waits until an event of the outbox has come.
    pub async fn until_outbox(&self, what: &str, which: impl Fn(&OutboxEvent) -> bool) {
        until(what, || self.seen.outbox(&which) > 0).await;
    }

    /// Waits until all of these are stored and the bot knows it.
    pub async fn arrived_in_time(&self, values: &[Given]) {
        self.stored_in_time(values).await;
        until("values are known to have arrived", || self.runner.report().ledger.queued == 0).await;
    }

    async fn stored_in_time(&self, values: &[Given]) {
        let stored = |_: &StandIn| {
            let arrived = self.arrived();
            values.iter().all(|v| arrived.contains(&v.key()))
        };
        self.stand_in.wait_for(PATIENCE, stored).await.expect("values arrive");
    }

    /// Waits until all of these are stored while some others wait.
    pub async fn arrived_in_time_all_but(&self, values: &[Given], waiting: &[Given]) {
        self.stored_in_time(values).await;
        until("values are known to have arrived", || {
            self.runner.report().ledger.queued == waiting.len() as u64
        })
        .await;
        let arrived = self.arrived();
        assert!(waiting.iter().all(|v| !arrived.contains(&v.key())), "they wait");
    }

    fn arrived(&self) -> BTreeSet<(u64, String, u64, u64)> {
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
    pub fn assert_all_arrived(&self, report: &Report) {
        self.assert_all_arrived_but(report, &[]);
    }

    /// The same, but for values that were dropped for these reasons.
    pub fn assert_all_arrived_but(&self, report: &Report, dropped: &[(DropReason, &[Given])]) {
        self.assert_ledger(report, dropped);
        let lost: BTreeSet<_> =
            dropped.iter().flat_map(|(_, values)| values.iter().map(Given::key)).collect();
        let given: BTreeSet<_> = self.given.lock().unwrap().iter().map(Given::key).collect();
        assert!(lost.is_subset(&given));
        let expected: BTreeSet<_> = given.difference(&lost).cloned().collect();
        assert_eq!(self.arrived(), expected, "what the backend has is not what was handed over");
    }

    /// The ledger is balanced: nothing waits, and nothing else was dropped.
    pub fn assert_ledger(&self, report: &Report, dropped: &[(DropReason, &[Given])]) {
        let ledger = &report.ledger;
        let given = self.given.lock().unwrap().len() as u64;
        let lost: usize = dropped.iter().map(|(_, values)| values.len()).sum();
        assert!(ledger.balanced(), "{ledger}");
        assert_eq!((ledger.collected, ledger.queued), (given, 0), "{ledger}");
        assert_eq!(ledger.delivered, given - lost as u64, "{ledger}");
        for (reason, values) in dropped {
            assert_eq!(ledger.dropped_by(*reason), values.len() as u64, "{ledger}");
        }
    }

    /// Under POST the backend sets the times: only paths and numbers are compared, each with how often it is there.
    pub fn assert_all_arrived_by_any_time(&self, report: &Report, dropped: &[(DropReason, &[Given])]) {
        self.assert_ledger(report, dropped);
        let lost: Vec<_> = dropped.iter().flat_map(|(_, values)| values.iter().cloned()).collect();
        self.assert_arrived_by_any_time(&lost);
    }

    /// The backend has everything but these, each as often as it was handed over, whatever the times.
    pub fn assert_arrived_by_any_time(&self, lost: &[Given]) {
        let key = |g: &Given| (g.account, g.path.clone(), g.number.to_bits());
        let mut expected: Vec<_> = self.given().iter().map(key).collect();
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
