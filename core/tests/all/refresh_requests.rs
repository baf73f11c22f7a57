//! Which requests a refresh makes, when, and what happens when they fail.

use std::collections::BTreeSet;

use crate::support::*;
use grafolean_core::api::Resource;
use grafolean_core::collector::{DENIED_RETRY_MS, NOT_READY_RETRY_MS};
use grafolean_core::journal::{Event, Fault, FaultKind, RefreshError};
use grafolean_core::json::{FrameErrorKind, Syntax};
use grafolean_core::time::Millis;

fn lists(account: u64) -> [Resource; 3] {
    [Resource::Entities(account), Resource::Credentials(account), Resource::Sensors(account)]
}

#[test]
fn a_refresh_costs_one_request_and_three_per_account_after_profile_once() {
    let mut world = World::small(3);
    world.accounts.insert(8, world.accounts[&ACCOUNT].clone());
    let mut sim = host(world);
    let summary = sim.refresh().unwrap();
    assert_eq!((summary.requests, summary.accounts, summary.jobs), (8, 2, 6));
    let mut each = vec![Resource::Accounts];
    each.extend(lists(ACCOUNT));
    each.extend(lists(8));
    let mut first = vec![Resource::Profile];
    first.extend(&each);
    assert_eq!(sim.resources(), first);
    sim.asked.clear();
    assert_eq!(sim.refresh().unwrap().requests, 7);
    assert_eq!(sim.resources(), each);
}

#[test]
fn elements_of_all_lists_are_counted() {
    let mut sim = host(World::small(3));
    // The profile, one account, three entities, one credential, one sensor.
    assert_eq!(sim.refresh().unwrap().elements, 7);
}

#[test]
fn the_period_of_refreshes_runs_from_start_to_start() {
    let mut sim = host(World::small(1));
    let mut starts = Vec::new();
    for _ in 0..4 {
        sim.world.rule =
            Some(Box::new(|_, asked| (asked.resource == Resource::Sensors(ACCOUNT)).then_some(Reply::Open)));
        let before = sim.asked.len();
        while sim.open.is_empty() {
            sim.settle();
            if sim.open.is_empty() {
                sim.now = sim.collector.poll_timeout().unwrap();
            }
        }
        assert!(sim.asked.len() > before);
        starts.push(sim.now);
        // Its last answer takes 17 s.
        sim.now = sim.now.saturating_add(17_000);
        let id = sim.open.pop().unwrap();
        sim.collector.handle_time(sim.now);
        sim.head(id, 200, None);
        let body = list(&sim.world.accounts[&ACCOUNT].sensors.clone());
        assert!(sim.feed(id, body.as_bytes()));
        sim.collector.handle_response_end(&sim.bot, id);
        sim.settle();
    }
    assert_eq!(starts, [0, 120_000, 240_000, 360_000].map(Millis));
}

/// As a backend before November 2019 lists them: without protocols.
fn old(world: &mut World) {
    for lists in world.accounts.values_mut() {
        for entity in &mut lists.entities {
            *entity = entity.replace("\"protocols\":", "\"later\":");
        }
    }
}

#[test]
fn a_list_without_protocols_leads_to_one_request_per_entity_however_many_there_are() {
    let expected = {
        let mut sim = host(World::small(37));
        sim.refresh().unwrap();
        sim.plan()
    };
    let mut world = World::small(37);
    old(&mut world);
    let mut sim = host(world);
    let summary = sim.refresh().unwrap();
    assert_eq!(sim.plan(), expected);
    let singles: Vec<u64> = sim
        .resources()
        .iter()
        .filter_map(|r| if let Resource::Entity(ACCOUNT, e) = r { Some(*e) } else { None })
        .collect();
    assert_eq!(singles, (1..=37).collect::<Vec<u64>>());
    assert_eq!(summary.faults, 0);
    // The list is read again for each eight, so that memory stays the same.
    let again = sim.resources().iter().filter(|r| **r == Resource::Entities(ACCOUNT)).count();
    assert_eq!(again, 37usize.div_ceil(8));
    // And so at each refresh.
    assert!(!sim.refresh().unwrap().committed.changed_anything());
    assert_eq!(sim.plan(), expected);
}

#[test]
fn an_entity_that_is_gone_when_asked_for_alone_is_skipped() {
    let mut world = World::small(10);
    old(&mut world);
    world.rule = Some(Box::new(|_, asked| {
        matches!(asked.resource, Resource::Entity(_, 1 | 8 | 10)).then(|| status(404))
    }));
    let mut sim = host(world);
    let summary = sim.refresh().unwrap();
    assert_eq!(sim.entities(), [2, 3, 4, 5, 6, 7, 9]);
    assert_eq!((summary.faults, summary.failed_accounts), (0, 0));
}

#[test]
fn entities_with_protocols_are_not_told_as_duplicates_when_the_list_is_read_again_for_others() {
    let mut world = World::small(20);
    old(&mut world);
    let lists = world.lists(ACCOUNT);
    lists.entities.insert(0, device(500, 1, &[(1, "null")]));
    lists.entities.push(device(501, 1, &[(1, "null")]));
    let mut sim = host(world);
    assert_eq!(sim.refresh().unwrap().faults, 0);
    assert_eq!(sim.entities().len(), 22);
}

#[test]
fn the_large_account_is_read_in_four_requests_and_equally_in_any_pieces() {
    fn check(world: impl Fn() -> World) {
        let mut plans = BTreeSet::new();
        for chunk in [1, 7, 256, usize::MAX] {
            let mut sim = host(world());
            sim.chunk = chunk;
            let first = sim.refresh().unwrap();
            assert_eq!((first.requests, first.jobs, first.entities, first.faults), (5, 300, 300, 0));
            assert_eq!(first.committed.added, 300);
            let second = sim.refresh().unwrap();
            assert_eq!((second.requests, second.committed.changed_anything()), (4, false));
            let (mut with, mut without) = (0, 0);
            for key in sim.keys() {
                sim.collector.entity_of(&key, |e| {
                    assert_eq!(e.sensors().count(), 5);
                    with += e.sensors().filter(|s| s.interval.is_some()).count();
                    without += e.sensors().filter(|s| s.interval.is_none()).count();
                });
            }
            assert_eq!((with, without), (1383, 117));
            plans.insert(sim.plan());
        }
        assert_eq!(plans.len(), 1);
    }
    check(large);
    // The captured account, where it is at hand.
    if let Ok(shared) = std::env::var("GRAFOLEAN_RECORDS") {
        let read = move |name: &str| {
            std::fs::read(format!("{shared}/grafolean-api/large-account/{name}.json")).unwrap()
        };
        check(|| {
            let mut world = World::new();
            world.accounts.entry(ACCOUNT).or_default();
            let (entities, credentials, sensors) = (read("entities"), read("credentials"), read("sensors"));
            world.rule = Some(Box::new(move |_, asked| match asked.resource {
                Resource::Entities(_) => Some(ok(entities.clone())),
                Resource::Credentials(_) => Some(ok(credentials.clone())),
                Resource::Sensors(_) => Some(ok(sensors.clone())),
                _ => None,
            }));
            world
        });
    }
}

// ---- failures ----

#[test]
fn a_refresh_that_fails_is_tried_again_with_growing_pauses_up_to_the_interval() {
    let pauses = |seed: u64| {
        let mut world = World::small(1);
        world.rule = Some(Box::new(|_, _| Some(status(502))));
        let mut settings = settings();
        settings.seed = seed;
        let mut sim = Sim::new(TestBot::CONTROLLED, world, VecStorage::new(), settings);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let before = sim.now;
            assert_eq!(sim.refresh(), Err(RefreshError::Status(502)));
            pauses.push(sim.now.since(before));
        }
        (pauses, sim)
    };
    let (first, mut sim) = pauses(1);
    assert_eq!(first[0], 0);
    for (i, pause) in first[1..].iter().enumerate() {
        let most = (1_000 << i).min(120_000);
        assert!(
            (most / 2..=most).contains(pause),
            "pause {i} is {pause} ms, expected {most} or a little less"
        );
    }
    assert_eq!(pauses(1).0, first, "the same seed gives the same pauses");
    assert_ne!(pauses(2).0, first, "other bots come back at other times");
    // After a success, it begins with short pauses again.
    sim.world.rule = None;
    sim.refresh().unwrap();
    sim.world.rule = Some(Box::new(|_, _| Some(status(502))));
    sim.refresh().unwrap_err();
    let before = sim.now;
    sim.refresh().unwrap_err();
    assert!(sim.now.since(before) <= 1_000);
}

#[test]
fn denied_access_is_tried_every_ten_minutes_or_at_the_refresh_interval_if_that_is_longer() {
    for (interval_s, pause) in [(120, DENIED_RETRY_MS), (3600, 3_600_000)] {
        for denied in [401, 403] {
            let mut world = World::small(1);
            world.rule = Some(Box::new(move |_, _| Some(status(denied))));
            let mut settings = settings();
            settings.refresh_interval_s = interval_s;
            let mut sim = Sim::new(TestBot::CONTROLLED, world, VecStorage::new(), settings);
            assert_eq!(sim.refresh(), Err(RefreshError::Status(denied)));
            let first = sim.now;
            assert_eq!(sim.refresh(), Err(RefreshError::Status(denied)));
            assert_eq!(sim.now.since(first), pause);
            let text = sim.events.last().unwrap().to_string();
            assert!(
                text.contains("check the bot's") || text.contains("check that the bot's token"),
                "{text}"
            );
        }
    }
}

#[test]
fn a_bot_that_is_denied_the_lists_of_every_account_is_denied_access_and_keeps_its_jobs() {
    let mut world = World::small(2);
    world.accounts.insert(8, world.accounts[&ACCOUNT].clone());
    let mut sim = host(world);
    sim.refresh().unwrap();
    sim.faults();
    let jobs = sim.keys();
    assert_eq!(jobs.len(), 4);
    for list in [Resource::Entities as fn(u64) -> Resource, Resource::Credentials, Resource::Sensors] {
        sim.world.rule =
            Some(Box::new(move |_, a| [list(ACCOUNT), list(8)].contains(&a.resource).then(|| status(403))));
        assert_eq!(sim.refresh(), Err(RefreshError::Status(403)));
        let first = sim.now;
        assert_eq!(sim.refresh(), Err(RefreshError::Status(403)));
        assert_eq!(sim.now.since(first), DENIED_RETRY_MS);
        assert_eq!(sim.keys(), jobs);
        // One that lets the bot in is reason enough to come back at the usual time.
        sim.world.rule = Some(Box::new(move |_, a| (a.resource == list(8)).then(|| status(403))));
        assert_eq!(sim.refresh_now().unwrap().failed_accounts, 1);
        sim.world.rule = None;
        assert_eq!(sim.refresh().unwrap().failed_accounts, 0);
    }
}

#[test]
fn a_backend_that_is_not_ready_is_asked_every_ten_seconds_and_nothing_else_is() {
    let mut world = World::small(1);
    for body in [
        "{\"db_migration_needed\":true,\"user_exists\":null}",
        "{\"db_migration_needed\":false,\"user_exists\":false}",
        "{}",
    ] {
        world.rule = Some(Box::new(move |_, a| (a.resource == Resource::Status).then(|| ok(body))));
        let mut settings = settings();
        settings.wait_until_ready = true;
        let mut sim = Sim::new(TestBot::CONTROLLED, world, VecStorage::new(), settings);
        assert_eq!(sim.refresh(), Err(RefreshError::NotReady));
        assert_eq!(sim.refresh(), Err(RefreshError::NotReady));
        assert_eq!(sim.now, Millis(NOT_READY_RETRY_MS));
        assert_eq!(sim.resources(), [Resource::Status, Resource::Status]);
        sim.world.rule = None;
        assert_eq!(sim.refresh().unwrap().requests, 6);
        // Once it was ready it is not asked for again.
        assert_eq!(sim.refresh().unwrap().requests, 4);
        world = sim.world;
    }
}

#[test]
fn a_connection_that_breaks_at_any_request_removes_nothing_and_the_next_refresh_recovers() {
    let replies: [fn() -> Reply; 5] = [
        || Reply::NotSent,
        || Reply::Lost,
        || Reply::Breaks(b"{\"list\":[{\"id\":".to_vec()),
        || status(500),
        || ok("{\"list\":[{\"id\":1}"),
    ];
    for (what, reply) in replies.into_iter().enumerate() {
        for k in 0..7 {
            let mut world = World::small(4);
            let mut other = world.accounts[&ACCOUNT].clone();
            other.entities = (11..=14).map(|id| device(id, 1, &[(1, "null")])).collect();
            world.accounts.insert(8, other);
            let mut sim = host(world);
            sim.refresh().unwrap();
            let before = sim.plan();
            assert_eq!(before.len(), 8);
            let n = sim.asked.len();
            sim.world.rule = Some(Box::new(move |i, _| (i == n + k).then(reply)));
            // What would be removed, if the failing lists were believed to be empty.
            let result = sim.refresh();
            assert_eq!(sim.plan(), before, "reply {what} at request {k}");
            if let Ok(summary) = result {
                assert_eq!((summary.failed_accounts, summary.committed.changed_anything()), (1, false));
            }
            sim.world.rule = None;
            assert_eq!(sim.refresh().unwrap().failed_accounts, 0);
            assert_eq!(sim.plan(), before);
        }
    }
}

#[test]
fn a_fault_in_one_account_leaves_that_accounts_jobs_and_the_others_follow_the_backend() {
    let mut world = World::small(2);
    world.accounts.insert(8, world.accounts[&ACCOUNT].clone());
    let mut sim = host(world);
    sim.refresh().unwrap();
    for list in lists(ACCOUNT) {
        sim.world.lists(ACCOUNT).entities = vec![device(3, 1, &[(1, "30")])];
        sim.world.lists(8).entities = vec![device(4, 1, &[(1, "30")])];
        sim.world.rule = Some(Box::new(move |_, a| (a.resource == list).then(|| status(500))));
        sim.events.clear();
        let summary = sim.refresh().unwrap();
        assert_eq!(summary.failed_accounts, 1);
        let keys: Vec<_> = sim.keys().iter().map(|k| (k.account, k.entity)).collect();
        assert_eq!(keys, [(ACCOUNT, 1), (ACCOUNT, 2), (8, 4)], "failing {list}");
        let (came, _) = sim.faults();
        if let Some(fault) = came.first() {
            assert_eq!(
                (fault.account, fault.kind),
                (ACCOUNT, FaultKind::AccountFailed(RefreshError::Status(500)))
            );
        }
        // Told once, not at each refresh.
        sim.refresh().unwrap();
        assert_eq!(sim.faults().0, []);
    }
    sim.world.rule = None;
    sim.refresh().unwrap();
    assert_eq!(sim.faults().1.len(), 1, "it is told that the fault has gone");
    assert_eq!(sim.keys().iter().map(|k| (k.account, k.entity)).collect::<Vec<_>>(), [(ACCOUNT, 3), (8, 4)]);
}

#[test]
fn an_account_that_fails_in_another_way_is_told_and_that_the_first_way_is_over() {
    let mut world = World::small(2);
    world.accounts.insert(8, world.accounts[&ACCOUNT].clone());
    let mut sim = host(world);
    sim.refresh().unwrap();
    sim.faults();
    let replies: [(Reply, RefreshError); 4] = [
        (Reply::Lost, RefreshError::Lost),
        (status(403), RefreshError::Status(403)),
        (status(500), RefreshError::Status(500)),
        (status(403), RefreshError::Status(403)),
    ];
    let mut before = None;
    for (reply, error) in replies {
        sim.world.rule =
            Some(Box::new(move |_, a| (a.resource == Resource::Entities(ACCOUNT)).then(|| reply.clone())));
        assert_eq!(sim.refresh().unwrap().failed_accounts, 1);
        let kinds = |faults: Vec<Fault>| faults.iter().map(|f| f.kind).collect::<Vec<_>>();
        let (came, gone) = sim.faults();
        assert_eq!(kinds(came), [FaultKind::AccountFailed(error)]);
        assert_eq!(kinds(gone), Vec::from_iter(before));
        before = Some(FaultKind::AccountFailed(error));
    }
}

#[test]
fn a_backend_that_loses_three_answers_in_a_row_ends_the_refresh() {
    let mut world = World::small(1);
    for account in 100..150 {
        world.accounts.insert(account, Lists::default());
    }
    world.rule = Some(Box::new(|_, a| matches!(a.resource, Resource::Entities(_)).then_some(Reply::Lost)));
    let mut sim = host(world);
    assert_eq!(sim.refresh(), Err(RefreshError::Lost));
    assert_eq!(sim.asked.len(), 2 + 3);
}

#[test]
fn an_account_that_is_no_longer_listed_loses_its_jobs() {
    let mut world = World::small(2);
    world.accounts.insert(8, world.accounts[&ACCOUNT].clone());
    let mut sim = host(world);
    sim.refresh().unwrap();
    sim.world.accounts.remove(&ACCOUNT);
    assert_eq!(sim.refresh().unwrap().committed.removed, 2);
    assert!(sim.keys().iter().all(|k| k.account == 8));
    sim.world.accounts.clear();
    assert_eq!(sim.refresh().unwrap().jobs, 0);
}

#[test]
fn a_list_cut_off_at_any_byte_changes_nothing() {
    let mut world = World::small(2);
    world
        .lists(ACCOUNT)
        .entities
        .push("{\"id\":77,\"entity_type\":\"interface\",\"details\":{\"a\":\"\\u00e9\\n\"}}".into());
    for resource in [Resource::Accounts].into_iter().chain(lists(ACCOUNT)) {
        let mut sim = host(World::small(2));
        sim.world.accounts = world.accounts.clone();
        sim.refresh().unwrap();
        let before = sim.plan();
        let asked = Asked { method: grafolean_core::api::Method::Get, resource, body: String::new() };
        let body = match resource {
            Resource::Accounts => list(&["{\"id\":7,\"name\":\"a\"}".into()]),
            Resource::Entities(_) => list(&sim.world.accounts[&ACCOUNT].entities),
            Resource::Credentials(_) => list(&sim.world.accounts[&ACCOUNT].credentials),
            _ => list(&sim.world.accounts[&ACCOUNT].sensors),
        };
        for at in 0..body.len() {
            for breaks in [true, false] {
                let piece = body.as_bytes()[..at].to_vec();
                let asked = asked.resource;
                sim.world.rule = Some(Box::new(move |_, a| {
                    let reply = if breaks { Reply::Breaks(piece.clone()) } else { ok(piece.clone()) };
                    (a.resource == asked).then_some(reply)
                }));
                match sim.refresh_now() {
                    Ok(summary) => assert_eq!(summary.failed_accounts, 1, "{resource} cut at {at}"),
                    Err(error) => {
                        assert!(matches!(error, RefreshError::Lost | RefreshError::Body(_)), "{error}")
                    }
                }
                assert_eq!(sim.plan(), before, "{resource} cut at {at}");
            }
        }
        sim.world.rule = None;
        assert_eq!(sim.refresh_now().unwrap().failed_accounts, 0);
        assert_eq!(sim.plan(), before);
    }
}

#[test]
fn a_list_longer_than_the_limit_fails_its_account_and_says_the_limit() {
    let mut settings = settings();
    settings.list_limit_bytes = 600;
    let mut world = World::small(2);
    world.accounts.insert(8, world.accounts[&ACCOUNT].clone());
    world.lists(8).entities = (1..10).map(|id| device(id, 1, &[(1, "null")])).collect();
    let mut sim = Sim::new(TestBot::CONTROLLED, world, VecStorage::new(), settings);
    assert_eq!(sim.refresh().unwrap().failed_accounts, 1);
    let (came, _) = sim.faults();
    assert!(matches!(
        came[0].kind,
        FaultKind::AccountFailed(RefreshError::Body(e)) if e.kind == FrameErrorKind::TooManyBytes(600)
    ));
    assert_eq!(sim.entities(), [1, 2]);
}

#[test]
fn a_status_that_is_not_200_is_told_and_a_redirect_is_not_followed() {
    for code in [204, 301, 404, 418] {
        let mut world = World::small(1);
        world.rule = Some(Box::new(move |_, _| Some(status(code))));
        let mut sim = host(world);
        assert_eq!(sim.refresh(), Err(RefreshError::Status(code)));
        assert_eq!(sim.asked.len(), 1);
    }
}

#[test]
fn a_profile_that_is_not_what_it_should_be_fails_the_refresh() {
    for (body, readable) in
        [("", false), ("[]", true), ("{\"user_id\":", false), ("{\"record\":null}", true), ("7", false)]
    {
        let mut world = World::small(1);
        world.rule = Some(Box::new(move |_, _| Some(ok(body))));
        let error = host(world).refresh().unwrap_err();
        assert_eq!(matches!(error, RefreshError::Answer(_)), readable, "{body}: {error}");
        if body.is_empty() {
            assert!(
                matches!(error, RefreshError::Body(e) if e.kind == FrameErrorKind::Syntax(Syntax::UnexpectedEnd)),
                "{error:?}"
            );
        }
    }
}

// ---- custom bots ----

fn custom(jobs: u64, world: World, account: Option<u64>) -> Sim<VecStorage> {
    let mut settings = settings();
    settings.account = account;
    Sim::new(TestBot::custom(jobs), world, VecStorage::new(), settings)
}

#[test]
fn a_custom_bots_account_is_the_one_its_profile_names() {
    let mut world = World::small(1);
    world.accounts.insert(8, Lists::default());
    world.tied = Some(8);
    let mut sim = custom(3, world, None);
    assert_eq!(sim.refresh().unwrap().jobs, 3);
    assert!(sim.keys().iter().all(|k| k.account == 8 && k.entity == 0));
    assert_eq!(sim.resources(), [Resource::Profile]);
    assert!(sim.events.contains(&Event::OwnAccount { account: 8 }));
    // Its jobs stay at each refresh, of which the profile is the only request.
    for _ in 0..3 {
        let summary = sim.refresh().unwrap();
        assert_eq!((summary.jobs, summary.requests, summary.committed.changed_anything()), (3, 1, false));
    }
}

#[test]
fn a_custom_bots_account_is_else_the_only_one_listed() {
    let mut sim = custom(3, World::small(1), None);
    let summary = sim.refresh().unwrap();
    assert_eq!((summary.jobs, summary.requests), (3, 2));
    assert!(sim.keys().iter().all(|k| k.account == ACCOUNT));
    assert_eq!(sim.refresh().unwrap().jobs, 3);
}

#[test]
fn a_custom_bot_that_sees_no_account_or_several_says_which_setting_decides() {
    for n in [0, 2, 3] {
        let mut world = World::new();
        for account in 0..n {
            world.accounts.insert(account + 1, Lists::default());
        }
        let mut sim = custom(3, world, None);
        assert_eq!(sim.refresh(), Err(RefreshError::WhichAccount { seen: n as usize }));
        assert!(sim.events.last().unwrap().to_string().contains("ACCOUNT_ID"));
        assert_eq!(sim.keys(), []);
    }
}

#[test]
fn a_custom_bot_whose_account_is_set_runs_while_the_backend_is_down_and_its_values_wait() {
    let mut world = World::small(1);
    world.rule = Some(Box::new(|_, _| Some(Reply::NotSent)));
    let mut sim = custom(2, world, Some(9));
    sim.quick = false;
    sim.until(Millis(70_000));
    assert_eq!(sim.running.len(), 2);
    assert!(sim.keys().iter().all(|k| k.account == 9));
    for due in sim.running.clone() {
        let number = grafolean_core::values::Number::number_text(&1.5).unwrap();
        sim.collector
            .handle_value(due.key.account, None, &format!("board.{}", due.key.item), &number)
            .unwrap();
        sim.collector.handle_completed(due.run);
    }
    sim.running.clear();
    sim.until(Millis(80_000));
    assert_eq!((sim.collector.ledger().queued, sim.world.arrived.len()), (2, 0));
    sim.world.rule = None;
    sim.quick = true;
    sim.until(Millis(600_000));
    assert_eq!((sim.collector.ledger().queued, sim.collector.ledger().delivered), (0, 2));
    // It asked who it is all the same.
    assert!(sim.events.contains(&Event::Profile { user_id: ME }));
    assert_eq!(sim.keys().len(), 2);
}

#[test]
fn a_controlled_bot_polls_only_the_account_that_is_set() {
    let mut world = World::small(2);
    world.accounts.insert(8, world.accounts[&ACCOUNT].clone());
    let mut settings = settings();
    settings.account = Some(8);
    let mut sim = Sim::new(TestBot::CONTROLLED, world, VecStorage::new(), settings.clone());
    assert_eq!(sim.refresh().unwrap().requests, 5);
    assert!(sim.keys().iter().all(|k| k.account == 8));
    settings.account = Some(99);
    let mut sim = Sim::new(TestBot::CONTROLLED, World::small(2), VecStorage::new(), settings);
    assert_eq!(sim.refresh(), Err(RefreshError::NoSuchAccount { account: 99 }));
}
