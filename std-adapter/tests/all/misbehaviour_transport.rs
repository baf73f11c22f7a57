//! Time limits, sizes, redirects and connections: the driver with a bot against a stand-in that misbehaves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::http_support::*;
use crate::misbehaviour_support::*;
use futures_util::future::join_all;
use grafolean_stand_in::{
    Entity, Json, Misbehaviour, RequestRecord, Rule, RuleError, StandIn, Status, WrongBody,
};
use grafolean_std::core::journal::{Event, FaultKind, RefreshError};
use grafolean_std::core::outbox::{DeliveryMethod, DropReason, OutboxEvent};
use grafolean_std::driver::Config;
use grafolean_std::http::{HttpConfig, HttpErrorKind, Part, Phase};

const SHORT: Duration = Duration::from_millis(200);
/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(3600);

type Set = fn(&mut Config);
type Expected = fn(&HttpErrorKind) -> bool;

fn no_change(_: &mut Config) {}

fn head_in_time(config: &mut Config) {
    config.http.head_limit = SHORT;
}

fn no_silence(config: &mut Config) {
    config.http.silence_limit = SHORT;
}

fn minimum_rate(config: &mut Config) {
    config.http.min_rate = 10_000;
    config.http.rate_window = Duration::from_millis(100);
}

fn head_is_late(kind: &HttpErrorKind) -> bool {
    *kind == HttpErrorKind::Timeout { phase: Phase::Head, limit: SHORT }
}

fn body_is_silent(kind: &HttpErrorKind) -> bool {
    *kind == HttpErrorKind::Timeout { phase: Phase::Body, limit: SHORT }
}

fn is_closed(kind: &HttpErrorKind) -> bool {
    matches!(kind, HttpErrorKind::Closed { .. })
}

fn is_lost(event: &Event) -> bool {
    match event {
        Event::RefreshFailed { error, .. } => matches!(error, RefreshError::Lost | RefreshError::NotSent),
        Event::Fault(f) => matches!(f.kind, FaultKind::AccountFailed(RefreshError::Lost)),
        _ => false,
    }
}

#[tokio::test]
async fn a_refresh_whose_answer_is_late_silent_slow_cut_or_no_http_fails_with_the_cause_and_harms_no_value() {
    let cases: Vec<(Misbehaviour, Set, Expected)> = vec![
        (Misbehaviour::Hang, head_in_time, head_is_late),
        (Misbehaviour::HangAfterDoing, head_in_time, head_is_late),
        (Misbehaviour::DripHead { bytes: 1, pause: SHORT / 2 }, head_in_time, head_is_late),
        (Misbehaviour::Drip { bytes: 1, pause: LONG }, no_silence, body_is_silent),
        (Misbehaviour::WrongBody(WrongBody::AnnouncedLonger(10)), no_silence, body_is_silent),
        (Misbehaviour::Drip { bytes: 1, pause: Duration::from_millis(5) }, minimum_rate, |kind| {
            matches!(kind, HttpErrorKind::TooSlow { limit: 10_000, .. })
        }),
        (Misbehaviour::CutHead { after_bytes: 20 }, no_change, |kind| {
            *kind == HttpErrorKind::Closed { bytes: 20 }
        }),
        (Misbehaviour::CutBody { after_bytes: 10 }, no_change, is_closed),
        (Misbehaviour::Close, no_change, is_closed),
        (Misbehaviour::CloseAfterDoing, no_change, is_closed),
        (Misbehaviour::Reset, no_change, is_closed),
        (Misbehaviour::Garbage { seed: 7, bytes: 100 }, no_change, |kind| {
            matches!(kind, HttpErrorKind::Protocol { .. })
        }),
    ];
    join_all(cases.into_iter().map(|(misbehaviour, set, expected)| async move {
        let what = format!("{misbehaviour:?}");
        let lab = Lab::new(set).await;
        let script = async {
            lab.begin().await;
            let rule = lab.misbehave(rule(misbehaviour, "GET", "/accounts/1/entities"));
            lab.runner.refresh_soon();
            until(&format!("the cause is told: {what}"), || lab.seen.failures().iter().any(expected)).await;
            until(&format!("the failure is told: {what}"), || lab.seen.count(is_lost) > 0).await;
            let jobs = lab.runner.inspect(|c| c.jobs(|jobs| jobs.iter().count()));
            assert_eq!(jobs, 2, "{what}");
            let meanwhile = [lab.hand(1, "test.meanwhile", 1.0), lab.hand(2, "test.meanwhile", 1.0)];
            lab.arrived_in_time(&meanwhile).await;
            lab.behave(rule);
            lab.refresh().await;
        };
        let report = lab.run(script).await;
        lab.assert_all_arrived(&report);
    }))
    .await;
}

#[tokio::test]
async fn values_whose_answer_is_late_silent_cut_or_no_http_are_put_again_and_stored_once() {
    let cases: Vec<(Misbehaviour, Set, Expected)> = vec![
        (Misbehaviour::Hang, head_in_time, head_is_late),
        (Misbehaviour::HangAfterDoing, head_in_time, head_is_late),
        (Misbehaviour::DripHead { bytes: 1, pause: SHORT / 2 }, head_in_time, head_is_late),
        (Misbehaviour::WrongBody(WrongBody::AnnouncedLonger(10)), no_silence, body_is_silent),
        (Misbehaviour::CutHead { after_bytes: 20 }, no_change, is_closed),
        (Misbehaviour::Close, no_change, is_closed),
        (Misbehaviour::CloseAfterDoing, no_change, is_closed),
        (Misbehaviour::Reset, no_change, is_closed),
        (Misbehaviour::Garbage { seed: 8, bytes: 1000 }, no_change, |kind| {
            matches!(kind, HttpErrorKind::Protocol { .. })
        }),
    ];
    join_all(cases.into_iter().map(|(misbehaviour, set, expected)| async move {
        let what = format!("{misbehaviour:?}");
        let lab = Lab::new(set).await;
        let script = async {
            lab.begin().await;
            let rule = lab.misbehave(puts(misbehaviour));
            let values = lab.hand_some(1, "kept", 5);
            until(&format!("the cause is told: {what}"), || lab.seen.failures().iter().any(expected)).await;
            lab.until_outbox("values are kept", |e| matches!(e, OutboxEvent::LinkDown { .. })).await;
            lab.behave(rule);
            lab.arrived_in_time(&values).await;
            lab.until_outbox("the backend answers again", |e| matches!(e, OutboxEvent::LinkUp)).await;
        };
        let report = lab.run(script).await;
        lab.assert_all_arrived(&report);
    }))
    .await;
}

#[tokio::test]
async fn a_backend_that_refuses_or_resets_connections_is_told_and_has_all_values_in_the_end() {
    let cases: Vec<(Misbehaviour, Expected)> = vec![
        (Misbehaviour::Refuse, |kind| matches!(kind, HttpErrorKind::Connect { addresses: 1, .. })),
        (Misbehaviour::ResetOnConnect, |kind| {
            is_closed(kind) || matches!(kind, HttpErrorKind::Connect { .. })
        }),
    ];
    join_all(cases.into_iter().map(|(misbehaviour, expected)| async move {
        let lab = Lab::new(no_change).await;
        let script = async {
            lab.begin().await;
            let rule = lab.misbehave(Rule::new(misbehaviour));
            lab.stand_in.drop_connections();
            let values = lab.hand_some(2, "kept", 5);
            lab.runner.refresh_soon();
            until("the cause is told", || lab.seen.failures().iter().filter(|k| expected(k)).count() >= 2)
                .await;
            until("the refresh fails", || lab.seen.count(is_lost) > 0).await;
            lab.until_outbox("values are kept", |e| matches!(e, OutboxEvent::LinkDown { .. })).await;
            lab.behave(rule);
            lab.refresh().await;
            lab.arrived_in_time(&values).await;
        };
        let report = lab.run(script).await;
        lab.assert_all_arrived(&report);
    }))
    .await;
}

/// Listens, and has its queue of connections full, so that the system answers no further one.
fn full_listener() -> (SocketAddr, impl Sized) {
    let listener = tokio::net::TcpSocket::new_v4().unwrap();
    listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, SHORT) {
        waiting.push(stream);
        assert!(waiting.len() < 100, "the system queues connections without end");
    }
    (address, (listener, waiting))
}

#[tokio::test]
async fn connecting_is_given_up_after_its_limit_whether_tcp_or_tls_is_silent() {
    let (full, _kept) = full_listener();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let phases = [Phase::Connect, Phase::Tls];
    let urls = [format!("http://{full}/api"), format!("https://{}/api", silent.local_addr().unwrap())];
    join_all(urls.iter().zip(phases).map(|(url, phase)| async move {
        let other = Config::new(url, "66666666-6666-4666-8666-666666666666").unwrap();
        let lab = Lab::new(|config| {
            config.endpoint = other.endpoint.clone();
            config.http.connect_limit = SHORT;
            config.stop_flush = Duration::ZERO;
        })
        .await;
        let script = async {
            until("it is told", || {
                lab.seen.failures().contains(&HttpErrorKind::Timeout { phase, limit: SHORT })
            })
            .await;
            let failed = |e: &Event| matches!(e, Event::RefreshFailed { error: RefreshError::NotSent, .. });
            until("the refresh fails", || lab.seen.count(failed) > 0).await;
        };
        let report = lab.run(script).await;
        lab.assert_ledger(&report, &[]);
    }))
    .await;
}

#[tokio::test]
async fn a_backend_that_is_slow_within_the_limits_costs_nothing_but_time() {
    let lab = Lab::new(no_change).await;
    let script = async {
        let rules = [
            lab.misbehave(rule(Misbehaviour::Delay(Duration::from_millis(20)), "GET", "/**")),
            lab.misbehave(puts(Misbehaviour::Delay(Duration::from_millis(20)))),
        ];
        lab.begin().await;
        let values = lab.hand_some(1, "slow", 20);
        lab.arrived_in_time(&values).await;
        lab.refresh().await;
        rules.into_iter().for_each(|rule| lab.behave(rule));
    };
    let report = lab.run(script).await;
    assert_eq!(lab.seen.failures(), []);
    lab.assert_all_arrived(&report);
}

#[tokio::test]
async fn one_element_over_its_limit_is_named_and_costs_no_other_and_a_list_over_its_total_is_given_up() {
    let lab = Lab::new(|config| {
        config.limits.element_bytes = 1024;
        config.collector.list_limit_bytes = 20_000;
    })
    .await;
    let script = async {
        lab.begin().await;
        let long = |bytes| Entity::device(33, "long").detail("x", &"y".repeat(bytes));
        lab.stand_in.change(|b| b.set_entity(1, long(2000))).unwrap();
        let too_long = |e: &Event| {
            matches!(e, Event::Fault(f)
                if f.entity == 33 && matches!(f.kind, FaultKind::TooLong { limit: 1024, bytes } if bytes > 2000))
        };
        lab.refresh().await;
        until("the element is named", || lab.seen.count(too_long) == 1).await;
        let values = lab.hand_some(1, "others", 5);
        lab.arrived_in_time(&values).await;

        lab.stand_in.change(|b| b.set_entity(1, long(30_000))).unwrap();
        lab.runner.refresh_soon();
        let limit = HttpErrorKind::TooLong { part: Part::Body, limit: 20_000 };
        until("the list is given up", || lab.seen.failures().contains(&limit)).await;
        until("the account is named", || lab.seen.count(is_lost) == 1).await;
        // Its jobs stay, and the other account's are not harmed.
        let values = [lab.hand(1, "test.stays", 1.0), lab.hand(2, "test.stays", 1.0)];
        lab.arrived_in_time(&values).await;
        lab.stand_in.change(|b| b.remove_entity(1, 33)).unwrap();
        lab.refresh().await;
    };
    let report = lab.run(script).await;
    lab.assert_all_arrived(&report);
}

#[tokio::test]
async fn other_bodies_over_64_kilobytes_are_given_up_and_values_are_stored_once() {
    let lab = Lab::new(no_change).await;
    let limit = HttpErrorKind::TooLong { part: Part::Body, limit: 65_536 };
    let script = async {
        let told = || lab.seen.failures().iter().filter(|kind| **kind == limit).count();
        let text = || Misbehaviour::WrongBody(WrongBody::Text(format!("{}{{}}", " ".repeat(70_000))));
        let rules =
            ["/status/info", "/profile"].map(|path| lab.misbehave(rule(text(), "GET", path).times(1)));
        until("the status is given up", || told() == 1).await;
        lab.runner.refresh_soon();
        until("the profile is given up", || told() == 2).await;
        rules.into_iter().for_each(|rule| lab.behave(rule));
        lab.runner.refresh_soon();
        lab.begin().await;
        let rule_of_puts = lab.misbehave(puts(text()).times(1));
        let values = lab.hand_some(1, "kept", 3);
        lab.arrived_in_time(&values).await;
        assert_eq!(told(), 3);
        lab.behave(rule_of_puts);
        lab.refresh().await;
    };
    let report = lab.run(script).await;
    lab.assert_all_arrived(&report);
}

#[tokio::test]
async fn redirects_are_not_followed_but_told() {
    let lab = Lab::new(no_change).await;
    let script = async {
        lab.begin().await;
        for status in [301, 302, 303, 307, 308] {
            let redirect = |to: Option<&str>| Misbehaviour::Redirect { status, to: to.map(str::to_owned) };
            let rules = [
                lab.misbehave(rule(redirect(Some("/api/elsewhere")), "GET", "/accounts").times(1)),
                lab.misbehave(puts(redirect(None)).times(1)),
            ];
            lab.runner.refresh_soon();
            let failed = |e: &Event| {
                matches!(e, Event::RefreshFailed { error: RefreshError::Status(s), .. } if *s == status)
                    && e.to_string().contains("check BACKEND_URL")
            };
            until("the refresh fails", || lab.seen.count(failed) == 1).await;
            let values = lab.hand_some(1, &format!("kept{status}x"), 3);
            let kept = move |e: &OutboxEvent| matches!(e, OutboxEvent::BackingOff { account: 1, status: s, .. } if *s == status);
            lab.until_outbox("values are kept", kept).await;
            lab.arrived_in_time(&values).await;
            rules.into_iter().for_each(|rule| lab.behave(rule));
        }
    };
    let report = lab.run(script).await;
    lab.assert_all_arrived(&report);
    assert!(lab.stand_in.requests().iter().all(|r| !r.path.contains("elsewhere")));
    // The other target differs by its final slash.
    let slashes = |r: &RequestRecord| r.path_only().ends_with('/');
    let puts = lab.requests("PUT", "values");
    assert!(puts.iter().all(|r| slashes(r) == slashes(&puts[0])));
}

#[tokio::test]
async fn a_get_put_or_delete_that_finds_its_connection_stale_is_repeated_once_on_a_fresh_one() {
    let lab = Lab::new(no_change).await;
    let script = async {
        lab.begin().await;
        lab.stand_in.change(|b| b.set_entity(1, Entity::device(34, "gone soon"))).unwrap();
        let close = || Misbehaviour::Close;
        for (method, path) in [
            ("GET", "/accounts/1/sensors"),
            ("PUT", "/accounts/1/values"),
            ("DELETE", "/accounts/1/entities/34"),
        ] {
            lab.stand_in.clear_requests();
            let rule = lab.misbehave(rule(close(), method, path).times(1));
            match method {
                "GET" => lab.refresh().await,
                "PUT" => lab.arrived_in_time(&[lab.hand(1, "test.once", 1.0)]).await,
                _ => assert_eq!(lab.delete(1, 34).await, Ok(())),
            }
            let last = path.rsplit('/').next().unwrap();
            let mut requests = lab.requests(method, last);
            requests.retain(|r| r.path_only().contains("/1/"));
            let [stale, fresh] = requests.as_slice() else { panic!("{requests:?}") };
            assert!(stale.status.is_none() && stale.nth_on_connection > 1, "{stale:?}");
            assert!(fresh.status.is_some() && fresh.nth_on_connection == 1, "{fresh:?}");
            lab.behave(rule);
        }
        assert_eq!(lab.seen.failures(), [], "none of this is worth a word");
        // A fresh one that is closed, too, is a fault: it is repeated once, not for ever.
        lab.stand_in.clear_requests();
        let rule = lab.misbehave(rule(close(), "GET", "/accounts").times(2));
        lab.runner.refresh_soon();
        until("it is told", || lab.seen.failures() == [HttpErrorKind::Closed { bytes: 0 }]).await;
        assert_eq!(
            lab.requests("GET", "accounts").iter().map(|r| r.status).collect::<Vec<_>>(),
            [None, None]
        );
        lab.behave(rule);
        lab.refresh().await;
    };
    let report = lab.run(script).await;
    assert!(lab.stand_in.read(|b| b.entity(1, 34).is_none()));
    lab.assert_all_arrived(&report);
}

#[tokio::test]
async fn connections_that_the_backend_closes_while_idle_cost_nothing() {
    let lab = Lab::new(no_change).await;
    let script = async {
        let rule = lab.misbehave(Rule::new(Misbehaviour::IdleClose(Duration::from_millis(1))));
        lab.begin().await;
        for _ in 0..5 {
            let closed = |s: &StandIn| s.counters().open_connections == 0;
            lab.stand_in.wait_for(PATIENCE, closed).await.unwrap();
            let value = lab.hand(1, "test.after", 1.0);
            lab.arrived_in_time(&[value]).await;
        }
        lab.refresh().await;
        lab.behave(rule);
    };
    let report = lab.run(script).await;
    assert_eq!(lab.seen.failures(), []);
    lab.assert_all_arrived(&report);
    assert!(lab.stand_in.counters().connections >= 6);
}

#[tokio::test]
async fn a_post_takes_a_connection_used_just_before_or_a_new_one_and_is_never_repeated() {
    assert_eq!(HttpConfig::default().post_reuse_limit, Duration::from_secs(3));
    // With a limit of nothing each connection is too old.
    let limits = [(Duration::ZERO, true), (LONG, false)];
    join_all(limits.into_iter().map(|(limit, always_fresh)| async move {
        let lab = Lab::new(|config| {
            config.http.post_reuse_limit = limit;
            config.collector.outbox.delivery = DeliveryMethod::PostOnly;
        })
        .await;
        let mut lost = Vec::new();
        let script = async {
            for _ in 0..3 {
                let value = lab.hand(1, "test.posted", 1.0);
                let posts = lab.posts();
                lab.stand_in.wait_for(PATIENCE, |_| lab.posts() > posts).await.unwrap();
                until("it is delivered", || lab.runner.report().ledger.queued == 0).await;
                drop(value);
            }
            until("the first refresh is over", || lab.seen.count(is_good_refresh) == 1).await;
            let requests = lab.requests("POST", "values");
            assert_eq!(requests.len(), 3);
            if always_fresh {
                assert!(requests.iter().all(|r| r.nth_on_connection == 1), "{requests:?}");
            } else {
                assert!(requests[1..].iter().all(|r| r.nth_on_connection > 1), "{requests:?}");
            }
            let rule = lab.misbehave(posts(Misbehaviour::Close).times(1));
            lost.push(lab.hand(1, "test.lost", 1.0));
            until("it is dropped", || lab.runner.report().ledger.dropped_by(DropReason::Unknown) == 1).await;
            assert_eq!(lab.posts(), 4, "it is not repeated");
            lab.behave(rule);
        };
        let report = lab.run(script).await;
        assert_eq!(lab.posts(), 4);
        lab.assert_all_arrived_by_any_time(&report, &[(DropReason::Unknown, &lost)]);
    }))
    .await;
}

#[tokio::test]
async fn after_a_500_the_connection_is_closed_even_if_the_backend_would_keep_it() {
    let lab = Lab::new(no_change).await;
    let script = async {
        lab.begin().await;
        for status in [500, 503] {
            let answer = || Misbehaviour::Status(Status::new(status).closing(false));
            let rules = [
                lab.misbehave(rule(answer(), "GET", "/accounts").times(1)),
                lab.misbehave(puts(answer()).times(1)),
            ];
            lab.stand_in.clear_requests();
            lab.runner.refresh_soon();
            let failed = |e: &Event| matches!(e, Event::RefreshFailed { error: RefreshError::Status(s), .. } if *s == status);
            until("the refresh fails", || lab.seen.count(failed) == 1).await;
            lab.refresh().await;
            let values = lab.hand_some(1, &format!("kept{status}x"), 2);
            lab.arrived_in_time(&values).await;
            rules.into_iter().for_each(|rule| lab.behave(rule));
            let requests = lab.stand_in.requests();
            for (at, failed) in requests.iter().enumerate().filter(|(_, r)| r.status == Some(status)) {
                let again = requests[at + 1..].iter().any(|r| r.connection == failed.connection);
                assert_eq!(again, status != 500, "{requests:?}");
            }
            assert_eq!(requests.iter().filter(|r| r.status == Some(status)).count(), 2);
        }
    };
    let report = lab.run(script).await;
    assert_eq!(lab.seen.failures(), [], "a status is no fault of a connection");
    lab.assert_all_arrived(&report);
}

#[tokio::test]
async fn an_answer_of_another_length_or_another_content_is_no_answer() {
    let wrong = [
        WrongBody::Text("<html>Please log in to this hotel</html>".to_owned()),
        WrongBody::Half,
        WrongBody::Random { seed: 9, bytes: 500 },
        WrongBody::AnnouncedShorter(5),
    ];
    join_all(wrong.into_iter().map(|wrong| async move {
        let what = format!("{wrong:?}");
        let lab = Lab::new(no_change).await;
        let script = async {
            lab.begin().await;
            for list in ["entities", "credentials", "sensors"] {
                let rule = lab.misbehave(rule(
                    Misbehaviour::WrongBody(wrong.clone()),
                    "GET",
                    &format!("/accounts/1/{list}"),
                ));
                let failed = |e: &Event| matches!(e, Event::Refreshed(s) if s.failed_accounts == 1);
                let before = lab.seen.count(failed);
                lab.runner.refresh_soon();
                until(&format!("the account fails: {what}"), || lab.seen.count(failed) > before).await;
                let values = [lab.hand(1, "test.goes.on", 1.0), lab.hand(2, "test.goes.on", 1.0)];
                lab.arrived_in_time(&values).await;
                lab.behave(rule);
                lab.refresh().await;
            }
            let failed = |e: &Event| {
                matches!(
                    e,
                    Event::RefreshFailed { error: RefreshError::Body(_) | RefreshError::Answer(_), .. }
                )
            };
            for path in ["/accounts"] {
                let rule = lab.misbehave(rule(Misbehaviour::WrongBody(wrong.clone()), "GET", path));
                let before = lab.seen.count(failed);
                lab.runner.refresh_soon();
                until(&format!("the refresh fails: {path} {what}"), || lab.seen.count(failed) > before).await;
                lab.behave(rule);
                lab.refresh().await;
            }
        };
        let report = lab.run(script).await;
        assert_eq!(report.runs.runs, 2, "no job was lost or made anew: {what}");
        lab.assert_all_arrived(&report);
    }))
    .await;
}

#[test]
fn each_kind_of_misbehaviour_is_used_by_the_test_that_this_table_names() {
    let table = include_str!("misbehaviour_support/mod.rs");
    let tests = [
        include_str!("misbehaviour_transport.rs"),
        include_str!("misbehaviour_refresh.rs"),
        include_str!("misbehaviour_values.rs"),
    ];
    let text_of = |test: &str| {
        let begin = format!("\nasync fn {test}() {{");
        let rest = tests
            .iter()
            .find_map(|text| text.split_once(&begin))
            .unwrap_or_else(|| panic!("no test {test}"))
            .1;
        rest.split("\n}\n").next().unwrap()
    };
    // The stand-in names its kinds where it refuses one that it does not know.
    let unknown: Json = r#"{"kind":"?"}"#.parse().unwrap();
    let Err(RuleError::Expected { field: "kind", expected }) = Rule::from_json(&unknown) else { panic!() };
    let kinds = expected.replace(" or ", ", ");
    assert!(kinds.split(", ").count() > 20, "{kinds}");
    for kind in kinds.split(", ") {
        let begin = format!("//! | `{kind}` | `");
        let row = table.lines().find_map(|line| line.strip_prefix(&begin));
        let test = row.unwrap_or_else(|| panic!("{kind} is not in the table")).trim_end_matches("` |");
        let variant: String = kind.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect();
        let used = text_of(test).split("Misbehaviour::").skip(1).any(|rest| {
            rest.strip_prefix(&variant).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
        });
        assert!(used, "{test} does not use {kind}");
    }
}
