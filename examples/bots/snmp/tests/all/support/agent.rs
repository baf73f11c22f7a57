//! A simulated agent, with the bad habits of real ones, on simulated time.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use grafolean_bot_snmp::network::{Network, NetworkFault};
use grafolean_core::device::Host;
use grafolean_core::time::Millis;
use grafolean_snmp_codec::{
    ErrorStatus, Message, MessageWriter, Oid, PduHeader, PduKind, RequestTag, Value, Version, request_tag,
};
use grafolean_test::Clock;

/// A value that owns its bytes.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Owned {
    Integer(i32),
    Text(&'static str),
    Bytes(Vec<u8>),
    Counter32(u32),
    Counter64(u64),
    Gauge(u32),
    Ticks(u32),
}

impl Owned {
    fn value(&self) -> Value<'_> {
        match self {
            Owned::Integer(n) => Value::Integer(*n),
            Owned::Text(text) => Value::OctetString(text.as_bytes()),
            Owned::Bytes(bytes) => Value::OctetString(bytes),
            Owned::Counter32(n) => Value::Counter32(*n),
            Owned::Counter64(n) => Value::Counter64(*n),
            Owned::Gauge(n) => Value::Unsigned32(*n),
            Owned::Ticks(n) => Value::TimeTicks(*n),
        }
    }
}

/// What an agent has, and how it behaves.
pub(crate) struct State {
    pub(crate) objects: BTreeMap<Oid, Owned>,
    /// What comes after a name, where that is not the next one.
    pub(crate) next: HashMap<String, String>,
    /// Longer answers are "too big"; GETBULK's are truncated to it if `truncates`.
    pub(crate) max_answer_bytes: usize,
    pub(crate) truncates: bool,
    /// Requests that get no answer: the first so many.
    pub(crate) lost: u32,
    /// Answers come after this.
    pub(crate) delay_ms: u32,
    /// GETBULK for more rows than this gets no answer.
    pub(crate) silent_above: u32,
    /// GETBULK is an error.
    pub(crate) no_bulk: bool,
    /// Requests with a name below one of these get no answer.
    pub(crate) silent_below: Vec<&'static str>,
    /// What was asked: kind, number, names, time-out in milliseconds.
    pub(crate) log: Vec<(PduKind, i32, Vec<String>, u32)>,
    random: u32,
    pub(crate) up_since_ms: u64,
    /// sysUpTime begins anew so often; 0: never, and it has been up for long.
    pub(crate) restarts_every_ms: u64,
}

/// An agent, as a network of its own. Clones are the same.
#[derive(Clone)]
pub(crate) struct Agent {
    state: Arc<Mutex<State>>,
    clock: Option<Clock>,
}

pub(crate) const UPTIME: &str = "1.3.6.1.2.1.1.3.0";

impl Agent {
    pub(crate) fn new(clock: Option<&Clock>) -> Self {
        let state = State {
            objects: BTreeMap::new(),
            next: HashMap::new(),
            max_answer_bytes: 1472,
            truncates: true,
            lost: 0,
            delay_ms: 5,
            silent_above: u32::MAX,
            no_bulk: false,
            silent_below: Vec::new(),
            log: Vec::new(),
            random: 0,
            up_since_ms: 0,
            restarts_every_ms: 0,
        };
        let agent = Agent { state: Arc::new(Mutex::new(state)), clock: clock.cloned() };
        agent.set(UPTIME, Owned::Ticks(0));
        agent
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn set(&self, name: &str, value: Owned) {
        self.state().objects.insert(name.parse().unwrap(), value);
    }

    pub(crate) fn remove(&self, name: &str) {
        self.state().objects.remove(&name.parse::<Oid>().unwrap());
    }

    /// Names asked for, by requests of this kind.
    pub(crate) fn asked(&self, kind: PduKind) -> Vec<Vec<String>> {
        self.state().log.iter().filter(|(k, ..)| *k == kind).map(|(_, _, names, _)| names.clone()).collect()
    }

    fn now_ms(&self) -> u64 {
        self.clock.as_ref().map_or(0, Clock::now_ms)
    }

    fn answer(&self, request: &[u8], timeout_ms: u32) -> Option<Vec<u8>> {
        let message = Message::decode(request).unwrap();
        let header = message.pdu.header;
        let names: Vec<Oid> = message.pdu.var_binds.map(|v| Oid::try_from(v.unwrap().oid).unwrap()).collect();
        let ticks = (self.now_ms() - self.state().up_since_ms) / 10;
        let mut state = self.state();
        let uptime: Oid = UPTIME.parse().unwrap();
        if state.objects.contains_key(&uptime) {
            let restarted = (self.now_ms() / 10).checked_rem(state.restarts_every_ms / 10);
            let ticks = restarted.unwrap_or(ticks + 1_000_000);
            state.objects.insert(uptime, Owned::Ticks(ticks as u32));
        }
        state.log.push((
            header.kind(),
            header.request_id(),
            names.iter().map(Oid::to_string).collect(),
            timeout_ms,
        ));
        if state.lost > 0 {
            state.lost -= 1;
            return None;
        }
        let below =
            |name: &Oid| state.silent_below.iter().any(|top| name.starts_with(&top.parse::<Oid>().unwrap()));
        if names.iter().any(below) {
            return None;
        }
        let v1 = message.version == Version::V1;
        let id = header.request_id();
        let error = |status, index| {
            let header = PduHeader::response(id, status, index);
            write(
                message.version,
                header,
                &names.iter().map(|n| (n.clone(), None)).collect::<Vec<_>>(),
                usize::MAX,
            )
            .unwrap()
        };
        let mut found: Vec<(Oid, Option<Owned>)> = Vec::new();
        match header.kind() {
            PduKind::Get => {
                for (nth, name) in names.iter().enumerate() {
                    let value = state.objects.get(name).cloned();
                    if value.is_none() && v1 {
                        return Some(error(ErrorStatus::NoSuchName, nth as u32 + 1));
                    }
                    found.push((name.clone(), value));
                }
            }
            PduKind::GetNext => {
                for (nth, name) in names.iter().enumerate() {
                    match state.after(name) {
                        Some((name, value)) => found.push((name, Some(value))),
                        None if v1 => return Some(error(ErrorStatus::NoSuchName, nth as u32 + 1)),
                        None => found.push((name.clone(), None)),
                    }
                }
            }
            _ => {
                let rows = header.max_repetitions();
                if state.no_bulk {
                    return Some(error(ErrorStatus::GenErr, 0));
                }
                if rows > state.silent_above {
                    return None;
                }
                let once = header.non_repeaters() as usize;
                for name in names.iter().take(once) {
                    found.push(state.after(name).map_or((name.clone(), None), |(n, v)| (n, Some(v))));
                }
                let mut at: Vec<Oid> = names.iter().skip(once).cloned().collect();
                for _ in 0..rows {
                    for name in &mut at {
                        match state.after(name) {
                            Some((next, value)) => {
                                *name = next;
                                found.push((name.clone(), Some(value)));
                            }
                            None => found.push((name.clone(), None)),
                        }
                    }
                }
            }
        }
        let response = PduHeader::response(id, ErrorStatus::NoError, 0);
        let ends = header.kind() != PduKind::Get;
        loop {
            let binds: Vec<_> = found.clone();
            match write_found(message.version, response, &binds, state.max_answer_bytes, ends) {
                Some(bytes) => return Some(bytes),
                None if header.kind() == PduKind::GetBulk && state.truncates && found.len() > 1 => {
                    found.pop();
                }
                None => return Some(error(ErrorStatus::TooBig, 0)),
            }
        }
    }
}

impl State {
    fn after(&self, name: &Oid) -> Option<(Oid, Owned)> {
        if let Some(next) = self.next.get(&name.to_string()) {
            let next: Oid = next.parse().unwrap();
            let value = self.objects.get(&next)?.clone();
            return Some((next, value));
        }
        let after = (std::ops::Bound::Excluded(name.clone()), std::ops::Bound::Unbounded);
        self.objects.range(after).next().map(|(name, value)| (name.clone(), value.clone()))
    }
}

fn write(version: Version, header: PduHeader, binds: &[(Oid, Option<Owned>)], max: usize) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 65_535];
    let mut writer = MessageWriter::new(&mut buffer, version, b"public", header).unwrap();
    for (name, value) in binds {
        writer.push(name, value.as_ref().map_or(Value::Null, Owned::value)).unwrap();
    }
    Some(writer.finish().unwrap().to_vec()).filter(|bytes| bytes.len() <= max)
}

fn write_found(
    version: Version,
    header: PduHeader,
    binds: &[(Oid, Option<Owned>)],
    max: usize,
    ends: bool,
) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 65_535];
    let mut writer = MessageWriter::new(&mut buffer, version, b"public", header).unwrap();
    for (name, value) in binds {
        let missing = if ends { Value::EndOfMibView } else { Value::NoSuchInstance };
        writer.push(name, value.as_ref().map_or(missing, Owned::value)).unwrap();
    }
    Some(writer.finish().unwrap().to_vec()).filter(|bytes| bytes.len() <= max)
}

impl Network for Agent {
    type Target = ();
    type Datagram = Vec<u8>;

    async fn resolve(&self, _: Host<'_>, _: u16) -> Result<(), NetworkFault> {
        Ok(())
    }

    async fn exchange(
        &self,
        (): (),
        request: &[u8],
        tag: RequestTag,
        timeout_ms: u32,
    ) -> Result<Option<Vec<u8>>, NetworkFault> {
        assert_eq!(request_tag(request), Some(tag));
        let answer = self.answer(request, timeout_ms);
        let delay_ms = self.state().delay_ms;
        if let Some(clock) = &self.clock {
            clock.sleep_ms(if answer.is_some() { delay_ms.min(timeout_ms) } else { timeout_ms }).await;
        }
        Ok(answer.filter(|_| delay_ms <= timeout_ms))
    }

    fn random(&self) -> u32 {
        let mut state = self.state();
        state.random += 1;
        state.random
    }

    fn life(&self) -> u32 {
        1
    }

    fn now(&self) -> Millis {
        Millis(self.now_ms())
    }
}
