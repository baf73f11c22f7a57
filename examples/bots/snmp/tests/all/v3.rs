//! SNMPv3 against a simulated agent: answers of strangers, and an engine that has become another one.
#![cfg(all(feature = "std", feature = "v3"))]

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use grafolean_bot_snmp::SnmpBot;
use grafolean_bot_snmp::memory::HostMemory;
use grafolean_bot_snmp::network::{Network, NetworkFault};
use grafolean_bot_snmp::poll::{Access, Name, PollSettings, Poller, ReadFault, Wanted, When};
use grafolean_core::device::Host;
use grafolean_core::time::Millis;
use grafolean_snmp_codec::v3::{AuthProtocol, Engine, EngineId, LocalizedKeys, RequestParams, Security};
use grafolean_snmp_codec::{ErrorStatus, Oid, PduHeader, RequestTag, Value};
use grafolean_test::{Device, Lab, Outcome};
use serde_json::json;

const UPTIME: &str = "1.3.6.1.2.1.1.3.0";
const UNKNOWN_ENGINE: &str = "1.3.6.1.6.3.15.1.1.4.0";

/// What the agent is like, and how often it was asked.
struct State {
    engine: &'static [u8],
    auth: bool,
    /// So many answers are preceded by a forged one.
    forged: u32,
    requests: u32,
    random: u32,
}

#[derive(Clone)]
struct Agent(Arc<Mutex<State>>);

impl Agent {
    fn new(auth: bool) -> Self {
        let state = State { engine: b"\x80\0first", auth, forged: 0, requests: 0, random: 0 };
        Agent(Arc::new(Mutex::new(state)))
    }
}

fn keys(engine: &EngineId, auth: bool, byte: u8) -> LocalizedKeys {
    let key = [byte; 32];
    LocalizedKeys::from_keys(*engine, auth.then_some((AuthProtocol::Sha256, &key[..])), None).unwrap()
}

fn message(
    id: &EngineId,
    keys: &LocalizedKeys,
    number: i32,
    header: PduHeader,
    value: (&str, Value<'_>),
) -> Vec<u8> {
    let mut buffer = [0; 1472];
    let engine = Engine { boots: 1, time_s: 1000, learned_at_ms: 0, is_verified: true, ..Engine::new(*id) };
    let security = Security::new(b"reader", keys).unwrap();
    let params = RequestParams::new(number, header, 0, 1);
    let mut writer = security.encode_request(&mut buffer, &engine, params).unwrap();
    // Twice: the bot adds sysUpTime to what it asks for.
    (0..2).for_each(|_| writer.push(&value.0.parse::<Oid>().unwrap(), value.1).unwrap());
    writer.finish().unwrap().to_vec()
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
        _: u32,
    ) -> Result<Option<Vec<u8>>, NetworkFault> {
        let mut state = self.0.lock().unwrap();
        state.requests += 1;
        let RequestTag::MessageId(number) = tag else { panic!("{tag:?}") };
        let id = EngineId::new(state.engine).unwrap();
        if !request.windows(state.engine.len()).any(|bytes| bytes == state.engine) {
            let told = (UNKNOWN_ENGINE, Value::Counter32(1));
            return Ok(Some(message(&id, &keys(&id, false, 0), number, PduHeader::report(0), told)));
        }
        let byte = if state.forged > 0 { 66 } else { 1 };
        state.forged = state.forged.saturating_sub(1);
        // The bot's requests have one number for both.
        let header = PduHeader::response(number, ErrorStatus::NoError, 0);
        Ok(Some(message(
            &id,
            &keys(&id, state.auth, byte),
            number,
            header,
            (UPTIME, Value::TimeTicks(4_200)),
        )))
    }

    fn random(&self) -> u32 {
        let mut state = self.0.lock().unwrap();
        state.random += 1;
        state.random
    }

    fn life(&self) -> u32 {
        1
    }

    fn now(&self) -> Millis {
        Millis(0)
    }
}

/// sysUpTime, which the agent answers with.
#[derive(Default)]
struct Uptime(Vec<Option<u32>>);

impl Wanted for Uptime {
    fn count(&self) -> usize {
        1
    }
    fn name(&self, _: usize) -> Option<Name> {
        "1.3.6.1.1.1.0".parse().ok()
    }
    fn take(&mut self, _: usize, when: When, _: Result<Value<'_>, ReadFault>) {
        self.0.push(when.uptime_cs);
    }
}

#[test]
fn forged_answers_do_not_end_the_wait_for_the_right_one() {
    let agent = Agent::new(true);
    agent.0.lock().unwrap().forged = 2;
    let id = EngineId::new(b"\x80\0first").unwrap();
    let keys = keys(&id, true, 1);
    let engine = Cell::new(Engine::new(id));
    let access = Access::User { name: b"reader", keys: &keys, engine: &engine };
    let mut poller = Poller::<_, 1472>::new(&agent, (), access, PollSettings::DEFAULT);
    let mut read = Uptime::default();
    // It answers at once.
    {
        let mut get = pin!(poller.get(&mut read));
        let polled = get.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(polled, Poll::Ready(Ok(())));
    }
    assert_eq!(read.0, [Some(4_200)]);
    assert_eq!(agent.0.lock().unwrap().requests, 3);
}

#[test]
fn an_agent_whose_engine_has_become_another_one_is_discovered_anew_within_the_run() {
    let mut lab = Lab::new(
        SnmpBot::<_, _, 64, 96, 256, 4, 24, 1472>::new(Agent::new(false), HostMemory::default())
            .with_interfaces(false),
    );
    let credential =
        json!({"version": "snmpv3", "snmpv3_securityName": "reader", "snmpv3_securityLevel": "noAuthNoPriv"});
    let sensor =
        json!({"oids": [{"oid": UPTIME, "fetch_method": "get"}], "expression": "$1", "output_path": "up"});
    lab.add(Device::new(5).details(json!({"ipv4": "192.0.2.1"})).credential(credential).sensor(sensor, 60));
    lab.refresh();
    let engines: [&'static [u8]; 3] = [b"\x80\0first", b"\x80\0second", b"\x80\0third"];
    for engine in engines {
        lab.bot().network().0.lock().unwrap().engine = engine;
        for _ in 0..2 {
            let before = lab.bot().network().0.lock().unwrap().requests;
            assert_eq!(lab.next_run_of("").outcome, Outcome::Done);
            assert!(lab.bot().network().0.lock().unwrap().requests - before <= 3);
        }
    }
    assert_eq!(lab.take_handed_over(), ["entity.5.snmp.up=4200"; 6]);
}
