//! Time limits, sizes, redirects, connections and failed refreshes: the board's driver with a bot against a stand-in that misbehaves.
#![cfg(feature = "nal")]

use std::time::Duration;

use crate::misbehaviour::*;
use grafolean_embassy::core::journal::{Event, FaultKind, RefreshError};
use grafolean_embassy::core::outbox::{DeliveryMethod, DropReason, OutboxEvent};
use grafolean_embassy::http::Limits;
use grafolean_stand_in::{Entity, Json, Misbehaviour, Rule, RuleError, StandIn, Status, WrongBody};

at_once!(
    connections_that_end:
    a_get_put_or_delete_that_finds_its_connection_stale_is_repeated_once_on_a_fresh_one,
    connections_that_the_backend_closes_while_idle_cost_nothing,
    a_connection_that_goes_away_in_idle_times_is_no_socket_more,
    a_post_takes_a_connection_used_just_before_or_a_new_one_and_is_never_repeated,
    after_a_500_the_connection_is_closed_even_if_the_backend_would_keep_it,
);

at_once!(
    answers_that_are_not_as_they_should_be:
    an_answer_that_drips_is_given_up_below_the_minimum_rate,
    a_backend_that_is_slow_within_the_limits_costs_nothing_but_time,
    one_element_over_its_limit_is_named_and_costs_no_other_and_a_body_over_its_total_is_given_up,
    redirects_are_not_followed_but_told,
);

const SHORT_MS: u32 = 250;
const SHORT: Duration = Duration::from_millis(SHORT_MS as u64);

const LATE: &str = "no answer within 250 ms";
const SILENT: &str = "the answer went silent within 250 ms";
const CLOSED: &str = "connection closed before the end of the answer";
const BROKEN: &str = "connection broke: ";
const NO_HTTP: &str = "the answer is not HTTP";

fn short_limits(setup: &mut Setup) {
    setup.limits.connect_ms = SHORT_MS;
    setup.limits.head_ms = SHORT_MS;
    setup.limits.silence_ms = SHORT_MS;
}

/// That a refresh, or an account's part of it, failed for the lack of an answer.
fn is_lost(event: &Event) -> bool {
    match event {
        Event::RefreshFailed { error, .. } => matches!(error, RefreshError::Lost | RefreshError::NotSent),
        Event::Fault(f) => matches!(f.kind, FaultKind::AccountFailed(RefreshError::Lost)),
        _ => false,
    }
}

/// One lab meets all of these, one after the other, and works on after each.
fn broken_answers() -> Vec<Vec<(Misbehaviour, &'static [&'static str])>> {
    vec![
        vec![
            (Misbehaviour::Hang, &[LATE]),
            (Misbehaviour::HangAfterDoing, &[LATE]),
            (Misbehaviour::DripHead { bytes: 1, pause: SHORT / 2 }, &[LATE]),
            (Misbehaviour::WrongBody(WrongBody::AnnouncedLonger(10)), &[SILENT]),
        ],
        vec![
            (Misbehaviour::CutHead { after_bytes: 20 }, &[CLOSED]),
            (Misbehaviour::Close, &[CLOSED]),
            (Misbehaviour::CloseAfterDoing, &[CLOSED]),
            (Misbehaviour::Reset, &[CLOSED, BROKEN]),
            (Misbehaviour::Garbage { seed: 7, bytes: 100 }, &[NO_HTTP]),
            (Misbehaviour::Garbage { seed: 8, bytes: 5000 }, &[NO_HTTP]),
        ],
    ]
}

#[test]
fn a_refresh_whose_answer_is_late_silent_cut_or_no_http_fails_with_the_cause_and_harms_no_value() {
    let mut groups = broken_answers();
    // Only an answer with a body can go silent or be cut within it.
    groups[0].push((Misbehaviour::Drip { bytes: 1, pause: 4 * SHORT }, &[SILENT]));
    groups[1].push((Misbehaviour::CutBody { after_bytes: 10 }, &[CLOSED]));
    each(groups, |cases| {
        let lab = Lab::new(short_limits);
        let script = async {
            lab.begin().await;
            for (misbehaviour, causes) in cases {
                let what = format!("{misbehaviour:?}");
                let told = || {
                    causes
                        .iter()
                        .map(|cause| lab.seen.failed(&["/accounts/1/entities", cause]))
                        .sum::<usize>()
                };
                let before = (told(), lab.seen.count(is_lost));
                let rule = lab.misbehave(rule(misbehaviour, "GET", "/accounts/1/entities"));
                lab.refresh_soon();
                until(&format!("the cause is told: {what}"), || told() > before.0).await;
                until(&format!("the failure is told: {what}"), || lab.seen.count(is_lost) > before.1).await;
                assert_eq!(lab.jobs(), 2, "{what}");
                let meanwhile = [lab.hand(1, "test.meanwhile", 1.0), lab.hand(2, "test.meanwhile", 1.0)];
                lab.arrived_in_time(&meanwhile).await;
                lab.behave(rule);
                lab.refresh().await;
            }
        };
        let ledger = lab.run(script);
        lab.assert_all_arrived(&ledger);
    });
}

#[test]
fn values_whose_answer_is_late_silent_cut_or_no_http_are_put_again_and_stored_once() {
    each(broken_answers(), |cases| {
        let lab = Lab::new(short_limits);
        let script = async {
            lab.begin().await;
            for (n, (misbehaviour, causes)) in cases.into_iter().enumerate() {
                let what = format!("{misbehaviour:?}");
                let told = || causes.iter().map(|cause| lab.seen.failed(&["/values", cause])).sum::<usize>();
                let down = || lab.seen.outbox(|e| matches!(e, OutboxEvent::LinkDown { .. }));
                let up = || lab.seen.outbox(|e| matches!(e, OutboxEvent::LinkUp));
                let before = (told(), down(), up());
                let rule = lab.misbehave(puts(misbehaviour));
                let values = lab.hand_some(1, &format!("kept{n}x"), 5);
                until(&format!("the cause is told: {what}"), || told() > before.0).await;
                until(&format!("values are kept: {what}"), || down() > before.1).await;
                lab.behave(rule);
                lab.arrived_in_time(&values).await;
                until(&format!("the backend answers again: {what}"), || up() > before.2).await;
            }
        };
        let ledger = lab.run(script);
        lab.assert_all_arrived(&ledger);
    });
}

fn an_answer_that_drips_is_given_up_below_the_minimum_rate() {
    let lab = Lab::new(|setup| {
        setup.limits.least_bytes_per_s = 10_000;
        setup.limits.rate_window_ms = 100;
    });
    let script = async {
        lab.begin().await;
        // Each byte comes long before a silence would end it.
        let slow = Misbehaviour::Drip { bytes: 1, pause: Duration::from_millis(5) };
        let rule = lab.misbehave(rule(slow, "GET", "/accounts/1/entities"));
        lab.refresh_soon();
        until("the rate is told", || lab.seen.failed(&["bytes/s, slower than 10000 bytes/s"]) > 0).await;
        until("the failure is told", || lab.seen.count(is_lost) > 0).await;
        let values = lab.hand_some(1, "others", 5);
        lab.arrived_in_time(&values).await;
        lab.behave(rule);
        lab.refresh().await;
    };
    let ledger = lab.run(script);
    lab.assert_all_arrived(&ledger);
}

#[test]
fn a_backend_that_refuses_resets_or_ignores_connections_is_told_and_has_all_values_in_the_end() {
    let lab = Lab::new(short_limits);
    let cases: [(Option<Misbehaviour>, &[&str]); 3] = [
        (Some(Misbehaviour::Refuse), &["no connection: ConnectionRefused"]),
        (Some(Misbehaviour::ResetOnConnect), &[CLOSED, BROKEN, "no connection: "]),
        // Nothing comes back at all.
        (None, &["no connection within 250 ms"]),
    ];
    let script = async {
        lab.begin().await;
        for (n, (misbehaviour, causes)) in cases.into_iter().enumerate() {
            let what = format!("{misbehaviour:?}");
            let down = || lab.seen.outbox(|e| matches!(e, OutboxEvent::LinkDown { .. }));
            let before = (lab.seen.failures().len(), lab.seen.count(is_lost), down());
            let rule = misbehaviour.map(|misbehaviour| lab.misbehave(Rule::new(misbehaviour)));
            lab.sockets.silent.set(rule.is_none());
            lab.stand_in.drop_connections();
            let values = lab.hand_some(2, &format!("kept{n}x"), 5);
            lab.refresh_soon();
            let told = || {
                let failures = lab.seen.failures();
                failures[before.0..].iter().filter(|f| causes.iter().any(|cause| f.contains(cause))).count()
            };
            until(&format!("the cause is told: {what}"), || told() >= 2).await;
            until(&format!("the refresh fails: {what}"), || lab.seen.count(is_lost) > before.1).await;
            until(&format!("values are kept: {what}"), || down() > before.2).await;
            rule.into_iter().for_each(|rule| lab.behave(rule));
            lab.sockets.silent.set(false);
            lab.refresh().await;
            lab.arrived_in_time(&values).await;
        }
    };
    let ledger = lab.run(script);
    lab.assert_all_arrived(&ledger);
}

#[test]
fn a_bot_that_starts_while_the_backend_is_away_begins_when_it_is_back() {
    let away = [
        Misbehaviour::Refuse,
        Misbehaviour::ResetOnConnect,
        Misbehaviour::Status(Status::new(502)),
        Misbehaviour::Status(Status::new(500)),
    ];
    each(away, |misbehaviour| {
        let lab = Lab::new(no_change);
        let rule = lab.misbehave(Rule::new(misbehaviour));
        let script = async {
            let told = fail(&lab, 8).await;
            // A backend that is just starting is asked at least every 10 s.
            assert!(told.iter().all(|(_, pause)| *pause <= 10_000) && told[7].1 > 5_000, "{told:?}");
            lab.behave(rule);
            lab.refresh_soon();
            lab.begin().await;
        };
        let ledger = lab.run(script);
        lab.assert_all_arrived(&ledger);
    });
}

fn a_backend_that_is_slow_within_the_limits_costs_nothing_but_time() {
    let lab = Lab::new(no_change);
    let script = async {
        let delay = || Misbehaviour::Delay(Duration::from_millis(20));
        let rules = [lab.misbehave(rule(delay(), "GET", "/**")), lab.misbehave(puts(delay()))];
        lab.begin().await;
        let values = lab.hand_some(1, "slow", 20);
        lab.arrived_in_time(&values).await;
        lab.refresh().await;
        rules.into_iter().for_each(|rule| lab.behave(rule));
        let drip = Misbehaviour::Drip { bytes: 100, pause: Duration::from_millis(1) };
        let rules = [
            lab.misbehave(rule(drip, "GET", "/**")),
            lab.misbehave(puts(Misbehaviour::DripHead { bytes: 10, pause: Duration::from_millis(1) })),
        ];
        lab.refresh().await;
        let values = lab.hand_some(2, "dripping", 20);
        lab.arrived_in_time(&values).await;
        rules.into_iter().for_each(|rule| lab.behave(rule));
    };
    let ledger = lab.run(script);
    assert!(lab.seen.failures().is_empty(), "{:?}", lab.seen.failures());
    lab.assert_all_arrived(&ledger);
}

fn one_element_over_its_limit_is_named_and_costs_no_other_and_a_body_over_its_total_is_given_up() {
    let lab = Lab::new(|setup| setup.settings.list_limit_bytes = 20_000);
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
        lab.refresh_soon();
        until("the list is given up", || lab.seen.failed(&["/entities", "longer than 20000 bytes"]) == 1)
            .await;
        until("the account is named", || lab.seen.count(is_lost) == 1).await;
        // Its jobs stay, and the other account's are not harmed.
        let values = [lab.hand(1, "test.stays", 1.0), lab.hand(2, "test.stays", 1.0)];
        lab.arrived_in_time(&values).await;
        lab.stand_in.change(|b| b.remove_entity(1, 33)).unwrap();
        lab.refresh().await;

        // Other bodies have a limit of their own.
        let text = Misbehaviour::WrongBody(WrongBody::Text(format!("{}{{}}", " ".repeat(70_000))));
        let rule = lab.misbehave(puts(text).times(1));
        let values = lab.hand_some(1, "kept", 3);
        lab.arrived_in_time(&values).await;
        until("the answer is given up", || lab.seen.failed(&["/values", "longer than 65536 bytes"]) == 1)
            .await;
        lab.behave(rule);
    };
    let ledger = lab.run(script);
    lab.assert_all_arrived(&ledger);
}

fn redirects_are_not_followed_but_told() {
    let lab = Lab::new(no_change);
    let script = async {
        lab.begin().await;
        for status in [301, 302, 303, 307, 308] {
            let redirect = |to: Option<&str>| Misbehaviour::Redirect { status, to: to.map(str::to_owned) };
            let rules = [
                lab.misbehave(rule(redirect(Some("/api/elsewhere")), "GET", "/accounts").times(1)),
                lab.misbehave(puts(redirect(None)).times(1)),
            ];
            lab.refresh_soon();
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
    let ledger = lab.run(script);
    lab.assert_all_arrived(&ledger);
    assert!(lab.stand_in.requests().iter().all(|r| !r.path.contains("elsewhere")));
    // The other target differs by its final slash.
    let puts = lab.requests("PUT", "values");
    assert!(puts.iter().all(|r| r.path_only().ends_with('/') == puts[0].path_only().ends_with('/')));
}

fn a_get_put_or_delete_that_finds_its_connection_stale_is_repeated_once_on_a_fresh_one() {
    let lab = Lab::new(no_change);
    let script = async {
        lab.begin().await;
        lab.stand_in.change(|b| b.set_entity(1, Entity::device(34, "gone soon"))).unwrap();
        for (method, path) in [
            ("GET", "/accounts/1/sensors"),
            ("PUT", "/accounts/1/values"),
            ("DELETE", "/accounts/1/entities/34"),
        ] {
            lab.stand_in.clear_requests();
            let rule = lab.misbehave(rule(Misbehaviour::Close, method, path).times(1));
            match method {
                "GET" => lab.refresh().await,
                "PUT" => lab.arrived_in_time(&[lab.hand(1, "test.once", 1.0)]).await,
                _ => assert_eq!(lab.delete(1, 34).await, Ok(())),
            }
            let mut requests = lab.requests(method, path.rsplit('/').next().unwrap());
            requests.retain(|r| r.path_only().contains("/1/"));
            let [stale, fresh] = requests.as_slice() else { panic!("{requests:?}") };
            assert!(stale.status.is_none() && stale.nth_on_connection > 1, "{stale:?}");
            assert!(fresh.status.is_some() && fresh.nth_on_connection == 1, "{fresh:?}");
            lab.behave(rule);
        }
        assert!(lab.seen.failures().is_empty(), "none of this is worth a word");
        // A fresh one that is closed, too, is a fault: it is repeated once, not for ever.
        lab.stand_in.clear_requests();
        let rule = lab.misbehave(rule(Misbehaviour::Close, "GET", "/accounts").times(2));
        lab.refresh_soon();
        until("it is told", || lab.seen.failed(&["/accounts", CLOSED]) == 1).await;
        let statuses: Vec<_> = lab.requests("GET", "accounts").iter().map(|r| r.status).collect();
        assert_eq!(statuses, [None, None]);
        lab.behave(rule);
        lab.refresh().await;
        assert_eq!(lab.seen.failures().len(), 1);
    };
    let ledger = lab.run(script);
    assert!(lab.stand_in.read(|b| b.entity(1, 34).is_none()));
    lab.assert_all_arrived(&ledger);
}

fn connections_that_the_backend_closes_while_idle_cost_nothing() {
    let lab = Lab::new(no_change);
    let script = async {
        let rule = lab.misbehave(Rule::new(Misbehaviour::IdleClose(Duration::from_millis(1))));
        lab.begin().await;
        for _ in 0..5 {
            until("the connection is closed", || lab.stand_in.counters().open_connections == 0).await;
            let value = lab.hand(1, "test.after", 1.0);
            lab.arrived_in_time(&[value]).await;
        }
        lab.refresh().await;
        lab.behave(rule);
    };
    let ledger = lab.run(script);
    assert!(lab.seen.failures().is_empty(), "{:?}", lab.seen.failures());
    lab.assert_all_arrived(&ledger);
    assert!(lab.sockets.made.get() >= 6, "{}", lab.sockets.made.get());
}

fn a_post_takes_a_connection_used_just_before_or_a_new_one_and_is_never_repeated() {
    assert_eq!(Limits::DEFAULT.post_reuse_ms, 3_000);
    // With a limit of nothing each connection is too old.
    each([(0, true), (3_600_000, false)], |(limit_ms, always_fresh)| {
        let lab = Lab::new(|setup| {
            setup.limits.post_reuse_ms = limit_ms;
            setup.limits.idle_ms = 3_600_000;
            setup.settings.outbox.delivery = DeliveryMethod::PostOnly;
            // A slow machine must not make values too old.
            setup.settings.outbox.post_max_age_ms = 600_000;
        });
        let mut lost = Vec::new();
        let script = async {
            lab.until_it_runs().await;
            until("the first refresh is over", || lab.seen.count(is_good_refresh) == 1).await;
            for _ in 0..3 {
                lab.hand(1, "test.posted", 1.0);
                lab.all_gone().await;
            }
            let requests = lab.requests("POST", "values");
            assert_eq!(requests.len(), 3);
            for request in &requests {
                assert_eq!(request.nth_on_connection == 1, always_fresh, "{requests:?}");
            }
            let rule = lab.misbehave(posts(Misbehaviour::Close).times(1));
            lost.push(lab.hand(1, "test.lost", 1.0));
            lab.until_dropped(DropReason::Unknown, 1).await;
            lab.behave(rule);
        };
        let ledger = lab.run(script);
        assert_eq!(lab.posts(), 4, "it is not repeated");
        lab.assert_ledger(&ledger, &[(DropReason::Unknown, &lost)]);
        lab.assert_arrived_by_any_time(&lost);
    });
}

fn after_a_500_the_connection_is_closed_even_if_the_backend_would_keep_it() {
    let lab = Lab::new(no_change);
    let script = async {
        lab.begin().await;
        for status in [500, 503] {
            let answer = || Misbehaviour::Status(Status::new(status).closing(false));
            let rules = [
                lab.misbehave(rule(answer(), "GET", "/accounts").times(1)),
                lab.misbehave(puts(answer()).times(1)),
            ];
            lab.stand_in.clear_requests();
            lab.refresh_soon();
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
    let ledger = lab.run(script);
    assert!(lab.seen.failures().is_empty(), "a status is no fault of a connection");
    lab.assert_all_arrived(&ledger);
}

#[test]
fn an_answer_of_another_length_or_another_content_is_no_answer() {
    let wrong = [
        WrongBody::Text("<html>Please log in to this hotel</html>".to_owned()),
        WrongBody::Half,
        WrongBody::Random { seed: 9, bytes: 500 },
        WrongBody::AnnouncedShorter(5),
    ];
    each(wrong, |wrong| {
        let what = format!("{wrong:?}");
        let lab = Lab::new(no_change);
        let mut runs = 0;
        let script = async {
            lab.begin().await;
            for list in ["entities", "credentials", "sensors"] {
                let body = Misbehaviour::WrongBody(wrong.clone());
                let rule = lab.misbehave(rule(body, "GET", &format!("/accounts/1/{list}")));
                let failed = |e: &Event| matches!(e, Event::Refreshed(s) if s.failed_accounts == 1);
                let before = lab.seen.count(failed);
                lab.refresh_soon();
                until(&format!("the account fails: {what}"), || lab.seen.count(failed) > before).await;
                let values = [lab.hand(1, "test.goes.on", 1.0), lab.hand(2, "test.goes.on", 1.0)];
                lab.arrived_in_time(&values).await;
                lab.behave(rule);
                lab.refresh().await;
                if matches!(wrong, WrongBody::AnnouncedShorter(_)) {
                    // What is left over would be taken for the next answer's head.
                    let requests = lab.stand_in.requests();
                    let at = requests.iter().position(|r| r.misbehaved == Some(rule)).unwrap();
                    let again = requests[at + 1..].iter().any(|r| r.connection == requests[at].connection);
                    assert!(!again, "{requests:?}");
                }
            }
            let failed = |e: &Event| {
                matches!(
                    e,
                    Event::RefreshFailed { error: RefreshError::Body(_) | RefreshError::Answer(_), .. }
                )
            };
            let rule = lab.misbehave(rule(Misbehaviour::WrongBody(wrong), "GET", "/accounts"));
            lab.refresh_soon();
            until(&format!("the refresh fails: {what}"), || lab.seen.count(failed) > 0).await;
            lab.behave(rule);
            lab.refresh().await;
            runs = lab.shared.with(|c| c.counters()).runs;
        };
        let ledger = lab.run(script);
        assert_eq!(runs, 2, "no job was lost or made anew: {what}");
        lab.assert_all_arrived(&ledger);
    });
}

/// The pauses after failed refreshes so far, in milliseconds.
fn pauses(lab: &Lab) -> Vec<u64> {
    let pause = |event| match event {
        Event::RefreshFailed { retry_in_ms, .. } => Some(retry_in_ms),
        _ => None,
    };
    lab.seen.events().into_iter().filter_map(pause).collect()
}

/// Lets refreshes fail one after another, without waiting for the pauses that they tell: so many pauses, each with how many failures
/// came before it. Where a refresh was asked for while one was under way, which a slow machine may bring about, there is none to tell.
async fn fail(lab: &Lab, times: usize) -> Vec<(usize, u64)> {
    let before = pauses(lab).len();
    let told = || -> Vec<_> {
        pauses(lab)[before..].iter().copied().enumerate().filter(|(_, ms)| *ms > 0).collect()
    };
    while told().len() < times {
        let failed = pauses(lab).len();
        lab.refresh_soon();
        until("a refresh fails", || pauses(lab).len() > failed).await;
    }
    told()[..times].to_vec()
}

#[test]
fn a_refresh_that_fails_is_tried_after_growing_pauses_or_those_of_a_denial_or_those_that_the_backend_asks_for()
 {
    const INTERVAL_MS: u64 = 60_000;
    let lab = Lab::new(|setup| setup.settings.refresh_interval_s = 60);
    let script = async {
        lab.begin().await;
        let fails = |answer: Status| lab.misbehave(rule(Misbehaviour::Status(answer), "GET", "/accounts"));
        let broken = fails(Status::new(502));
        for (nth, pause) in fail(&lab, 10).await {
            let longest = (1000 << nth.min(10)).min(INTERVAL_MS);
            assert!((longest / 2..=longest).contains(&pause), "pause {nth}: {pause} ms of {longest}");
        }
        // The bot works on with what it knows.
        let meanwhile = [lab.hand(1, "test.meanwhile", 1.0), lab.hand(2, "test.meanwhile", 1.0)];
        lab.arrived_in_time(&meanwhile).await;
        lab.behave(broken);
        lab.refresh().await;
        // What was is forgotten: the first pause is short again.
        let closed = lab.misbehave(Rule::new(Misbehaviour::Close).path("/accounts"));
        let again = fail(&lab, 2).await;
        let is_in_turn = |(nth, pause): &(usize, u64)| ((500 << nth)..=(1000 << nth)).contains(pause);
        assert!(again.iter().all(is_in_turn), "{again:?}");
        lab.behave(closed);
        lab.refresh().await;
        for (status, check) in [(401, "token"), (403, "permissions")] {
            let denied = fails(Status::new(status));
            assert!(fail(&lab, 2).await.iter().all(|(_, pause)| *pause == 600_000), "{status}");
            let told = |e: &Event| {
                matches!(e, Event::RefreshFailed { error: RefreshError::Status(s), .. } if *s == status)
                    && e.to_string().contains(check)
            };
            assert!(lab.seen.count(told) >= 2, "{:?}", lab.seen.events());
            assert_eq!(lab.jobs(), 2);
            lab.behave(denied);
            lab.refresh().await;
        }
        for (status, retry_after, expected) in [
            (503, "7200", 7_200_000),
            (429, "7200", 7_200_000),
            // As a point in time, and no longer than a day.
            (503, "Fri, 31 Dec 9999 23:59:59 GMT", 86_400_000),
            (401, "7", 600_000),
        ] {
            let asks = fails(Status::new(status).header("retry-after", retry_after));
            assert_eq!(fail(&lab, 1).await[0].1, expected, "{status} {retry_after}");
            lab.behave(asks);
            lab.refresh().await;
        }
    };
    let ledger = lab.run(script);
    lab.assert_all_arrived(&ledger);
}

#[test]
fn each_kind_of_misbehaviour_is_used_by_the_test_that_this_table_names() {
    let table = include_str!("support/misbehaviour.rs");
    let tests = [include_str!("misbehaviour_transport.rs"), include_str!("misbehaviour_values.rs")];
    // What some tests share belongs to each of them.
    let shared = "\nfn broken_answers()";
    let body_of = |begin: &str| {
        let rest = tests.iter().find_map(|text| text.split_once(begin)).map(|(_, rest)| rest)?;
        rest.split("\n}\n").next()
    };
    // The stand-in names its kinds where it refuses one that it does not know.
    let unknown: Json = r#"{"kind":"?"}"#.parse().unwrap();
    let Err(RuleError::Expected { field: "kind", expected }) = Rule::from_json(&unknown) else { panic!() };
    let kinds = expected.replace(" or ", ", ");
    assert!(kinds.split(", ").count() > 20, "{kinds}");
    for kind in kinds.split(", ") {
        let begin = format!("//! | `{kind}` | ");
        let row = table.lines().find_map(|line| line.strip_prefix(&begin));
        let row = row.unwrap_or_else(|| panic!("{kind} is not in the table"));
        let (proves, test) = row.trim_end_matches("` |").split_once(" | `").unwrap();
        assert!(proves.starts_with(['R', 'T', 'V']), "{kind} proves no rule: {proves}");
        let mut text =
            body_of(&format!("\nfn {test}() {{")).unwrap_or_else(|| panic!("no test {test}")).to_owned();
        if text.contains("broken_answers()") {
            text.push_str(body_of(shared).unwrap());
        }
        let variant: String = kind.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect();
        let used = text.split("Misbehaviour::").skip(1).any(|rest| {
            rest.strip_prefix(&variant).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
        });
        assert!(used, "{test} does not use {kind}");
    }
    // Nor does the table name what there is no more.
    let rows = table.lines().filter(|line| line.starts_with("//! | `")).count();
    assert_eq!(rows, kinds.split(", ").count());
}

fn a_connection_that_goes_away_in_idle_times_is_no_socket_more() {
    let lab = Lab::new(|setup| setup.limits.idle_ms = 1);
    let script = async {
        lab.begin().await;
        for _ in 0..5 {
            until("the board closes", || lab.sockets.open.get() == 0).await;
            let closed = |s: &StandIn| s.counters().open_connections == 0;
            until("the backend sees it", || closed(&lab.stand_in)).await;
            lab.arrived_in_time(&[lab.hand(1, "test.again", 1.0)]).await;
        }
    };
    let ledger = lab.run(script);
    assert!(lab.seen.failures().is_empty(), "{:?}", lab.seen.failures());
    lab.assert_all_arrived(&ledger);
}
