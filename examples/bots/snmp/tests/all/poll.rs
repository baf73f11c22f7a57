//! Polling, against simulated agents with the bad habits of real ones.

use std::collections::BTreeMap;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::agent::{Agent, Owned, UPTIME};
use grafolean_bot_snmp::poll::{
    Access, Name, PollFault, PollSettings, Poller, ReadFault, Walk, Wanted, When,
};
use grafolean_snmp_codec::{Oid, PduKind, Value, Version};
use proptest::prelude::*;

/// The agents answer at once.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("it waits"),
    }
}

fn poller(agent: &Agent, version: Version) -> Poller<'_, Agent, 1472> {
    let access = Access::Community { version, community: b"public" };
    Poller::new(agent, (), access, PollSettings { max_rows: 5_000, ..PollSettings::DEFAULT })
}

#[derive(Default)]
struct List {
    names: Vec<String>,
    got: BTreeMap<usize, Result<String, ReadFault>>,
    times: Vec<Option<u32>>,
}

impl List {
    fn of(names: impl IntoIterator<Item = String>) -> Self {
        List { names: names.into_iter().collect(), ..List::default() }
    }

    /// Numbers and faults, in the order of the names.
    fn all(&self) -> Vec<Result<String, ReadFault>> {
        assert_eq!(self.got.len(), self.names.len(), "each is told");
        self.got.values().cloned().collect()
    }
}

impl Wanted for List {
    fn count(&self) -> usize {
        self.names.len()
    }
    fn name(&self, at: usize) -> Option<Name> {
        self.names[at].parse().ok()
    }
    fn take(&mut self, at: usize, when: When, read: Result<Value<'_>, ReadFault>) {
        let before = self.got.insert(at, read.map(|value| format!("{value:?}")));
        assert_eq!(before, None, "each is told once");
        self.times.push(when.uptime_cs);
    }
}

fn get(agent: &Agent, version: Version, list: &mut List) -> Result<(), PollFault> {
    now(poller(agent, version).get(list))
}

fn row(n: u32) -> String {
    format!("1.3.6.1.4.1.9.1.{n}")
}

const COLUMN: &str = "1.3.6.1.4.1.9.1";

/// An agent with so many rows of numbers.
fn table(rows: u32) -> Agent {
    let agent = Agent::new(None);
    (1..=rows).for_each(|n| agent.set(&row(n), Owned::Integer(n as i32)));
    agent
}

/// All rows of a walk, and how it ended.
fn walk(agent: &Agent, version: Version) -> (Vec<u32>, Result<(), PollFault>) {
    let mut poller = poller(agent, version);
    let mut walk = Walk::new(&COLUMN.parse::<Oid>().unwrap()).unwrap();
    let mut rows = Vec::new();
    let result = loop {
        match now(poller.next_rows(&mut walk)) {
            Ok(Some(batch)) => {
                rows.extend(
                    batch.iter().map(|bind| bind.oid.suffix_of(walk.column()).unwrap().last().unwrap()),
                );
            }
            Ok(None) => break Ok(()),
            Err(fault) => break Err(fault),
        }
    };
    assert!(matches!(now(poller.next_rows(&mut walk)), Ok(None)), "a walk that has ended stays so");
    (rows, result)
}

#[test]
fn all_names_go_into_one_request_with_sysuptime() {
    let agent = table(30);
    let mut list = List::of((1..=30).map(row));
    get(&agent, Version::V2c, &mut list).unwrap();
    let expected: Vec<_> = (1..=30).map(|n| Ok(format!("Integer({n})"))).collect();
    assert_eq!(list.all(), expected);
    assert_eq!(list.times, [Some(1_000_000); 30]);
    let asked = agent.asked(PduKind::Get);
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0][0], UPTIME);
}

#[test]
fn what_is_too_big_is_halved_until_it_fits_and_a_single_one_that_never_does_is_told() {
    let agent = table(40);
    agent.set(&row(17), Owned::Bytes(vec![b'x'; 400]));
    agent.state().max_answer_bytes = 200;
    let mut list = List::of((1..=40).map(row));
    get(&agent, Version::V2c, &mut list).unwrap();
    for (at, read) in list.all().into_iter().enumerate() {
        let expected = if at == 16 { Err(ReadFault::TooBig) } else { Ok(format!("Integer({})", at + 1)) };
        assert_eq!(read, expected);
    }
    assert!(agent.asked(PduKind::Get).len() < 60, "{}", agent.asked(PduKind::Get).len());
}

#[test]
fn a_name_that_snmpv1_says_is_missing_costs_only_itself() {
    let agent = table(20);
    for n in [1, 5, 6, 20] {
        agent.remove(&row(n));
    }
    for version in [Version::V1, Version::V2c] {
        for has_uptime in [true, false] {
            if !has_uptime {
                agent.remove(UPTIME);
            } else {
                agent.set(UPTIME, Owned::Ticks(0));
            }
            let mut list = List::of((1..=20).map(row));
            get(&agent, version, &mut list).unwrap();
            for (at, read) in list.all().into_iter().enumerate() {
                let missing = [0, 4, 5, 19].contains(&at);
                let expected =
                    if missing { Err(ReadFault::Absent) } else { Ok(format!("Integer({})", at + 1)) };
                assert_eq!(read, expected, "{version:?} {at}");
            }
            assert!(
                list.times.iter().flatten().count()
                    == if has_uptime { 16 + 4 * usize::from(version == Version::V2c) } else { 0 }
            );
        }
    }
}

#[test]
fn a_request_is_repeated_with_its_number_and_longer_time_outs_then_given_up() {
    let agent = table(1);
    agent.state().lost = 2;
    get(&agent, Version::V2c, &mut List::of([row(1)])).unwrap();
    agent.state().lost = 3;
    let fault = get(&agent, Version::V2c, &mut List::of([row(1)])).unwrap_err();
    assert_eq!(fault, PollFault::NoAnswer { tries: 3 });
    assert!(fault.is_of_agent());
    let log: Vec<(i32, u32)> = agent.state().log.iter().map(|(_, id, _, ms)| (*id, *ms)).collect();
    assert_eq!(log, [(1, 1000), (1, 2000), (1, 3000), (2, 1000), (2, 2000), (2, 3000)]);
}

#[test]
fn a_walk_gives_all_rows_by_few_requests_where_there_is_getbulk() {
    for (version, kind) in [(Version::V2c, PduKind::GetBulk), (Version::V1, PduKind::GetNext)] {
        for last in [true, false] {
            let agent = table(1000);
            if !last {
                agent.set("1.3.6.1.4.1.9.2.1", Owned::Integer(0));
            }
            let (rows, result) = walk(&agent, version);
            assert_eq!((rows, result), ((1..=1000).collect(), Ok(())));
            let requests = agent.asked(kind).len();
            match version {
                Version::V1 => assert_eq!(requests, 1001),
                _ => assert!(requests <= 25, "{requests}"),
            }
        }
    }
}

#[test]
fn a_walk_asks_for_fewer_rows_after_too_big_or_a_time_out() {
    let agent = table(300);
    (agent.state().truncates, agent.state().max_answer_bytes) = (false, 300);
    assert_eq!(walk(&agent, Version::V2c), ((1..=300).collect(), Ok(())));

    let agent = table(300);
    agent.state().silent_above = 12;
    assert_eq!(walk(&agent, Version::V2c), ((1..=300).collect(), Ok(())));
    // Half as many on the second try, and no more from then on.
    let lost = agent.state().log.windows(2).filter(|pair| pair[0].1 == pair[1].1).count();
    assert!(lost <= 3, "{lost}");
}

#[test]
fn an_agent_without_getbulk_is_walked_by_getnext_from_then_on() {
    for has_error in [true, false] {
        let agent = table(20);
        agent.state().no_bulk = has_error;
        agent.state().silent_above = 0;
        let mut poller = poller(&agent, Version::V2c);
        for _ in 0..2 {
            let mut walk = Walk::new(&COLUMN.parse::<Oid>().unwrap()).unwrap();
            let mut rows = 0;
            while let Some(batch) = now(poller.next_rows(&mut walk)).unwrap() {
                rows += batch.iter().count();
            }
            assert_eq!(rows, 20);
        }
        assert_eq!(agent.asked(PduKind::GetBulk).len(), if has_error { 1 } else { 3 });
        assert_eq!(agent.asked(PduKind::GetNext).len(), 2 * 21);
    }
    // One that answers nothing is asked once more only.
    let silent = table(20);
    silent.state().lost = u32::MAX;
    assert_eq!(walk(&silent, Version::V2c), (vec![], Err(PollFault::NoAnswer { tries: 4 })));
    assert_eq!(silent.asked(PduKind::GetNext).len(), 1);
    // One whose GETBULK has been answered is not asked otherwise.
    let gone = table(300);
    let mut poller = poller(&gone, Version::V2c);
    let mut walk = Walk::new(&COLUMN.parse::<Oid>().unwrap()).unwrap();
    now(poller.next_rows(&mut walk)).unwrap();
    gone.state().lost = u32::MAX;
    assert_eq!(now(poller.next_rows(&mut walk)).err(), Some(PollFault::NoAnswer { tries: 3 }));
    assert_eq!(gone.asked(PduKind::GetNext).len(), 0);
}

#[test]
fn an_agent_that_gives_the_same_name_for_ever_or_goes_in_circles_is_left() {
    for version in [Version::V1, Version::V2c] {
        let same = table(50);
        same.state().next.insert(row(50), row(50));
        assert_eq!(walk(&same, version), ((1..=50).collect(), Err(PollFault::Endless)));

        let again = table(50);
        again.state().next.insert(row(50), row(1));
        assert_eq!(walk(&again, version), ((1..=50).collect(), Err(PollFault::Endless)));

        // Into the middle: seen at the latest after three times the rows.
        let middle = table(50);
        middle.state().next.insert(row(50), row(33));
        let (rows, result) = walk(&middle, version);
        assert_eq!(result, Err(PollFault::Endless));
        assert!(rows.len() <= 150, "{}", rows.len());
    }
}

#[test]
fn a_table_without_end_is_cut_at_the_limit() {
    let agent = table(5_001);
    let (rows, result) = walk(&agent, Version::V2c);
    assert_eq!((rows.len(), result), (5_000, Err(PollFault::TooManyRows { limit: 5_000 })));
}

#[test]
fn nothing_below_the_column_is_the_end_not_a_fault() {
    for version in [Version::V1, Version::V2c] {
        assert_eq!(walk(&Agent::new(None), version), (vec![], Ok(())));
    }
}

proptest! {
    #[test]
    fn tables_in_any_order_that_end_are_read_whole(order in Just((1..=60u32).collect::<Vec<_>>()).prop_shuffle(), v1: bool) {
        let agent = table(60);
        agent.set("1.3.6.1.4.1.9.2.1", Owned::Integer(0));
        let mut before = COLUMN.to_string();
        for n in &order {
            agent.state().next.insert(before, row(*n));
            before = row(*n);
        }
        agent.state().next.insert(before, "1.3.6.1.4.1.9.2.1".to_string());
        let version = if v1 { Version::V1 } else { Version::V2c };
        prop_assert_eq!(walk(&agent, version), (order, Ok(())));
    }

    #[test]
    fn each_name_is_told_once_whatever_the_agent_lacks_or_finds_too_big(
        there in prop::collection::vec(any::<bool>(), 0..150),
        max_answer_bytes in 60usize..1500,
        v1: bool,
    ) {
        let agent = table(150);
        for (at, there) in there.iter().enumerate() {
            if !there {
                agent.remove(&row(at as u32 + 1));
            }
        }
        agent.state().max_answer_bytes = max_answer_bytes;
        let mut list = List::of((1..=there.len() as u32).map(row));
        let version = if v1 { Version::V1 } else { Version::V2c };
        get(&agent, version, &mut list).unwrap();
        for (read, there) in list.all().into_iter().zip(&there) {
            prop_assert_eq!(read.is_ok(), *there, "{:?}", read);
        }
        prop_assert!(agent.asked(PduKind::Get).len() <= 2 * there.len() + 16);
    }
}
