//! Refreshes that fail: pauses, messages, and a clock that is off, with a bot against a stand-in that misbehaves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

use crate::driver_support::Captured;
use crate::http_support::*;
use crate::misbehaviour_support::*;
use futures_util::future::join_all;
use grafolean_stand_in::{DateHeader, Misbehaviour, Rule, Status};
use grafolean_std::core::journal::{Event, FaultKind, RefreshError};
use grafolean_std::core::time::DateNotice;

/// The pauses after failed refreshes so far, in milliseconds.
fn pauses(lab: &Lab) -> Vec<u64> {
    let pause = |event| match event {
        Event::RefreshFailed { retry_in_ms, .. } => Some(retry_in_ms),
        _ => None,
    };
    lab.seen.events().into_iter().filter_map(pause).collect()
}

/// Lets refreshes fail one after another, without waiting for the pauses that they tell.
async fn fail(lab: &Lab, times: usize) -> Vec<u64> {
    let before = pauses(lab).len();
    for n in 0..times {
        lab.runner.refresh_soon();
        until("a refresh fails", || pauses(lab).len() > before + n).await;
    }
    let all = pauses(lab);
    all[before..before + times].to_vec()
}

#[tokio::test]
async fn a_refresh_that_goes_on_failing_is_tried_after_pauses_that_double_up_to_the_interval_with_seeded_jitter()
 {
    const INTERVAL_MS: u64 = 60_000;
    let of_seed = |seed: u64| async move {
        let lab = Lab::new(|config| {
            config.collector.refresh_interval_s = 60;
            config.collector.seed = seed;
        })
        .await;
        let mut told = Vec::new();
        let script = async {
            lab.begin().await;
            let rule = lab.misbehave(rule(Misbehaviour::Status(Status::new(502)), "GET", "/accounts"));
            told = fail(&lab, 12).await;
            // The bot works on with what it knows.
            let meanwhile = [lab.hand(1, "test.meanwhile", 1.0), lab.hand(2, "test.meanwhile", 1.0)];
            lab.arrived_in_time(&meanwhile).await;
            lab.behave(rule);
            lab.refresh().await;
            // What was is forgotten: the first pause is short again.
            let rule = lab.misbehave(Rule::new(Misbehaviour::Close).path("/accounts"));
            let again = fail(&lab, 2).await;
            assert!((500..=1000).contains(&again[0]) && (1000..=2000).contains(&again[1]), "{again:?}");
            lab.behave(rule);
        };
        let report = lab.run(script).await;
        lab.assert_all_arrived(&report);
        for (nth, pause) in told.iter().enumerate() {
            let longest = (1000 << nth).min(INTERVAL_MS);
            assert!(
                (longest / 2..=longest).contains(pause),
                "seed {seed}, pause {nth}: {pause} ms of {longest}"
            );
        }
        told
    };
    let told = join_all([1, 1, 2, 3].map(of_seed)).await;
    assert_eq!(told[0], told[1], "the same seed gives the same pauses");
    assert!(told[1] != told[2] && told[2] != told[3], "bots with other seeds come at other times: {told:?}");
}

#[tokio::test]
async fn denied_access_tells_what_to_check_and_is_tried_every_ten_minutes_or_at_a_longer_interval() {
    let cases = [
        (401, "/accounts", "token"),
        (403, "/accounts", "permissions"),
        (401, "/accounts/1/sensors", "token"),
        (403, "/accounts/*/entities", "permissions"),
    ];
    let cases = cases.into_iter().flat_map(|case| [(case, 60, 600_000), (case, 3600, 3_600_000)]);
    join_all(cases.map(|((status, path, check), interval_s, pause)| async move {
        let lab = Lab::new(|config| config.collector.refresh_interval_s = interval_s).await;
        let script = async {
            lab.begin().await;
            let rule = lab.misbehave(rule(Misbehaviour::Status(Status::new(status)), "GET", path));
            assert_eq!(fail(&lab, 3).await, [pause; 3], "{status} {path}");
            let told = |e: &Event| {
                matches!(e, Event::RefreshFailed { error: RefreshError::Status(s), .. } if *s == status)
                    && e.to_string().contains(check)
            };
            assert_eq!(lab.seen.count(told), 3, "{:?}", lab.seen.events());
            assert_eq!(lab.runner.inspect(|c| c.jobs(|jobs| jobs.iter().count())), 2);
            lab.behave(rule);
            // Nobody has to start it anew.
            lab.refresh().await;
            let values = lab.hand_some(2, "after", 3);
            lab.arrived_in_time(&values).await;
        };
        let report = lab.run(script).await;
        lab.assert_all_arrived(&report);
    }))
    .await;
}

#[tokio::test]
async fn an_account_that_alone_is_denied_is_named_and_the_other_is_refreshed() {
    let lab = Lab::new(|_| {}).await;
    let script = async {
        lab.begin().await;
        let rule = lab.misbehave(rule(Misbehaviour::Status(Status::new(403)), "GET", "/accounts/1/sensors"));
        lab.stand_in.change(|b| b.remove_entity(2, 32)).unwrap();
        lab.runner.refresh_soon();
        let failed = |e: &Event| matches!(e, Event::Refreshed(s) if s.failed_accounts == 1);
        until("the refresh is over", || lab.seen.count(failed) == 1).await;
        let named = |e: &Event| {
            matches!(e, Event::Fault(f)
                if f.account == 1 && f.kind == FaultKind::AccountFailed(RefreshError::Status(403)))
        };
        assert_eq!(lab.seen.count(named), 1);
        // The one's job stays, the other's is gone.
        assert_eq!(lab.runner.inspect(|c| c.jobs(|jobs| jobs.iter().count())), 1);
        let value = lab.hand(1, "test.stays", 1.0);
        lab.arrived_in_time(&[value]).await;
        lab.behave(rule);
        lab.refresh().await;
        let gone = |e: &Event| matches!(e, Event::FaultGone(f) if f.account == 1);
        assert_eq!(lab.seen.count(gone), 1);
    };
    let report = lab.run(script).await;
    lab.assert_all_arrived(&report);
}

#[tokio::test]
async fn a_refresh_waits_as_long_as_the_backend_asks_for() {
    let lab = Lab::new(|config| config.collector.refresh_interval_s = 60).await;
    let script = async {
        lab.begin().await;
        for (status, retry_after, expected) in [
            (503, "7200", 7_200_000),
            (429, "7200", 7_200_000),
            // As a point in time, and no longer than a day.
            (503, "Fri, 31 Dec 9999 23:59:59 GMT", 86_400_000),
            (401, "7200", 7_200_000),
            (401, "7", 600_000),
        ] {
            let answer = Status::new(status).header("retry-after", retry_after);
            let rule = lab.misbehave(rule(Misbehaviour::Status(answer), "GET", "/accounts"));
            assert_eq!(fail(&lab, 1).await, [expected], "{status} {retry_after}");
            lab.behave(rule);
            lab.refresh().await;
        }
    };
    let report = lab.run(script).await;
    lab.assert_all_arrived(&report);
}

#[tokio::test]
async fn a_host_whose_clock_differs_from_the_backends_says_so_once_and_values_keep_their_times() {
    let captured = Captured::here();
    let offsets = [(-3600, 3_600_000), (-10, 10_000), (10, -10_000), (86_400, -86_400_000)];
    join_all(offsets.map(|(offset_s, ahead_ms)| async move {
        let lab = Lab::new(|_| {}).await;
        let skewed = |e: &Event| matches!(e, Event::Clock(DateNotice::Skewed(_)));
        let script = async {
            lab.begin().await;
            assert_eq!(lab.seen.count(skewed), 0);
            let rule = lab.misbehave(Rule::new(Misbehaviour::Date(DateHeader::OffsetS(offset_s))));
            lab.refresh().await;
            let values = lab.hand_some(1, "own.times", 3);
            lab.arrived_in_time(&values).await;
            let told: Vec<_> = lab.seen.events().into_iter().filter(skewed).collect();
            let [Event::Clock(DateNotice::Skewed(ms))] = told.as_slice() else { panic!("{told:?}") };
            // The header tells whole seconds, and the answer was under way; a slow machine has a minute.
            assert!(
                ms.abs_diff(ahead_ms) < 60_000 && ms.signum() == i64::signum(ahead_ms),
                "{ms} of {ahead_ms}"
            );
            lab.behave(rule);
            // Right again, then wrong again: that is told again.
            lab.refresh().await;
            let rule = lab.misbehave(Rule::new(Misbehaviour::Date(DateHeader::OffsetS(offset_s))));
            lab.refresh().await;
            assert_eq!(lab.seen.count(skewed), 2);
            lab.behave(rule);
        };
        let report = lab.run(script).await;
        lab.assert_all_arrived(&report);
    }))
    .await;
    assert_eq!(captured.lines(&["WARN", "clock"]), 2 * offsets.len(), "{}", captured.text());
}

#[tokio::test]
async fn a_date_that_is_missing_or_none_or_nearly_right_is_not_worth_a_word() {
    let dates = [
        DateHeader::Missing,
        DateHeader::Text("yesterday".to_owned()),
        DateHeader::Text(String::new()),
        DateHeader::Text("Sun, 06 Nov 1894 08:49:37 GMT".to_owned()),
        DateHeader::OffsetS(3),
    ];
    let lab = Lab::new(|_| {}).await;
    let script = async {
        lab.begin().await;
        for date in dates {
            let rule = lab.misbehave(Rule::new(Misbehaviour::Date(date)));
            lab.refresh().await;
            let values = [lab.hand(1, "test.dated", 1.0)];
            lab.arrived_in_time(&values).await;
            lab.behave(rule);
        }
        assert_eq!(lab.seen.count(|e| matches!(e, Event::Clock(_))), 0);
    };
    let report = lab.run(script).await;
    lab.assert_all_arrived(&report);
}

#[tokio::test]
async fn a_bot_that_starts_while_the_backend_is_away_begins_when_it_is_back() {
    let cases = [
        Misbehaviour::Refuse,
        Misbehaviour::ResetOnConnect,
        Misbehaviour::Status(Status::new(502)),
        Misbehaviour::Status(Status::new(500)),
    ];
    join_all(cases.into_iter().map(|misbehaviour| async move {
        let lab = Lab::new(|_| {}).await;
        let rule = lab.misbehave(Rule::new(misbehaviour));
        let script = async {
            let told = fail(&lab, 8).await;
            // A backend that is just starting is asked at least every 10 s.
            assert!(told.iter().all(|pause| *pause <= 10_000) && told[7] > 5_000, "{told:?}");
            lab.behave(rule);
            lab.runner.refresh_soon();
            lab.begin().await;
        };
        let report = lab.run(script).await;
        lab.assert_all_arrived(&report);
    }))
    .await;
}
