//! What a refresh makes of the lists: what concerns the bot, what is wrong and named, what is odd and taken.

use crate::support::*;
use grafolean_core::collector::Collector;
use grafolean_core::interval::{Interval, IntervalError};
use grafolean_core::journal::{DetailsError, Fault, FaultKind, FaultSlot, Kind};
use grafolean_core::random::SplitMix64;
use grafolean_core::storage::{Parts, Storage};
use grafolean_core::table::NONE;
use grafolean_core::time::Millis;

fn intervals(sim: &mut Sim<VecStorage>, entity: u64) -> Vec<u32> {
    let key = sim.keys().into_iter().find(|k| k.entity == entity);
    key.and_then(|k| sim.collector.jobs(|t| t.grid(&k))).map_or(Vec::new(), |(i, _)| i.as_slice().to_vec())
}

fn world(entities: Vec<String>, credentials: Vec<String>, sensors: Vec<String>) -> World {
    let mut world = World::new();
    world.accounts.insert(ACCOUNT, Lists { entities, credentials, sensors });
    world
}

// ---- intervals (S2) ----

#[test]
fn an_interval_that_is_none_in_another_way_is_told_too() {
    let entities = vec![device(5, 1, &[(1, "60"), (2, "0")])];
    let mut sim = host(world(entities, vec![credential(1)], vec![sensor(1, "60"), sensor(2, "60")]));
    sim.refresh().unwrap();
    let bad = |seconds| FaultKind::Interval(IntervalError::OutOfRange { seconds });
    assert_eq!(sim.kinds(), [(5, (Kind::Sensor, 2), bad(0))]);
    sim.world.lists(ACCOUNT).entities = vec![device(5, 1, &[(1, "60"), (2, "-5")])];
    sim.refresh().unwrap();
    let (came, gone) = sim.faults();
    assert_eq!((came.len(), came[0].kind), (1, bad(-5)));
    assert_eq!((gone.len(), gone[0].kind), (1, bad(0)));
}

#[test]
fn a_sensors_interval_is_the_entitys_else_its_default_else_none() {
    let sensors = vec![sensor(1, "60"), sensor(2, "300"), sensor(3, "null")];
    let entities = vec![device(5, 1, &[(1, "null"), (2, "10"), (3, "null")])];
    let mut sim = host(world(entities, vec![credential(1)], sensors));
    sim.refresh().unwrap();
    assert_eq!(intervals(&mut sim, 5), [10, 60]);
    let key = sim.keys()[0];
    let all =
        sim.collector.entity_of(&key, |e| e.sensors().map(|s| s.interval.map(Interval::seconds)).collect());
    assert_eq!(all, Some(vec![Some(60), Some(10), None]));
    assert_eq!(sim.kinds(), []);
}

#[test]
fn an_interval_that_is_none_leaves_its_sensor_out_and_names_entity_sensor_and_number() {
    for (json, error) in [
        ("0", IntervalError::OutOfRange { seconds: 0 }),
        ("-5", IntervalError::OutOfRange { seconds: -5 }),
        ("\"-60\"", IntervalError::OutOfRange { seconds: -60 }),
        ("2.5", IntervalError::Fraction { thousandths: 2500 }),
        ("\"soon\"", IntervalError::NotWhole),
        ("[60]", IntervalError::NotWhole),
        ("true", IntervalError::NotWhole),
        ("1e300", IntervalError::NotWhole),
        ("2147483648", IntervalError::OutOfRange { seconds: 2_147_483_648 }),
    ] {
        // As the entity's own interval, and as a sensor's default.
        for own in [true, false] {
            let sensors = vec![sensor(1, "60"), sensor(2, if own { "60" } else { json })];
            let links = [(1, "null"), (2, if own { json } else { "null" })];
            let entities = vec![device(5, 1, &links), device(6, 1, &[(1, "null")])];
            let mut sim = host(world(entities, vec![credential(1)], sensors));
            sim.refresh().unwrap();
            assert_eq!(sim.kinds(), [(5, (Kind::Sensor, 2), FaultKind::Interval(error))], "{json}");
            assert_eq!((intervals(&mut sim, 5), intervals(&mut sim, 6)), (vec![60], vec![60]));
            let key = sim.keys()[0];
            assert_eq!(sim.collector.entity_of(&key, |e| e.sensors().count()), Some(1));
        }
    }
}

#[test]
fn the_text_of_a_bad_interval_names_account_entity_sensor_and_number() {
    let mut sim = host(world(vec![device(5, 1, &[(2, "-5")])], vec![credential(1)], vec![sensor(2, "60")]));
    sim.refresh().unwrap();
    let text = sim.faults().0[0].to_string();
    assert!(text.starts_with("account 7, entity 5, sensor 2: interval -5 s"), "{text}");
    sim.world.lists(ACCOUNT).entities = vec![device(5, 1, &[(2, "-2.5")])];
    sim.world.lists(ACCOUNT).sensors.clear();
    sim.collector = Collector::new(settings(), VecStorage::new());
    sim.refresh().unwrap();
    let text = sim.faults().0[0].to_string();
    assert!(text.contains("sensor 2: interval -2.500 s is not a whole number of seconds"), "{text}");
}

#[test]
fn whole_numbers_in_any_spelling_are_intervals() {
    for json in ["60", "60.0", "6e1", "\"60\"", "\" 60.0 \"", "600e-1"] {
        let entities = vec![device(5, 1, &[(1, json)])];
        let mut sim = host(world(entities, vec![credential(1)], vec![sensor(1, "null")]));
        sim.refresh().unwrap();
        assert_eq!((intervals(&mut sim, 5), sim.kinds()), (vec![60], vec![]), "{json}");
    }
}

#[test]
fn with_more_than_eight_distinct_intervals_sensors_of_higher_ids_are_left_out_and_named() {
    let sensors: Vec<String> = (1..=12).map(|id| sensor(id, &(id * 10).to_string())).collect();
    // Named in descending order: the ids decide.
    let links: Vec<(u64, &str)> =
        (1..=12).rev().map(|id| (id, if id == 11 { "10" } else { "null" })).collect();
    let mut sim = host(world(vec![device(5, 1, &links)], vec![credential(1)], sensors));
    sim.refresh().unwrap();
    assert_eq!(intervals(&mut sim, 5), [10, 20, 30, 40, 50, 60, 70, 80]);
    let ninth = |s| FaultKind::NinthInterval(Interval::new(s).unwrap());
    assert_eq!(
        sim.kinds(),
        [
            (5, (Kind::Sensor, 9), ninth(90)),
            (5, (Kind::Sensor, 10), ninth(100)),
            (5, (Kind::Sensor, 12), ninth(120)),
        ]
    );
}

#[test]
fn a_job_left_without_intervals_is_skipped_and_named() {
    let sensors = vec![sensor(1, "null"), sensor(2, "0"), sensor(3, "60")];
    let entities =
        vec![device(5, 1, &[(1, "null")]), device(6, 1, &[(2, "null")]), device(7, 1, &[(3, "null")])];
    let mut sim = host(world(entities, vec![credential(1)], sensors));
    sim.refresh().unwrap();
    assert_eq!(sim.entities(), [7]);
    let zero = FaultKind::Interval(IntervalError::OutOfRange { seconds: 0 });
    assert_eq!(
        sim.kinds(),
        [
            (5, (Kind::Job, 0), FaultKind::NoIntervals),
            (6, (Kind::Sensor, 2), zero),
            (6, (Kind::Job, 0), FaultKind::NoIntervals)
        ]
    );
}

// ---- what concerns the bot, and lenience (R4) ----

#[test]
fn what_does_not_concern_this_bot_is_no_job_and_no_fault() {
    let mine = device(1, 1, &[(1, "null")]);
    let id =
        |id: u64, from: &str, to: &str| mine.replace("\"id\":1,", &format!("\"id\":{id},")).replace(from, to);
    let me = format!("\"bot\":{ME}");
    let entities = vec![
        mine.clone(),
        id(2, &me, "\"bot\":null"),
        id(3, &format!(",{me}"), ""),
        id(4, &me, &format!("\"bot\":\"{ME}\"")),
        // From here on none is wanted.
        id(11, &me, "\"bot\":5"),
        id(12, "\"device\"", "\"interface\""),
        id(13, "\"device\"", "\"DEVICE\""),
        id(14, PROTOCOL, "ping"),
        id(15, "\"credential\":1", "\"credential\":null"),
        id(16, "{\"sensor\":1,\"interval\":null}", ""),
        id(17, "[{\"sensor\":1,\"interval\":null}]", "null"),
        "{\"id\":18,\"name\":\"none\",\"entity_type\":\"device\",\"parent\":null,\"details\":{},\"protocols\":{}}".into(),
        "{\"id\":19,\"name\":\"none\",\"entity_type\":\"device\",\"parent\":null,\"details\":{},\"protocols\":null}".into(),
        "{\"id\":20,\"name\":\"none\",\"parent\":null,\"details\":{},\"protocols\":{}}".into(),
    ];
    let mut sim = host(world(entities, vec![credential(1)], vec![sensor(1, "60")]));
    assert_eq!(sim.refresh().unwrap().entities, 4);
    assert_eq!(sim.entities(), [1, 2, 3, 4]);
    assert_eq!(sim.kinds(), []);
}

#[test]
fn numbers_may_be_strings_or_decimals_fields_unknown_or_missing_and_text_escaped() {
    let entity = String::from(
        "{ \"id\" : \"5\", \"new\": [1e999, -0.0, 340282366920938463463374607431768211456999, {\"\":\"\\u0000\"}],\
         \"name\":\"R\\u00f6uter \\ud83d\\ude00\",\"entity\\u005ftype\":\"dev\\u0069ce\",\"details\":{\"ipv4\":\"192\\u002e0.2.1\",\
         \"retries\":\"3.0\",\"x\":null},\"protocols\":{\"my\\u0070rotocol\":{\"sensors\":[{\"interval\":\"60.0\",\
         \"sensor\":\"1\"},{\"sensor\":2.0}],\"credential\":1.0,\"added\":{}}}}",
    );
    let sensors = vec![
        "{\"id\":1}".into(),
        "{\"default_interval\":3e2,\"id\":\"2\",\"details\":{\"metric\":\"\\u00b0\"}}".into(),
    ];
    let mut sim =
        host(world(vec![entity], vec!["{\"id\":1,\"details\":{\"timeout\":\"3.0\"}}".into()], sensors));
    sim.refresh().unwrap();
    assert_eq!(sim.kinds(), []);
    assert_eq!(intervals(&mut sim, 5), [60, 300]);
    let key = sim.keys()[0];
    sim.collector
        .entity_of(&key, |e| {
            assert_eq!(e.name().as_str(), "R\u{f6}uter \u{1f600}");
            assert_eq!((e.details().ipv4.as_str(), e.details().retries), ("192.0.2.1", 3));
            assert_eq!((e.credential().timeout, e.parent()), (3, None));
            assert_eq!(e.sensors().last().unwrap().details.metric.as_str(), "\u{b0}");
        })
        .unwrap();
}

#[test]
fn a_name_longer_than_its_room_is_cut_at_a_character() {
    let long = device(5, 1, &[(1, "60")])
        .replace("Device 5", "\u{10d}\u{10d}\u{10d}\u{10d}\u{10d}\u{10d}\u{10d}a\u{10d}\u{10d}");
    let mut sim = host(world(vec![long], vec![credential(1)], vec![sensor(1, "60")]));
    sim.refresh().unwrap();
    let key = sim.keys()[0];
    let name = sim.collector.entity_of(&key, |e| e.name().to_string()).unwrap();
    assert_eq!(name, "\u{10d}".repeat(7) + "a");
}

#[test]
fn a_name_with_escapes_that_is_longer_than_all_memory_or_is_no_text_is_kept_as_far_as_it_fits() {
    let escaped = |name: &str| device(5, 1, &[(1, "60")]).replace("Device 5", name);
    let name_of = |sim: &mut Sim<VecStorage>| {
        let key = sim.keys()[0];
        sim.collector.entity_of(&key, |e| e.name().to_string()).unwrap()
    };
    // The memory for one string is 256 bytes.
    let long = escaped(&"\\u010d".repeat(200));
    let mut sim = host(world(vec![long], vec![credential(1)], vec![sensor(1, "60")]));
    sim.refresh().unwrap();
    assert_eq!(name_of(&mut sim), "\u{10d}".repeat(8));
    for (half, kept) in
        [("rack \\ud800 7", "rack \u{fffd}"), ("rack \\udc00", "rack \u{fffd}"), ("\\ud800", "\u{fffd}")]
    {
        sim.world.lists(ACCOUNT).entities = vec![escaped(half)];
        sim.refresh().unwrap();
        assert_eq!(name_of(&mut sim), kept);
    }
    assert_eq!(sim.kinds(), []);
}

#[test]
fn the_order_of_sensors_is_of_no_importance() {
    let sensors: Vec<String> = (1..=4).map(|id| sensor(id, "60")).collect();
    let links = [(1, "10"), (2, "null"), (3, "20"), (4, "null")];
    let mut sim = host(world(vec![device(5, 1, &links)], vec![credential(1)], sensors));
    sim.refresh().unwrap();
    let before = sim.plan();
    let mut turned = links;
    for _ in 0..4 {
        turned.rotate_left(1);
        sim.world.lists(ACCOUNT).entities = vec![device(5, 1, &turned)];
        sim.world.lists(ACCOUNT).sensors.rotate_left(1);
        assert!(!sim.refresh().unwrap().committed.changed_anything());
        assert_eq!(sim.plan(), before);
    }
}

// ---- faults (R3) ----

/// Three devices with a credential and a sensor each.
fn three() -> World {
    world(
        (1..=3).map(|id| device(id, 10 + id, &[(20 + id, "null")])).collect(),
        (11..=13).map(credential).collect(),
        (21..=23).map(|id| sensor(id, "60")).collect(),
    )
}

/// The element with this much in it that nobody reads.
fn stuffed(element: &str, more: &str) -> String {
    let rest = element.strip_suffix('}').unwrap();
    format!("{rest},\"more\":{more}}}")
}

fn long(element: &str) -> String {
    stuffed(element, &format!("\"{}\"", "x".repeat(5_000)))
}

fn deep(element: &str) -> String {
    stuffed(element, &("[".repeat(300) + &"]".repeat(300)))
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Of {
    Entity,
    Credential,
    Sensor,
}

fn second(world: &mut World, of: Of) -> &mut String {
    let lists = world.lists(ACCOUNT);
    let list = match of {
        Of::Entity => &mut lists.entities,
        Of::Credential => &mut lists.credentials,
        Of::Sensor => &mut lists.sensors,
    };
    &mut list[1]
}

#[test]
fn an_element_that_can_not_be_read_leaves_the_job_that_it_had_as_it_was() {
    for of in [Of::Entity, Of::Credential, Of::Sensor] {
        for spoil in [long, deep] {
            let mut sim = host(three());
            sim.refresh().unwrap();
            let before = sim.plan();
            let good = second(&mut sim.world, of).clone();
            *second(&mut sim.world, of) = spoil(&good);
            // Others follow the backend all the same.
            let changed = sim.world.lists(ACCOUNT).entities[2].replace("null}", "30}");
            sim.world.lists(ACCOUNT).entities[2] = changed;
            let summary = sim.refresh().unwrap();
            assert_eq!((summary.faults, summary.committed.changed), (1, 1));
            let after = sim.plan();
            assert_eq!(after[..2], before[..2], "{of:?}");
            assert_ne!(after[2], before[2]);
            let (came, _) = sim.faults();
            assert!(
                matches!(came[..], [f] if matches!(f.kind, FaultKind::TooLong { limit: 2048, .. } | FaultKind::TooDeep { .. }))
            );
            // Told once when it appears and once when it goes.
            sim.refresh().unwrap();
            assert_eq!(sim.faults(), (vec![], vec![]));
            *second(&mut sim.world, of) = good;
            sim.refresh().unwrap();
            assert_eq!(sim.faults(), (vec![], came));
        }
    }
}

#[test]
fn a_credential_or_sensor_nested_too_deep_is_named_by_its_id_wherever_in_it_that_is() {
    for (of, named) in [(Of::Credential, (Kind::Credential, 12)), (Of::Sensor, (Kind::Sensor, 22))] {
        let mut sim = host(three());
        sim.refresh().unwrap();
        let before = sim.plan();
        let element = second(&mut sim.world, of);
        let rest = element.strip_prefix('{').unwrap();
        *element = format!("{{\"more\":{}{},{rest}", "[".repeat(300), "]".repeat(300));
        sim.refresh().unwrap();
        assert_eq!(sim.plan(), before, "{of:?}");
        assert!(
            matches!(sim.kinds()[..], [(0, of, FaultKind::TooDeep { .. })] if of == named),
            "{:?}",
            sim.kinds()
        );
    }
}

#[test]
fn an_element_that_was_read_and_refused_loses_its_job() {
    let cases: [(Of, &str, &str); 8] = [
        (Of::Entity, "\"credential\":12", "\"credential\":[12]"),
        (Of::Entity, "\"sensor\":22", "\"sensor\":\"x\""),
        (Of::Entity, "\"ipv4\":\"192.0.2.2\"", "\"ipv4\":5"),
        (Of::Entity, "\"ipv4\"", "\"retries\":256,\"ipv4\""),
        (Of::Entity, "\"name\":\"Device 2\"", "\"name\":7"),
        (Of::Credential, "\"timeout\":\"3\"", "\"timeout\":-3"),
        (Of::Sensor, "\"metric\":\"m22\"", "\"metric\":{}"),
        (Of::Sensor, "\"details\":{\"metric\":\"m22\"}", "\"details\":7"),
    ];
    for (of, from, to) in cases {
        let mut sim = host(three());
        sim.refresh().unwrap();
        let good = second(&mut sim.world, of).clone();
        assert!(good.contains(from), "{from}");
        *second(&mut sim.world, of) = good.replace(from, to);
        sim.refresh().unwrap();
        assert_eq!(sim.entities(), [1, 3], "{to}");
        let (came, _) = sim.faults();
        assert!(!came.is_empty());
        // It stays so, and is told no more.
        let summary = sim.refresh().unwrap();
        assert_eq!(summary.committed, Default::default(), "{to}");
        assert_eq!(sim.faults(), (vec![], vec![]));
        *second(&mut sim.world, of) = good;
        sim.refresh().unwrap();
        assert_eq!(sim.entities(), [1, 2, 3]);
        assert_eq!(sim.faults().1.len(), came.len());
    }
}

#[test]
fn details_beyond_the_bounds_of_the_reader_leave_the_job_as_it_was() {
    // A text with escapes must fit into the scratch memory (256 bytes).
    let text = "\\u00e9".repeat(150);
    for of in [Of::Credential, Of::Sensor] {
        let mut sim = host(three());
        sim.refresh().unwrap();
        let before = sim.plan();
        let good = second(&mut sim.world, of).clone();
        let field = if of == Of::Sensor { "m22" } else { "u12" };
        *second(&mut sim.world, of) = good.replace(field, &text);
        sim.refresh().unwrap();
        assert_eq!(sim.plan(), before, "{of:?}");
        let kinds = sim.kinds();
        assert!(
            matches!(kinds[..], [(0, _, FaultKind::Details(DetailsError { beyond_bounds: true, .. }))]),
            "{kinds:?}"
        );
    }
}

#[test]
fn an_unreadable_sensor_or_credential_of_which_nothing_is_stored_counts_as_refused() {
    for of in [Of::Credential, Of::Sensor] {
        for spoil in [long, deep] {
            let mut world = three();
            let good = second(&mut world, of).clone();
            *second(&mut world, of) = spoil(&good);
            let mut sim = host(world);
            sim.refresh().unwrap();
            assert_eq!(sim.entities(), [1, 3]);
            let missing = if of == Of::Sensor { (Kind::Sensor, 22) } else { (Kind::Credential, 12) };
            assert!(sim.kinds().contains(&(2, missing, FaultKind::Missing)));
            *second(&mut sim.world, of) = good;
            sim.refresh().unwrap();
            assert_eq!(sim.entities(), [1, 2, 3]);
        }
    }
}

#[test]
fn a_credential_or_sensor_that_is_not_listed_is_named() {
    let mut world = three();
    world.lists(ACCOUNT).credentials.remove(0);
    world.lists(ACCOUNT).sensors.remove(2);
    let mut sim = host(world);
    sim.refresh().unwrap();
    assert_eq!(sim.entities(), [2]);
    assert_eq!(
        sim.kinds(),
        [
            (1, (Kind::Credential, 11), FaultKind::Missing),
            (3, (Kind::Sensor, 23), FaultKind::Missing),
            (3, (Kind::Job, 0), FaultKind::NoIntervals),
        ]
    );
}

#[test]
fn what_comes_twice_counts_once_and_is_named() {
    for stored in [false, true] {
        let mut sim = host(three());
        if stored {
            sim.refresh().unwrap();
        }
        let lists = sim.world.lists(ACCOUNT);
        lists.entities.push(device(2, 11, &[(21, "15")]));
        lists.credentials.push(credential(12).replace("u12", "other"));
        lists.sensors.push(sensor(22, "15"));
        let twice = lists.entities[0].replace("[{", "[{\"sensor\":21,\"interval\":7},{");
        lists.entities[0] = twice;
        sim.refresh_now().unwrap();
        assert_eq!(intervals(&mut sim, 2), [60], "the first one counts");
        let key = sim.keys()[1];
        assert_eq!(sim.collector.entity_of(&key, |e| e.credential().username.to_string()).unwrap(), "u12");
        assert_eq!(intervals(&mut sim, 1), [7]);
        assert_eq!(
            sim.kinds(),
            [
                (1, (Kind::Sensor, 21), FaultKind::Duplicate),
                (2, (Kind::Entity, 0), FaultKind::Duplicate),
                (0, (Kind::Credential, 12), FaultKind::Duplicate),
                (0, (Kind::Sensor, 22), FaultKind::Duplicate),
            ],
            "stored: {stored}"
        );
        let before = sim.plan();
        assert!(!sim.refresh().unwrap().committed.changed_anything());
        assert_eq!(sim.plan(), before);
    }
}

#[test]
fn an_account_that_comes_twice_is_read_once() {
    let mut world = three();
    world.rule = Some(Box::new(|_, a| {
        (a.resource == grafolean_core::api::Resource::Accounts)
            .then(|| ok("{\"list\":[{\"id\":7},{\"id\":\"7\"}]}"))
    }));
    let mut sim = host(world);
    let summary = sim.refresh().unwrap();
    assert_eq!((summary.requests, summary.accounts, summary.jobs), (5, 1, 3));
    assert_eq!(sim.faults().0[0].kind, FaultKind::Duplicate);
}

#[test]
fn an_unreadable_account_stays_and_one_without_id_keeps_all() {
    let accounts = |body: &'static str| -> Rule {
        Box::new(move |_, a| (a.resource == grafolean_core::api::Resource::Accounts).then(|| ok(body)))
    };
    let mut sim = host(three());
    sim.refresh().unwrap();
    for body in
        ["{\"list\":[{\"name\":\"?\"}]}", "{\"list\":[5]}", "{\"list\":[{\"id\":-7}]}", "{\"list\":[null]}"]
    {
        sim.world.rule = Some(accounts(body));
        let summary = sim.refresh().unwrap();
        assert_eq!((summary.accounts, summary.jobs, summary.faults), (1, 3, 1), "{body}");
    }
    sim.world.rule = Some(accounts("{\"list\":[]}"));
    assert_eq!(sim.refresh().unwrap().jobs, 0);
}

#[test]
fn faults_beyond_the_table_are_counted_and_not_told() {
    struct Few(VecStorage);
    impl Storage<TestBot> for Few {
        type Links = VecLinks;
        type Entry = grafolean_core::schedule::Entry;
        fn parts(&mut self) -> Parts<'_, TestBot, VecLinks> {
            let mut parts = self.0.parts();
            parts.faults = &mut core::mem::take(&mut parts.faults)[..3];
            parts
        }
        fn grow(&mut self, kind: Kind) -> bool {
            self.0.grow(kind)
        }
        fn grow_events(&mut self) -> bool {
            Storage::<TestBot>::grow_events(&mut self.0)
        }
    }
    assert!(size_of::<FaultSlot>() <= 104, "{} bytes", size_of::<FaultSlot>());
    let entities = (1..=8).map(|id| device(id, 1, &[(1, "0"), (2, "null")])).collect();
    let world = world(entities, vec![credential(1)], vec![sensor(1, "60"), sensor(2, "60")]);
    let mut sim = Sim::new(TestBot::CONTROLLED, world, Few(VecStorage::new()), settings());
    for told in [3, 0] {
        let summary = sim.refresh().unwrap();
        assert_eq!((summary.faults, summary.jobs), (8, 8));
        assert_eq!(sim.faults().0.len(), told);
    }
}

#[test]
fn faults_are_counted_once_however_often_memory_has_to_grow() {
    // Memory for one of each kind: nearly every entity makes something grow.
    let entities = (1..=40).map(|id| device(id, id, &[(id, "null"), (id + 100, "0"), (id, "5")])).collect();
    let credentials = (1..=40).map(credential).collect();
    let sensors = (1..=200).map(|id| sensor(id, &(id + 1).to_string())).collect();
    let mut sim = host(world(entities, credentials, sensors));
    let summary = sim.refresh().unwrap();
    assert!(sim.collector.storage().grown > 10);
    assert_eq!((summary.faults, summary.entities, summary.jobs, summary.committed.added), (80, 40, 40, 40));
    assert_eq!(sim.faults().0.len(), 80);
    assert!(!sim.refresh().unwrap().committed.changed_anything());
}

#[test]
fn a_bot_that_refuses_an_entity_says_why() {
    let mut sim = Sim::new(
        TestBot { makes: Makes::Refuses, ..TestBot::CONTROLLED },
        three(),
        VecStorage::new(),
        settings(),
    );
    let summary = sim.refresh().unwrap();
    assert_eq!((summary.jobs, summary.faults), (0, 3));
    assert_eq!(sim.faults().0[0].to_string(), "account 7, entity 1: this bot wants no entity");
}

#[test]
fn a_sensor_that_a_bot_refuses_is_named_with_field_and_column_and_makes_no_run_due_until_it_is_mended() {
    let sensors = vec![sensor(1, "60"), sensor(2, "10"), sensor(32, "20")];
    let entities = vec![device(5, 1, &[(1, "null"), (2, "null"), (32, "null")])];
    let mut sim = Sim::new(
        TestBot { makes: Makes::Checked, ..TestBot::CONTROLLED },
        world(entities, vec![credential(1)], sensors),
        VecStorage::new(),
        settings(),
    );
    let at = |sensor: u64, column: u32| {
        format!(
            "account 7, entity 5, sensor {sensor}: `metric`, column {column}: a 2; the sensor is left out"
        )
    };
    let told = |sim: &mut Sim<VecStorage>| -> (Vec<String>, Vec<String>) {
        let (came, gone) = sim.faults();
        let texts = |faults: Vec<Fault>| faults.iter().map(ToString::to_string).collect();
        (texts(came), texts(gone))
    };
    let summary = sim.refresh().unwrap();
    assert_eq!((intervals(&mut sim, 5), summary.faults), (vec![60], 2));
    assert_eq!(told(&mut sim), (vec![at(2, 2), at(32, 3)], vec![]));
    // Told once.
    assert_eq!(sim.refresh().unwrap().faults, 2);
    assert_eq!(told(&mut sim), (vec![], vec![]));
    // One is mended, the fault of the other moves.
    let lists = sim.world.lists(ACCOUNT);
    lists.sensors[1] = lists.sensors[1].replace("\"m2\"", "\"m\"");
    lists.sensors[2] = lists.sensors[2].replace("\"m32\"", "\"m332\"");
    sim.refresh().unwrap();
    assert_eq!(intervals(&mut sim, 5), [10, 60]);
    let (came, mut gone) = told(&mut sim);
    gone.sort_unstable();
    assert_eq!((came, gone), (vec![at(32, 4)], vec![at(2, 2), at(32, 3)]));
}

#[test]
fn jobs_of_one_account_that_are_refused_are_told_apart_by_their_names() {
    let bot = TestBot { makes: Makes::Never, ..TestBot::CONTROLLED };
    let mut sim = Sim::new(bot, three(), VecStorage::new(), settings());
    let summary = sim.refresh().unwrap();
    assert_eq!((summary.jobs, summary.faults), (0, 2));
    let texts: Vec<_> = sim.faults().0.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        ["account 7, job `first`: no interval, so no job", "account 7, job `second`: no interval, so no job"]
    );
}

#[test]
fn a_bot_may_make_a_job_per_sensor_or_per_account() {
    let mut sim = Sim::new(
        TestBot { makes: Makes::PerSensor, ..TestBot::CONTROLLED },
        three(),
        VecStorage::new(),
        settings(),
    );
    sim.refresh().unwrap();
    assert_eq!(
        sim.keys().iter().map(|k| (k.entity, k.item)).collect::<Vec<_>>(),
        [(1, 21), (2, 22), (3, 23)]
    );
    let mut world = three();
    world.accounts.insert(
        8,
        Lists { entities: vec![device(9, 11, &[(21, "null")])], ..world.accounts[&ACCOUNT].clone() },
    );
    world.accounts.insert(9, Lists::default());
    let mut sim = Sim::new(
        TestBot { makes: Makes::PerAccount, ..TestBot::CONTROLLED },
        world,
        VecStorage::new(),
        settings(),
    );
    sim.refresh().unwrap();
    let seen = |sim: &mut Sim<VecStorage>| -> Vec<(u64, u32)> {
        let mut all: Vec<_> =
            sim.collector.jobs(|t| t.iter().map(|(slot, k, _)| (k.account, slot)).collect());
        all.sort_unstable();
        all
    };
    assert_eq!(seen(&mut sim).iter().map(|(a, _)| *a).collect::<Vec<_>>(), [7, 8, 9]);
    sim.world.rule =
        Some(Box::new(|_, a| (a.resource == grafolean_core::api::Resource::Sensors(8)).then(|| status(500))));
    let summary = sim.refresh().unwrap();
    assert_eq!((summary.jobs, summary.failed_accounts, summary.committed.changed_anything()), (3, 1, false));
    // With another number of entities it is another job.
    sim.world.rule = None;
    sim.world.lists(8).entities.clear();
    let summary = sim.refresh().unwrap();
    assert_eq!((summary.committed.changed, summary.committed.added), (1, 0));
    assert_ne!(seen(&mut sim), [(7, NONE)]);
}

// ---- hostile ----

/// JSON, or nearly, that nobody expects.
fn hostile() -> Vec<String> {
    let mut all: Vec<String> = [
        "null", "true", "7", "-0.0", "\"\"", "[]", "{}", "[[[]]]", "{\"id\":null}", "{\"id\":1e999}", "{\"id\":-1}",
        "{\"id\":18446744073709551616}", "{\"id\":\"\"}", "{\"id\":{}}", "{\"id\":[1]}", "{\"id\":1.5}", "{\"id\":1,\"id\":2}",
        "{\"id\":1,\"name\":\"\\ud800\",\"entity_type\":\"device\",\"protocols\":{}}",
        "{\"id\":1,\"entity_type\":\"\\ud800\",\"protocols\":{}}",
        "{\"id\":1,\"entity_type\":\"device\",\"protocols\":{\"myprotocol\":7}}",
        "{\"id\":1,\"entity_type\":\"device\",\"protocols\":{\"myprotocol\":{\"credential\":1,\"sensors\":7,\"bot\":null}}}",
        "{\"id\":1,\"entity_type\":\"device\",\"protocols\":{\"myprotocol\":{\"credential\":1,\"sensors\":[7],\"bot\":null}}}",
        "{\"id\":1,\"entity_type\":\"device\",\"protocols\":{\"myprotocol\":{\"credential\":1,\"sensors\":[{}],\"bot\":\"x\"}}}",
        "{\"id\":1,\"entity_type\":\"device\",\"protocols\":[\"myprotocol\"]}",
        "{\"id\":1,\"details\":7}", "{\"id\":1,\"details\":{\"metric\":\"\\udc00\"},\"default_interval\":{}}",
        "{\"id\":1,\"default_interval\":1e-999999999}", "{\"id\":1,\"details\":{\"timeout\":99999999999999999999}}",
        // Broken.
        "", "{", "[", "\"", "{\"id\":", "{\"id\":1,}", "{\"id\":01}", "{\"id\":1}}", "nul", "+1", ".5", "NaN", "'x'",
        "{\"\\x\":1}", "{\"\\u12\":1}", "{\"a\":\"\u{1}\"}", "{id:1}", "\u{feff}{}", "{\"a\" 1}", "1 2",
    ]
    .map(String::from)
    .into();
    all.push("[".repeat(100_000));
    all.push("[".repeat(100_000) + &"]".repeat(100_000));
    all.push("{\"a\":".repeat(50_000) + "1" + &"}".repeat(50_000));
    all.push(format!("\"{}\"", "x".repeat(300_000)));
    all.push(format!("{{\"id\":1,\"name\":\"{}\"}}", "\\u00e9".repeat(50_000)));
    all.push(format!("{{\"id\":{}}}", "9".repeat(100_000)));
    all.push(format!("{{\"{}\":1}}", "k".repeat(100_000)));
    all
}

#[test]
fn hostile_elements_are_skipped_or_fail_their_account_and_others_go_on() {
    let mut sim = host(three());
    let other = sim.world.accounts[&ACCOUNT].clone();
    sim.world.accounts.insert(8, other);
    sim.refresh().unwrap();
    let before = sim.plan();
    for element in hostile() {
        let start: String = element.chars().take(60).collect();
        for of in [Of::Entity, Of::Credential, Of::Sensor] {
            for at in [0, 1, 3] {
                let good = sim.world.accounts[&ACCOUNT].clone();
                let lists = sim.world.lists(ACCOUNT);
                let list = match of {
                    Of::Entity => &mut lists.entities,
                    Of::Credential => &mut lists.credentials,
                    Of::Sensor => &mut lists.sensors,
                };
                list.insert(at, element.clone());
                let failed = sim.refresh_now().unwrap().failed_accounts;
                assert!(failed <= 1);
                let after = sim.plan();
                assert_eq!(after[3..], before[3..], "the other account, after {start:?}");
                if failed == 1 {
                    assert_eq!(after[..3], before[..3], "{of:?} {start:?}");
                } else {
                    // At most the one whose id the element has taken is another one.
                    assert!(after.len() >= 5, "{of:?} {start:?}");
                }
                sim.world.accounts.insert(ACCOUNT, good);
                sim.refresh_now().unwrap();
                assert_eq!(sim.plan(), before, "after {of:?} {start:?}");
            }
        }
    }
}

#[test]
fn hostile_bodies_fail_their_account_or_the_refresh_and_change_nothing() {
    use grafolean_core::api::Resource::{Accounts, Credentials, Entities, Sensors};
    let mut sim = host(three());
    sim.refresh().unwrap();
    let before = sim.plan();
    for body in hostile() {
        for resource in [Accounts, Entities(ACCOUNT), Credentials(ACCOUNT), Sensors(ACCOUNT)] {
            let bytes = body.clone().into_bytes();
            sim.world.rule = Some(Box::new(move |_, a| (a.resource == resource).then(|| ok(bytes.clone()))));
            match sim.refresh_now() {
                Ok(summary) => assert_eq!(summary.failed_accounts, 1),
                Err(error) => assert_eq!(resource, Accounts, "{error}"),
            }
            assert_eq!(sim.plan(), before);
        }
    }
    // Bytes that are no UTF-8.
    let broken = list(&["{\"id\":1,\"name\":\"x\"}".into()]).replace('x', "\u{80}").into_bytes();
    let broken: Vec<u8> = broken.into_iter().filter(|b| *b != 0xc2).collect();
    sim.world.rule =
        Some(Box::new(move |_, a| (a.resource == Entities(ACCOUNT)).then(|| ok(broken.clone()))));
    assert_eq!(sim.refresh_now().unwrap().failed_accounts, 1);
    assert_eq!(sim.plan(), before);
}

#[test]
fn whole_refreshes_of_mutated_bodies_never_panic_and_a_good_one_repairs_all() {
    let seed = seed("GRAFOLEAN_REFRESH_SEED", 1);
    let mut random = SplitMix64::new(seed);
    let pieces: Vec<String> = hostile().into_iter().filter(|h| h.len() < 200).collect();
    let mut sim = host(three());
    sim.world.accounts.insert(8, large().accounts.remove(&ACCOUNT).unwrap());
    sim.world.lists(8).entities.truncate(12);
    let good = sim.world.accounts.clone();
    sim.refresh().unwrap();
    let before = sim.plan();
    for round in 0..1_500u64 {
        let mut mutate = SplitMix64::new(random.next_u64());
        let pieces = pieces.clone();
        sim.chunk = 1 + mutate.below(300) as usize;
        let accounts = good.clone();
        sim.world.rule = Some(Box::new(move |_, a| {
            use grafolean_core::api::Resource::{Accounts, Credentials, Entities, Sensors};
            let lists = |a| accounts.get(&a).cloned().unwrap_or_default();
            let mut body = match a.resource {
                Accounts => list(&["{\"id\":7}".into(), "{\"id\":8}".into()]),
                Entities(a) => list(&lists(a).entities),
                Credentials(a) => list(&lists(a).credentials),
                Sensors(a) => list(&lists(a).sensors),
                _ => return None,
            }
            .into_bytes();
            for _ in 0..mutate.below(4) {
                if body.is_empty() {
                    break;
                }
                let at = mutate.below(body.len() as u32) as usize;
                match mutate.below(6) {
                    0 => body[at] = mutate.below(256) as u8,
                    1 => body[at] = b"{}[]\",:0-\\"[mutate.below(10) as usize],
                    2 => drop(body.drain(at..(at + mutate.below(40) as usize).min(body.len()))),
                    3 => {
                        let piece = &pieces[mutate.below(pieces.len() as u32) as usize];
                        drop(body.splice(at..at, piece.bytes()));
                    }
                    4 => {
                        let to = (at + mutate.below(200) as usize).min(body.len());
                        let copy = body[at..to].to_vec();
                        drop(body.splice(to..to, copy));
                    }
                    _ => {
                        // A value takes the place of another.
                        let digits = body.iter().skip(at).position(u8::is_ascii_digit).map(|i| at + i);
                        if let Some(digit) = digits {
                            body[digit] = b'0' + mutate.below(10) as u8;
                        }
                    }
                }
            }
            Some(if mutate.below(20) == 0 { Reply::Breaks(body) } else { ok(body) })
        }));
        let last = sim.plan();
        if sim.refresh_now().is_err() {
            assert_eq!(sim.plan(), last, "round {round}");
        }
        sim.events.clear();
        sim.log.clear();
        sim.asked.clear();
        if round % 50 == 49 {
            sim.world.rule = None;
            sim.now = sim.now.saturating_add(1_000);
            let summary = sim.refresh_now().unwrap();
            assert_eq!((summary.faults, summary.failed_accounts), (0, 0), "round {round}");
            assert_eq!(sim.plan().len(), before.len(), "round {round}");
            let strip = |plan: &[String]| -> Vec<String> {
                plan.iter()
                    .map(|p| p.split_once(" Some((").map_or(p.clone(), |(_, rest)| rest.to_owned()))
                    .collect()
            };
            assert_eq!(strip(&sim.plan()), strip(&before), "round {round}");
        }
    }
    assert!(sim.now > Millis(0));
}
