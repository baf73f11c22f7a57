//! A bot's own requests through the collector: lists with backpressure, changes, and who has the lane.

use crate::support::*;
use grafolean_core::api::{Method, Resource};
use grafolean_core::bot::{BackendError, EntityDraft};
use grafolean_core::collector::{
    BodyStatus, LISTING_LIMIT_MS, OwnId, OwnProgress, OwnRequest, RequestError, RequestId,
};
use grafolean_core::jobs::Due;
use grafolean_core::model::ListedEntity;
use grafolean_core::time::Millis;

/// A collector whose jobs of `runs` devices run now. Own requests stay open.
fn with_runs(runs: u64) -> (Sim<VecStorage>, Vec<Due>) {
    let mut world = World::small(runs);
    // Runs may take 5 min; the first ones begin within a minute.
    world.lists(ACCOUNT).sensors = vec![sensor(1, "3600")];
    let mut sim = host(world);
    sim.quick = false;
    sim.until(Millis(62_000));
    let mut running = sim.running.clone();
    running.sort_by_key(|due| due.key.entity);
    assert_eq!(running.len() as u64, runs);
    sim.asked.clear();
    let own = |a: &Asked| !matches!(a.resource, Resource::Values(_));
    sim.world.rule = Some(Box::new(move |_, a| own(a).then_some(Reply::Open)));
    (sim, running)
}

fn start(
    sim: &mut Sim<VecStorage>,
    due: &Due,
    request: OwnRequest,
    draft: Option<&EntityDraft<'_>>,
) -> (OwnId, RequestId) {
    let id = sim.collector.start_own(due, request, draft).unwrap().unwrap();
    sim.settle();
    (id, sim.open.pop().unwrap())
}

fn draft() -> EntityDraft<'static> {
    EntityDraft {
        name: "eth0 \"x\"",
        entity_type: "interface",
        parent: Some(5),
        details: "{\"index\":1}",
        protocols: None,
    }
}

fn entities() -> Vec<String> {
    let interface = "{\"id\":6,\"name\":\"eth0\",\"entity_type\":\"interface\",\"parent\":5,\"details\":{\"a\":[1]},\"protocols\":{}}";
    vec![device(5, 1, &[(1, "60")]), interface.into(), device(7, 1, &[])]
}

/// Gives as many of the bytes as are taken.
fn give<'b>(sim: &mut Sim<VecStorage>, id: RequestId, mut bytes: &'b [u8]) -> &'b [u8] {
    while !bytes.is_empty() {
        match sim.collector.handle_response_body(&sim.bot, id, bytes) {
            BodyStatus::Taken(0) => break,
            BodyStatus::Taken(n) => bytes = &bytes[n..],
            BodyStatus::Unwanted => panic!("unwanted"),
        }
    }
    bytes
}

#[test]
fn a_list_gives_one_entity_at_a_time_and_reads_the_next_when_asked() {
    for chunk in [1, 13, 100_000] {
        let (mut sim, runs) = with_runs(1);
        let (own, id) = start(&mut sim, &runs[0], OwnRequest::List, None);
        assert_eq!(
            sim.asked[0],
            Asked { method: Method::Get, resource: Resource::Entities(ACCOUNT), body: String::new() }
        );
        sim.head(id, 200, None);
        let body = list(&entities()).into_bytes();
        let (mut seen, mut fed, mut buf) = (Vec::new(), 0, [0; 512]);
        let mut ended = false;
        for _ in 0..100_000 {
            match sim.collector.poll_own(own, &mut buf).unwrap() {
                OwnProgress::Entity(len) => {
                    let entity = ListedEntity::parse(&buf[..len]).unwrap();
                    seen.push((entity.id, entity.parent, entity.details.to_owned()));
                    assert!(fed < body.len(), "not all of the body was read before it was asked for");
                }
                OwnProgress::Done(id) => {
                    assert_eq!(id, None);
                    ended = true;
                    break;
                }
                OwnProgress::Pending if fed < body.len() => {
                    let piece = &body[fed..body.len().min(fed + chunk)];
                    let left = give(&mut sim, id, piece).len();
                    assert!(left < piece.len(), "no progress");
                    fed += piece.len() - left;
                    if left > 0 {
                        // An entity waits: nothing more is taken.
                        assert_eq!(
                            sim.collector.handle_response_body(&sim.bot, id, b"x"),
                            BodyStatus::Taken(0)
                        );
                    }
                }
                OwnProgress::Pending => sim.collector.handle_response_end(&sim.bot, id),
            }
        }
        assert!(ended);
        assert_eq!(
            seen,
            [
                (5, None, "{\"ipv4\":\"192.0.2.5\"}".to_owned()),
                (6, Some(5), "{\"a\":[1]}".to_owned()),
                (7, None, "{\"ipv4\":\"192.0.2.7\"}".to_owned())
            ]
        );
        assert_eq!(sim.collector.poll_own(own, &mut buf), Err(BackendError::Stopped));
    }
}

#[test]
fn an_entity_that_is_too_long_is_an_error_and_the_list_goes_on() {
    let (mut sim, runs) = with_runs(1);
    let (own, id) = start(&mut sim, &runs[0], OwnRequest::List, None);
    sim.head(id, 200, None);
    let mut all = entities();
    all[0] = all[0].replace("Device 5", &"x".repeat(1000));
    let body = list(&all);
    let mut rest = body.as_bytes();
    let mut results = Vec::new();
    let mut small = [0; 50];
    let mut large = [0; 512];
    for n in 0..3 {
        rest = give(&mut sim, id, rest);
        // The second one would fit into the collector's buffer, but not into the bot's.
        let buf: &mut [u8] = if n == 1 { &mut small } else { &mut large };
        results.push(sim.collector.poll_own(own, buf).map(|p| matches!(p, OwnProgress::Entity(_))));
    }
    assert_eq!(
        results,
        [Err(BackendError::TooLong { limit: 512 }), Err(BackendError::TooLong { limit: 50 }), Ok(true)]
    );
    assert!(give(&mut sim, id, rest).is_empty());
    sim.collector.handle_response_end(&sim.bot, id);
    assert_eq!(sim.collector.poll_own(own, &mut large), Ok(OwnProgress::Done(None)));
}

#[test]
fn a_list_that_nobody_reads_any_more_times_out_and_frees_its_lane() {
    let (mut sim, runs) = with_runs(2);
    let (own, id) = start(&mut sim, &runs[0], OwnRequest::List, None);
    sim.head(id, 200, None);
    let body = list(&entities());
    let rest = give(&mut sim, id, body.as_bytes());
    assert!(!rest.is_empty());
    let before = sim.now;
    assert_eq!(sim.collector.start_own(&runs[1], OwnRequest::List, None), Ok(None));
    sim.until(before.saturating_add(u64::from(LISTING_LIMIT_MS)));
    // The driver, which holds the request open, is told to close it.
    assert_eq!(sim.collector.handle_response_body(&sim.bot, id, rest), BodyStatus::Unwanted);
    let error = BackendError::TimedOut { limit_ms: LISTING_LIMIT_MS };
    assert_eq!(sim.collector.poll_own(own, &mut [0; 512]), Err(error));
    assert_eq!(sim.collector.poll_own(own, &mut [0; 512]), Err(BackendError::Stopped));
    // And another run has its turn.
    assert!(sim.collector.start_own(&runs[1], OwnRequest::List, None).unwrap().is_some());
}

#[test]
fn a_list_that_is_asked_for_too_late_is_a_time_out_even_if_the_collector_was_not_called_meanwhile() {
    let (mut sim, runs) = with_runs(1);
    let (own, id) = start(&mut sim, &runs[0], OwnRequest::List, None);
    sim.head(id, 200, None);
    give(&mut sim, id, list(&entities()).as_bytes());
    sim.now = sim.now.saturating_add(u64::from(LISTING_LIMIT_MS));
    sim.collector.handle_time(sim.now);
    let error = BackendError::TimedOut { limit_ms: LISTING_LIMIT_MS };
    assert_eq!(sim.collector.poll_own(own, &mut [0; 512]), Err(error));
}

#[test]
fn a_creation_gives_the_new_id_and_sends_what_it_is_told() {
    let (mut sim, runs) = with_runs(1);
    let (own, id) = start(&mut sim, &runs[0], OwnRequest::Create, Some(&draft()));
    let asked = sim.asked[0].clone();
    assert_eq!((asked.method, asked.resource), (Method::Post, Resource::Entities(ACCOUNT)));
    assert_eq!(
        asked.body,
        "{\"name\":\"eth0 \\\"x\\\"\",\"entity_type\":\"interface\",\"parent\":5,\"details\":{\"index\":1}}"
    );
    assert_eq!(sim.collector.poll_own(own, &mut []), Ok(OwnProgress::Pending));
    sim.head(id, 201, None);
    assert!(sim.feed(id, b"{\"id\":4711}"));
    sim.collector.handle_response_end(&sim.bot, id);
    assert_eq!(sim.collector.poll_own(own, &mut []), Ok(OwnProgress::Done(Some(4711))));
}

#[test]
fn a_creation_whose_answer_has_no_id_is_an_error() {
    for body in ["{}", "{\"no\":1}", "7", "", "{\"id\":\"x\"}", "[1]", "{\"id\":"] {
        let (mut sim, runs) = with_runs(1);
        let (own, id) = start(&mut sim, &runs[0], OwnRequest::Create, Some(&draft()));
        sim.head(id, 201, None);
        if sim.feed(id, body.as_bytes()) {
            sim.collector.handle_response_end(&sim.bot, id);
        }
        let result = sim.collector.poll_own(own, &mut []);
        assert!(matches!(result, Err(BackendError::Answer { .. })), "{body}: {result:?}");
    }
}

#[test]
fn an_update_and_a_deletion_go_to_the_entity() {
    let (mut sim, runs) = with_runs(1);
    let changed = EntityDraft { protocols: Some("{\"ping\":{}}"), ..draft() };
    let (own, id) = start(&mut sim, &runs[0], OwnRequest::Update(6), Some(&changed));
    assert_eq!((sim.asked[0].method, sim.asked[0].resource), (Method::Put, Resource::Entity(ACCOUNT, 6)));
    assert_eq!(
        sim.asked[0].body,
        "{\"name\":\"eth0 \\\"x\\\"\",\"entity_type\":\"interface\",\"details\":{\"index\":1},\"protocols\":{\"ping\":{}}}"
    );
    sim.head(id, 204, None);
    sim.collector.handle_response_end(&sim.bot, id);
    assert_eq!(sim.collector.poll_own(own, &mut []), Ok(OwnProgress::Done(None)));
    let (own, id) = start(&mut sim, &runs[0], OwnRequest::Delete(6), None);
    assert_eq!((sim.asked[1].method, sim.asked[1].resource), (Method::Delete, Resource::Entity(ACCOUNT, 6)));
    sim.head(id, 204, None);
    sim.collector.handle_response_end(&sim.bot, id);
    assert_eq!(sim.collector.poll_own(own, &mut []), Ok(OwnProgress::Done(None)));
}

#[test]
fn a_denied_or_failing_request_says_its_status() {
    for code in [403, 404, 500, 301] {
        for request in [OwnRequest::List, OwnRequest::Create, OwnRequest::Update(6), OwnRequest::Delete(6)] {
            let (mut sim, runs) = with_runs(1);
            let with = matches!(request, OwnRequest::Create | OwnRequest::Update(_)).then(draft);
            let (own, id) = start(&mut sim, &runs[0], request, with.as_ref());
            sim.head(id, code, None);
            assert!(sim.feed(id, b"Access to resource denied, insufficient permissions"));
            sim.collector.handle_response_end(&sim.bot, id);
            assert_eq!(sim.collector.poll_own(own, &mut []), Err(BackendError::Status(code)));
        }
    }
    assert!(BackendError::Status(403).to_string().contains("permission"));
}

#[test]
fn a_connection_that_is_lost_ends_the_request_and_the_next_one_starts() {
    let (mut sim, runs) = with_runs(1);
    let (own, id) = start(&mut sim, &runs[0], OwnRequest::List, None);
    sim.head(id, 200, None);
    give(&mut sim, id, b"{\"list\":[{\"id\":1");
    sim.collector.handle_request_error(&sim.bot, id, RequestError::Lost);
    assert_eq!(sim.collector.poll_own(own, &mut []), Err(BackendError::Connection));
    start(&mut sim, &runs[0], OwnRequest::List, None);
}

#[test]
fn a_create_that_was_not_sent_is_told_apart_from_one_that_may_have_been_done() {
    let draft = draft();
    for (error, told) in
        [(RequestError::NotSent, BackendError::NotSent), (RequestError::Lost, BackendError::Connection)]
    {
        let (mut sim, runs) = with_runs(1);
        let (own, id) = start(&mut sim, &runs[0], OwnRequest::Create, Some(&draft));
        sim.collector.handle_request_error(&sim.bot, id, error);
        assert_eq!(sim.collector.poll_own(own, &mut []), Err(told));
        start(&mut sim, &runs[0], OwnRequest::Create, Some(&draft));
    }
    assert!(BackendError::Connection.to_string().contains("may have done it"));
    assert!(!BackendError::NotSent.to_string().contains("may have done it"));
}

#[test]
fn a_list_that_is_no_list_or_is_cut_off_is_an_error() {
    for body in ["[]", "{\"list\":7}", "{}", "", "{\"list\":[", "{\"list\":[]} x"] {
        let (mut sim, runs) = with_runs(1);
        let (own, id) = start(&mut sim, &runs[0], OwnRequest::List, None);
        sim.head(id, 200, None);
        if sim.feed(id, body.as_bytes()) {
            sim.collector.handle_response_end(&sim.bot, id);
        }
        let result = sim.collector.poll_own(own, &mut []);
        assert!(matches!(result, Err(BackendError::Answer { .. })), "{body}: {result:?}");
    }
}

#[test]
fn a_run_that_ends_in_the_middle_frees_the_lane() {
    for stage in 0..3 {
        let (mut sim, runs) = with_runs(2);
        let own = sim.collector.start_own(&runs[0], OwnRequest::List, None).unwrap().unwrap();
        assert_eq!(sim.collector.start_own(&runs[1], OwnRequest::List, None), Ok(None));
        let mut id = None;
        if stage > 0 {
            sim.settle();
            id = sim.open.pop();
        }
        if stage > 1 {
            sim.head(id.unwrap(), 200, None);
            give(&mut sim, id.unwrap(), list(&entities()).as_bytes());
        }
        sim.collector.handle_completed(runs[0].run);
        if let Some(id) = id {
            assert_eq!(sim.collector.handle_response_body(&sim.bot, id, b"more"), BodyStatus::Unwanted);
            // What comes late for it is harmless.
            sim.collector.handle_response_end(&sim.bot, id);
            assert_eq!(sim.collector.request_head(id), None);
        }
        assert_eq!(sim.collector.poll_own(own, &mut []), Err(BackendError::Stopped));
        let other = sim.collector.start_own(&runs[1], OwnRequest::List, None).unwrap().unwrap();
        assert_eq!(sim.collector.poll_own(other, &mut []), Ok(OwnProgress::Pending));
        // The late end of the first was not taken for that of the second.
        sim.settle();
        let second = sim.open.pop().unwrap();
        sim.head(second, 200, None);
        assert!(sim.feed(second, b"{\"list\":[]}"));
        if let Some(id) = id {
            sim.collector.handle_request_error(&sim.bot, id, RequestError::Lost);
        }
        sim.collector.handle_response_end(&sim.bot, second);
        assert_eq!(sim.collector.poll_own(other, &mut []), Ok(OwnProgress::Done(None)));
    }
}

#[test]
fn a_run_that_starts_another_request_gives_up_its_first() {
    let (mut sim, runs) = with_runs(1);
    let (first, id) = start(&mut sim, &runs[0], OwnRequest::List, None);
    let (second, _) = start(&mut sim, &runs[0], OwnRequest::Delete(3), None);
    assert_eq!(sim.collector.poll_own(first, &mut []), Err(BackendError::Stopped));
    assert_eq!(sim.collector.handle_response_body(&sim.bot, id, b"x"), BodyStatus::Unwanted);
    assert_eq!(sim.collector.poll_own(second, &mut []), Ok(OwnProgress::Pending));
}

#[test]
fn a_draft_that_does_not_fit_is_refused_and_leaves_the_lane_free() {
    let (mut sim, runs) = with_runs(1);
    let long = "x".repeat(600);
    let result =
        sim.collector.start_own(&runs[0], OwnRequest::Create, Some(&EntityDraft { name: &long, ..draft() }));
    assert_eq!(result, Err(BackendError::TooLong { limit: 512 }));
    assert!(sim.collector.start_own(&runs[0], OwnRequest::Create, Some(&draft())).unwrap().is_some());
}
