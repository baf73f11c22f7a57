//! How far a refresh has got, as displays see it.

use crate::support::*;
use grafolean_core::api::Resource;
use grafolean_core::config::{RefreshPhase, RefreshProgress};
use grafolean_core::journal::Event;
use grafolean_core::time::Millis;

/// Every request stays open until [`answer`].
fn by_hand(world: World) -> Sim<VecStorage> {
    let mut sim = host(world);
    sim.world.rule = Some(Box::new(|_, _| Some(Reply::Open)));
    sim
}

fn begin(sim: &mut Sim<VecStorage>, body: &str) {
    let id = *sim.open.last().unwrap();
    sim.head(id, 200, None);
    assert!(sim.feed(id, body.as_bytes()));
}

fn answer(sim: &mut Sim<VecStorage>, body: &str) {
    begin(sim, body);
    let id = sim.open.pop().unwrap();
    sim.collector.handle_response_end(&sim.bot, id);
    sim.settle();
}

fn progress(sim: &Sim<VecStorage>) -> RefreshProgress {
    sim.collector.refresh_progress()
}

fn requests(sim: &Sim<VecStorage>) -> (u32, Option<u32>) {
    let progress = progress(sim);
    (progress.requests_done, progress.requests_expected)
}

#[test]
fn a_refresh_tells_which_list_it_reads_how_many_elements_it_has_read_and_of_how_many_requests() {
    let mut sim = by_hand(World::new());
    assert_eq!((progress(&sim).phase, progress(&sim).began), (RefreshPhase::Idle, None));
    sim.now = Millis(500);
    sim.settle();
    assert_eq!((progress(&sim).phase, progress(&sim).began), (RefreshPhase::Profile, Some(Millis(500))));
    assert_eq!((requests(&sim), progress(&sim).next), ((0, None), None));
    answer(&mut sim, "{\"user_id\":1408704727,\"record\":null}");
    assert_eq!((progress(&sim).phase, requests(&sim)), (RefreshPhase::Accounts, (1, None)));
    answer(&mut sim, "{\"list\":[{\"id\":7},{\"id\":8}]}");
    // 1 + 3·2, and the profile.
    assert_eq!((progress(&sim).phase, requests(&sim)), (RefreshPhase::Entities, (2, Some(8))));
    let at = |sim: &Sim<VecStorage>| {
        let p = progress(sim);
        (p.account, p.account_number, p.accounts)
    };
    assert_eq!(at(&sim), (Some(7), 1, Some(2)));
    let entities = list(&[device(1, 1, &[(1, "60")]), device(2, 1, &[(1, "60")])]);
    let half = entities.find("{\"id\":2").unwrap();
    begin(&mut sim, &entities[..half]);
    assert_eq!((progress(&sim).entities, requests(&sim)), (1, (2, Some(8))));
    let id = sim.open.pop().unwrap();
    assert!(sim.feed(id, &entities.as_bytes()[half..]));
    sim.collector.handle_response_end(&sim.bot, id);
    sim.settle();
    assert_eq!((progress(&sim).phase, requests(&sim)), (RefreshPhase::Credentials, (3, Some(8))));
    answer(&mut sim, &list(&[credential(1), credential(2), credential(3)]));
    assert_eq!((progress(&sim).phase, requests(&sim)), (RefreshPhase::Sensors, (4, Some(8))));
    answer(&mut sim, &list(&[sensor(1, "60")]));
    assert_eq!((at(&sim), requests(&sim)), ((Some(8), 2, Some(2)), (5, Some(8))));
    for _ in 0..3 {
        answer(&mut sim, "{\"list\":[]}");
    }
    let end = progress(&sim);
    assert_eq!((end.phase, requests(&sim)), (RefreshPhase::Idle, (8, Some(8))));
    assert_eq!((end.entities, end.credentials, end.sensors), (2, 3, 1));
    assert_eq!((end.account, end.account_number, end.next), (None, 2, Some(Millis(120_500))));
    sim.collector.stop();
    assert_eq!(progress(&sim).next, None);
}

#[test]
fn an_account_that_fails_makes_fewer_requests_expected_and_an_old_backend_more() {
    let mut sim = by_hand(World::new());
    sim.settle();
    answer(&mut sim, "{\"user_id\":1408704727,\"record\":null}");
    answer(&mut sim, "{\"list\":[{\"id\":7},{\"id\":8}]}");
    let id = sim.open.pop().unwrap();
    sim.head(id, 500, None);
    sim.collector.handle_response_end(&sim.bot, id);
    sim.settle();
    assert_eq!((progress(&sim).account, requests(&sim)), (Some(8), (3, Some(6))));
    // Without protocols: ten entities are asked for one by one, eight of them before the list is read again.
    let old: Vec<String> =
        (1..=10).map(|id| device(id, 1, &[(1, "60")]).replace("\"protocols\":", "\"later\":")).collect();
    answer(&mut sim, &list(&old));
    assert_eq!(progress(&sim).phase, RefreshPhase::SingleEntity);
    assert_eq!(requests(&sim), (4, Some(4 + 8 + 1 + 2)));
    for asked in 1..=10 {
        assert_eq!(sim.asked.last().unwrap().resource, Resource::Entity(8, asked));
        answer(&mut sim, &old[asked as usize - 1].replace("\"later\":", "\"protocols\":"));
        if asked == 8 {
            answer(&mut sim, &list(&old));
        }
    }
    assert_eq!(progress(&sim).phase, RefreshPhase::Credentials);
    assert_eq!(requests(&sim), (15, Some(17)));
}

#[test]
fn a_refresh_that_is_wanted_while_one_is_under_way_follows_it_at_once_and_once() {
    let mut sim = by_hand(World::new());
    sim.settle();
    answer(&mut sim, "{\"user_id\":1408704727,\"record\":null}");
    answer(&mut sim, "{\"list\":[{\"id\":7}]}");
    answer(&mut sim, "{\"list\":[]}");
    // The entities have been read: what has changed in them is not seen by this one.
    sim.collector.refresh_soon();
    sim.collector.refresh_soon();
    assert_eq!(progress(&sim).phase, RefreshPhase::Credentials);
    answer(&mut sim, "{\"list\":[]}");
    answer(&mut sim, "{\"list\":[]}");
    assert_eq!(progress(&sim).phase, RefreshPhase::Accounts);
    // One that fails is followed by another, too.
    sim.collector.refresh_soon();
    let id = sim.open.pop().unwrap();
    sim.head(id, 503, None);
    sim.collector.handle_response_end(&sim.bot, id);
    sim.settle();
    assert_eq!(progress(&sim).phase, RefreshPhase::Accounts);
    let failed = |e: &&Event| matches!(e, Event::RefreshFailed { retry_in_ms: 0, .. });
    assert_eq!(sim.events.iter().filter(failed).count(), 1);
    answer(&mut sim, "{\"list\":[]}");
    assert_eq!((progress(&sim).phase, progress(&sim).next), (RefreshPhase::Idle, Some(Millis(120_000))));
}
