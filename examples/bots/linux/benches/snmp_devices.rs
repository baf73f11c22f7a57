//! The SNMP bot as a process, with thousands of devices: `cargo bench -p grafolean-bots --bench snmp_devices` prints what it costs,
//! and fails if a value was missed or is wrong.
//!
//! ```sh
//! cargo bench -p grafolean-bots --bench snmp_devices -- --scenario gets --devices 10000 --minutes 3
//! cargo bench -p grafolean-bots --bench snmp_devices -- --scenario tables --devices 1000 --minutes 6
//! ```
//!
//! | argument | |
//! | --- | --- |
//! | `--scenario gets` | 10 sensors of one `get` each, every 60 s: 5 counters and 5 gauges (the default, with 10,000 devices) |
//! | `--scenario tables` | a `get`, and 2 sensors that each walk ifDescr and read a counter for each of 48 ports (1,000 devices) |
//! | `--devices N` | up to 20,000, each at an address of its own in 127.0.0.0/8 |
//! | `--minutes M` | minutes that are measured, after a first one in which all have their first runs (3) |
//! | `--interfaces yes` | the bot keeps entities for interfaces (`no` unless this is said) |
//! | `--known yes` | the backend has these entities from the start |
//! | `--under COMMAND` | starts the bot under it, as `--under "valgrind --tool=callgrind"` |
//! | `--log FILE` | what the bot said (standard error unless it ended well) |
//!
//! # What there is
//! The devices are one more process, which answers on a port of all of 127.0.0.0/8 from the address that was asked. What a
//! device counts follows from its address and the time, so that each rate that arrives is known beforehand: sysUpTime of some
//! wraps meanwhile, and so do counters. The backend is the stand-in. Linux only.
//!
//! # What is asserted
//! For each device, sensor (and port) and minute there is a value, of counters from the second reading on; each rate is
//! exactly the device's, each gauge one that the device has shown; nothing failed, was cut or coalesced. A machine so busy that runs come 20 s
//! late fails it.
//!
//! # What is printed
//! Lateness is from the instant of a job's grid to the arrival of the run's first request at the device, by the kernel's time
//! stamp. CPU seconds are the bot's, of user and system, by `/proc`; they depend on what else the machine does. Instructions, by
//! `--under`, do not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // what fails here is the end of it

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{BufRead, BufReader, IoSlice, IoSliceMut, Read, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use grafolean_snmp_codec::{
    ErrorStatus, Message, MessageWriter, Oid, OidRef, PduHeader, PduKind, Value, Version,
};
use grafolean_stand_in::{Config, StandIn};
use grafolean_std::core::jobs::JobKey;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt, sockopt,
};
use nix::sys::time::TimeSpec;
use serde_json::json;

const TOKEN: &str = "55555555-5555-4555-8555-555555555555";
const BOT: &str = env!("CARGO_BIN_EXE_grafolean-snmp-bot");
const ACCOUNT: i32 = 1;
/// Entities of devices begin here, those of their interfaces at [`FIRST_INTERFACE`].
const FIRST_DEVICE: u32 = 1_000;
const FIRST_INTERFACE: u32 = 1_000_000;
const MAX_DEVICES: u32 = 20_000;
const PORTS: u32 = 48;
const INTERVAL_S: u64 = 60;
const INTERVAL_US: u64 = INTERVAL_S * 1_000_000;
/// What is due within the time measured is waited for so long.
const GRACE: Duration = Duration::from_secs(20);
/// Clocks are corrected meanwhile by no more than this.
const CLOCKS_US: u64 = 1_000_000;
/// Ticks of `/proc/PID/stat` in a second.
const USER_HZ: f64 = 100.0;

const UPTIME: &str = "1.3.6.1.2.1.1.3.0";
const IF_DESCR: &str = "1.3.6.1.2.1.2.2.1.2";
const IF_SPEED: &str = "1.3.6.1.2.1.2.2.1.5";
const IF_IN: &str = "1.3.6.1.2.1.31.1.1.1.6";
const IF_OUT: &str = "1.3.6.1.2.1.31.1.1.1.10";
const IF_HIGH_SPEED: &str = "1.3.6.1.2.1.31.1.1.1.15";
/// Scalars that are numbers: ssCpuRawUser's neighbours and the like, as their instances.
const COUNTERS_32: [&str; 3] = ["1.3.6.1.2.1.4.3.0", "1.3.6.1.2.1.4.10.0", "1.3.6.1.2.1.6.10.0"];
const COUNTERS_64: [&str; 2] = ["1.3.6.1.2.1.4.31.1.1.4.1", "1.3.6.1.2.1.4.31.1.1.6.1"];
const GAUGES: [&str; 5] = [
    "1.3.6.1.2.1.25.1.5.0",
    "1.3.6.1.2.1.25.1.6.0",
    "1.3.6.1.4.1.2021.4.6.0",
    "1.3.6.1.4.1.2021.10.1.5.1",
    "1.3.6.1.4.1.2021.11.11.0",
];

// ---- what the devices show ----

/// SplitMix64's last step: spreads.
const fn mixed(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ n >> 31
}

/// The address of the `n`-th device.
fn address(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x7f01_0000 + n)
}

fn device_at(address: u32) -> u32 {
    address.wrapping_sub(0x7f01_0000)
}

/// What a counter counts within a hundredth of a second, 1 to 5000.
fn counts_per_cs(device: u32, k: u32) -> u64 {
    1 + mixed(u64::from(device) << 16 | u64::from(k)) % 5_000
}

/// A gauge's value at the beginning; it goes up by one each second.
fn gauge_from(device: u32, k: u32) -> u64 {
    (u64::from(device) * GAUGES.len() as u64 + u64::from(k)) * 20_000
}

/// A device at an instant.
struct Moment {
    device: u32,
    /// Hundredths of a second since it was started, never a whole second: those might be taken for a coarse clock.
    uptime_cs: u64,
    /// Since when it counts: one whose sysUpTime has just wrapped can't be told from one that was just started, so its
    /// counters may not wrap then.
    counts_since_cs: u64,
    passed_s: u64,
}

impl Moment {
    fn new(device: u32, start_us: u64, now_us: u64) -> Self {
        let passed_us = now_us.saturating_sub(start_us);
        let (from_cs, counts_since_cs) = match device % 50 {
            // Its sysUpTime wraps within the first minutes.
            7 => ((1 << 32) - 9_000, (1 << 32) - 9_000),
            _ => (500_000 + mixed(device.into()) % 5_000_000_000, 0),
        };
        let uptime_cs = from_cs + passed_us / 10_000;
        let is_whole = (uptime_cs as u32).is_multiple_of(100);
        let passed_s = passed_us / 1_000_000;
        Moment { device, uptime_cs: uptime_cs + u64::from(is_whole), counts_since_cs, passed_s }
    }

    fn counter(&self, k: u32) -> u64 {
        mixed(u64::from(self.device) << 20 | u64::from(k)) % (1 << 31)
            + counts_per_cs(self.device, k) * (self.uptime_cs - self.counts_since_cs)
    }
}

#[derive(Clone, Copy)]
enum Object {
    Uptime,
    Counter32(u32),
    Counter64(u32),
    Gauge(u32),
    Descr(u32),
    Speed,
    HighSpeed,
}

/// What a counter's number is: of a port's columns.
const fn port_counter(port: u32, is_out: bool) -> u32 {
    100 + 2 * port + is_out as u32
}

fn descr(port: u32) -> String {
    format!("GigabitEthernet1/0/{port}")
}

impl Object {
    /// All that a device has, in its order.
    fn all() -> Vec<(Vec<u32>, Oid, Object)> {
        let mut all = Vec::new();
        let mut add = |name: &str, index: Option<u32>, object| {
            let mut oid: Oid = name.parse().unwrap();
            if let Some(index) = index {
                oid.push(index).unwrap();
            }
            all.push((oid.arcs().collect::<Vec<u32>>(), oid, object));
        };
        add(UPTIME, None, Object::Uptime);
        for (k, name) in (0..).zip(COUNTERS_32) {
            add(name, None, Object::Counter32(k));
        }
        for (k, name) in (10..).zip(COUNTERS_64) {
            add(name, None, Object::Counter64(k));
        }
        for (k, name) in (0..).zip(GAUGES) {
            add(name, None, Object::Gauge(k));
        }
        for port in 1..=PORTS {
            add(IF_DESCR, Some(port), Object::Descr(port));
            add(IF_SPEED, Some(port), Object::Speed);
            add(IF_IN, Some(port), Object::Counter64(port_counter(port, false)));
            add(IF_OUT, Some(port), Object::Counter64(port_counter(port, true)));
            add(IF_HIGH_SPEED, Some(port), Object::HighSpeed);
        }
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    fn value<'t>(self, moment: &Moment, text: &'t mut String) -> Value<'t> {
        match self {
            Object::Uptime => Value::TimeTicks(moment.uptime_cs as u32),
            Object::Counter32(k) => Value::Counter32(moment.counter(k) as u32),
            Object::Counter64(k) => Value::Counter64(moment.counter(k)),
            Object::Gauge(k) => Value::Unsigned32((gauge_from(moment.device, k) + moment.passed_s) as u32),
            Object::Descr(port) => {
                *text = descr(port);
                Value::OctetString(text.as_bytes())
            }
            Object::Speed => Value::Unsigned32(1_000_000_000),
            Object::HighSpeed => Value::Unsigned32(1_000),
        }
    }
}

// ---- the devices' process ----

/// A request as it came to a device.
#[derive(Clone, Copy)]
struct Arrival {
    device: u32,
    unix_us: u64,
    request_id: i32,
    /// It reads the first gauge, which is what each run of the values' job begins with.
    begins_run: bool,
}

impl Arrival {
    const BYTES: usize = 17;

    fn to_bytes(self) -> [u8; Self::BYTES] {
        let parts: [&[u8]; 4] = [
            &self.device.to_le_bytes(),
            &self.unix_us.to_le_bytes(),
            &self.request_id.to_le_bytes(),
            &[u8::from(self.begins_run)],
        ];
        parts.concat().try_into().unwrap()
    }

    fn of_bytes(bytes: &[u8]) -> Self {
        let (device, rest) = bytes.split_first_chunk().unwrap();
        let (unix_us, rest) = rest.split_first_chunk().unwrap();
        let (request_id, rest) = rest.split_first_chunk().unwrap();
        Arrival {
            device: u32::from_le_bytes(*device),
            unix_us: u64::from_le_bytes(*unix_us),
            request_id: i32::from_le_bytes(*request_id),
            begins_run: rest == [1],
        }
    }
}

fn unix_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

/// Tells its port and answers, until its input ends; then tells what came.
fn respond(start_us: u64) {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let sizes = socket2::SockRef::from(&socket);
    sizes.set_recv_buffer_size(8 << 20).unwrap();
    sizes.set_send_buffer_size(2 << 20).unwrap();
    setsockopt(&socket, sockopt::Ipv4PacketInfo, &true).unwrap();
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true).unwrap();
    println!("{}", socket.local_addr().unwrap().port());
    std::io::stdout().flush().unwrap();
    let own = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().send_to(b"", (Ipv4Addr::LOCALHOST, own)).unwrap();
    });
    let objects = Object::all();
    let mut arrivals: Vec<Arrival> = Vec::new();
    let mut buffer = vec![0; 65_535];
    let mut answer = [0; 1_472];
    let mut control = nix::cmsg_space!(nix::libc::in_pktinfo, TimeSpec);
    loop {
        let (len, from, mut asked, mut now_us) = {
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let received =
                recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty());
            // An answer that found nobody.
            let Ok(received) = received else { continue };
            let (mut asked, mut now_us) = (None, None);
            for message in received.cmsgs().unwrap() {
                match message {
                    ControlMessageOwned::Ipv4PacketInfo(info) => asked = Some(info),
                    ControlMessageOwned::ScmTimestampns(time) => {
                        now_us = Some(Duration::from(time).as_micros() as u64);
                    }
                    _ => {}
                }
            }
            (received.bytes, received.address.unwrap(), asked.unwrap(), now_us)
        };
        let unix_us = now_us.take().unwrap_or_else(unix_us);
        if len == 0 {
            break;
        }
        let device = device_at(u32::from_be(asked.ipi_addr.s_addr));
        let moment = Moment::new(device, start_us, unix_us);
        let datagram = buffer.get(..len).unwrap();
        let Some((arrival, answer)) = answer_to(datagram, &objects, &moment, &mut answer) else { continue };
        arrivals.push(Arrival { unix_us, ..arrival });
        asked.ipi_spec_dst = asked.ipi_addr;
        asked.ipi_ifindex = 0;
        let control = [ControlMessage::Ipv4PacketInfo(&asked)];
        // What the kernel has no room for is lost, as on any way.
        let _ =
            sendmsg(socket.as_raw_fd(), &[IoSlice::new(answer)], &control, MsgFlags::empty(), Some(&from));
    }
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for arrival in arrivals {
        out.write_all(&arrival.to_bytes()).unwrap();
    }
    out.flush().unwrap();
}

/// The device's answer, in `buffer`; `None` to what is no request.
fn answer_to<'b>(
    datagram: &[u8],
    objects: &[(Vec<u32>, Oid, Object)],
    moment: &Moment,
    buffer: &'b mut [u8],
) -> Option<(Arrival, &'b [u8])> {
    let message = Message::decode(datagram).ok()?;
    let header = message.pdu.header;
    let request_id = header.request_id();
    let response = PduHeader::response(request_id, ErrorStatus::NoError, 0);
    let mut writer = MessageWriter::new(buffer, Version::V2c, message.community.as_bytes(), response).ok()?;
    let mut begins_run = false;
    let mut text = String::new();
    let place = |oid: OidRef<'_>| objects.partition_point(|(arcs, ..)| arcs.iter().copied().lt(oid.arcs()));
    let after = |oid: OidRef<'_>| objects.partition_point(|(arcs, ..)| arcs.iter().copied().le(oid.arcs()));
    let asked: Vec<OidRef<'_>> = message.pdu.var_binds.filter_map(|v| Some(v.ok()?.oid)).collect();
    match header.kind() {
        PduKind::Get => {
            for oid in asked {
                let found = objects.get(place(oid)).filter(|(_, name, _)| name.as_oid_ref() == oid);
                let value = found.map_or(Value::NoSuchObject, |(.., object)| object.value(moment, &mut text));
                begins_run |= matches!(found, Some((.., Object::Gauge(0))));
                writer.push(oid, value).ok()?;
            }
        }
        PduKind::GetNext | PduKind::GetBulk => {
            let is_bulk = header.kind() == PduKind::GetBulk;
            let once = if is_bulk { header.non_repeaters() as usize } else { asked.len() };
            let mut push = |at: usize, oid: OidRef<'_>| match objects.get(at) {
                Some((_, name, object)) => writer.push(name, object.value(moment, &mut text)).is_ok(),
                None => writer.push(oid, Value::EndOfMibView).is_ok(),
            };
            let mut rows: Vec<(usize, OidRef<'_>)> = Vec::new();
            for (n, oid) in asked.into_iter().enumerate() {
                if n < once {
                    push(after(oid), oid);
                } else {
                    rows.push((after(oid), oid));
                }
            }
            // As many rows as there is room for.
            'rows: for row in 0..header.max_repetitions() as usize {
                if rows.is_empty() {
                    break;
                }
                for (at, oid) in &rows {
                    if !push(at + row, *oid) {
                        break 'rows;
                    }
                }
            }
        }
        _ => return None,
    }
    let answer = writer.finish().ok()?;
    Some((Arrival { device: moment.device, unix_us: 0, request_id, begins_run }, answer))
}

struct Devices {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
    port: u16,
}

impl Devices {
    fn start(start_us: u64) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--respond", &start_us.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        Devices { child, out, port: line.trim().parse().unwrap() }
    }

    /// What came, by device and then by time.
    fn end(mut self) -> Vec<Arrival> {
        drop(self.child.stdin.take());
        let mut bytes = Vec::new();
        self.out.read_to_end(&mut bytes).unwrap();
        assert!(self.child.wait().unwrap().success(), "the devices have failed");
        let mut arrivals: Vec<Arrival> = bytes.chunks_exact(Arrival::BYTES).map(Arrival::of_bytes).collect();
        arrivals.sort_by_key(|a| (a.device, a.unix_us));
        arrivals
    }
}

// ---- the load ----

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scenario {
    Gets,
    Tables,
}

struct Load {
    scenario: Scenario,
    devices: u32,
    minutes: u64,
    interfaces: bool,
    known: bool,
    under: Option<String>,
    log: Option<PathBuf>,
}

impl Load {
    fn from_args(args: &[String]) -> Self {
        let mut load = Load {
            scenario: Scenario::Gets,
            devices: 0,
            minutes: 3,
            interfaces: false,
            known: false,
            under: None,
            log: None,
        };
        let mut args = args.iter().map(String::as_str);
        while let Some(name) = args.next() {
            // What cargo adds.
            if name == "--bench" {
                continue;
            }
            let value = args.next().unwrap_or_else(|| panic!("{name}: a value is missing"));
            let number = || value.parse().unwrap_or_else(|_| panic!("{name}: {value:?} is no number"));
            let yes = || match value {
                "yes" => true,
                "no" => false,
                _ => panic!("{name}: {value:?} is neither yes nor no"),
            };
            match name {
                "--scenario" => {
                    load.scenario = match value {
                        "gets" => Scenario::Gets,
                        "tables" => Scenario::Tables,
                        _ => panic!("--scenario: {value:?} is neither gets nor tables"),
                    }
                }
                "--devices" => load.devices = number(),
                "--minutes" => load.minutes = number().into(),
                "--interfaces" => load.interfaces = yes(),
                "--known" => load.known = yes(),
                "--under" => load.under = Some(value.to_owned()),
                "--log" => load.log = Some(value.into()),
                _ => panic!("{name}: not known; see the head of benches/snmp_devices.rs"),
            }
        }
        if load.devices == 0 {
            load.devices = if load.scenario == Scenario::Gets { 10_000 } else { 1_000 };
        }
        assert!(load.devices <= MAX_DEVICES, "--devices: at most {MAX_DEVICES}");
        assert!((1..=60).contains(&load.minutes), "--minutes: 1 to 60");
        load
    }

    /// The series of a device: the end of their paths, and what their values must be.
    fn series(&self, device: u32) -> Vec<(String, Expected)> {
        let rate = |k, factor: f64| Expected::Always(100.0 * factor * counts_per_cs(device, k) as f64);
        let gauge = |k| Expected::Gauge(gauge_from(device, k) as f64);
        match self.scenario {
            Scenario::Gets => {
                let c32 = (0..3).map(|k| (format!("c32-{k}"), rate(k, 1.0)));
                let c64 = (0..2).map(|k| (format!("c64-{k}"), rate(10 + k, 1.0)));
                let gauges = (0..5).map(|k| (format!("gauge-{k}"), gauge(k)));
                gauges.chain(c32).chain(c64).collect()
            }
            Scenario::Tables => {
                let of = |port: u32, is_out: bool| {
                    let direction = if is_out { "out" } else { "in" };
                    (format!("if.{port}.{direction}"), rate(port_counter(port, is_out), 8.0))
                };
                let ports = (1..=PORTS).flat_map(|port| [of(port, false), of(port, true)]);
                core::iter::once(("gauge-0".to_owned(), gauge(0))).chain(ports).collect()
            }
        }
    }

    fn config(&self, port: u16) -> Config {
        let mut sensors = Vec::new();
        let mut sensor = |oids: &[(&str, &str)], expression: &str, path: String| {
            let oids: Vec<_> =
                oids.iter().map(|(oid, method)| json!({"oid": oid, "fetch_method": method})).collect();
            sensors.push(json!({"id": 200 + sensors.len(), "name": path, "protocol": "snmp",
                "default_interval": INTERVAL_S,
                "details": {"oids": oids, "expression": expression, "output_path": path}}));
        };
        let gets = |names: &[&'static str], kind: &str| -> Vec<(&'static str, String)> {
            names.iter().enumerate().map(|(k, name)| (*name, format!("{kind}-{k}"))).collect()
        };
        match self.scenario {
            Scenario::Gets => {
                let all = [gets(&GAUGES, "gauge"), gets(&COUNTERS_32, "c32"), gets(&COUNTERS_64, "c64")];
                for (name, path) in all.into_iter().flatten() {
                    sensor(&[(name, "get")], "$1", path);
                }
            }
            Scenario::Tables => {
                sensor(&[(GAUGES[0], "get")], "$1", "gauge-0".to_owned());
                for (column, direction) in [(IF_IN, "in"), (IF_OUT, "out")] {
                    let oids = [(IF_DESCR, "walk"), (column, "walk")];
                    sensor(&oids, "$2 * 8", format!("if.{{$index}}.{direction}"));
                }
            }
        }
        let used: Vec<_> = (0..sensors.len()).map(|n| json!({"sensor": 200 + n, "interval": null})).collect();
        let mut entities = Vec::new();
        for n in 0..self.devices {
            entities.push(
                json!({"id": FIRST_DEVICE + n, "name": format!("device {n}"), "entity_type": "device",
                "details": {"ipv4": address(n).to_string(), "port": port},
                "protocols": {"snmp": {"credential": 100, "bot": 41, "sensors": used}}}),
            );
            for port in (1..=PORTS).filter(|_| self.known) {
                entities.push(json!({"id": FIRST_INTERFACE + n * PORTS + port, "name": descr(port),
                    "entity_type": "interface", "parent": FIRST_DEVICE + n, "protocols": {},
                    "details": {"snmp_index": port.to_string(), "speed_bps": "1000000000"}}));
            }
        }
        let credential = json!({"id": 100, "name": "public", "protocol": "snmp",
            "details": {"version": "snmpv2c", "snmpv12_community": "public"}});
        let config = json!({"seed": 7,
            "bots": [{"id": 41, "name": "snmp", "short_name": "snmp", "protocol": "snmp", "token": TOKEN}],
            "accounts": [{"id": ACCOUNT, "name": "Load", "entities": entities,
                "credentials": [credential], "sensors": sensors}]});
        Config::from_json(&config.to_string()).unwrap()
    }
}

#[derive(Clone, Copy)]
enum Expected {
    /// A rate.
    Always(f64),
    /// A number that goes up from this one.
    Gauge(f64),
}

// ---- the bot ----

struct Bot {
    child: Child,
    log: PathBuf,
}

impl Bot {
    fn start(load: &Load, stand_in: &StandIn) -> Self {
        let folder = std::env::temp_dir().join(format!("grafolean-snmp-devices-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let log = load.log.clone().unwrap_or_else(|| folder.join("log"));
        let mut words: Vec<&str> = load.under.iter().flat_map(|under| under.split_whitespace()).collect();
        words.push(BOT);
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).env_clear();
        for name in ["PATH", "HOME"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        let child = command
            .env("BACKEND_URL", stand_in.base_url())
            .env("BOT_TOKEN", TOKEN)
            .env("SNMP_INTERFACES", if load.interfaces { "yes" } else { "no" })
            .envs(std::env::vars().filter(|(name, _)| name.starts_with("GRAFOLEAN_") || name == "RUST_LOG"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Bot { child, log }
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).expect("the bot has ended")
    }

    /// CPU seconds of user and system.
    fn cpu_s(&self) -> [f64; 2] {
        let stat = self.proc("stat");
        // The name may hold anything but is in brackets.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        [11, 12].map(|n| fields[n].parse::<f64>().unwrap() / USER_HZ)
    }

    fn kib(&self, file: &str, name: &str) -> u64 {
        let text = self.proc(file);
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().nth(1).or(line.split_whitespace().next()).unwrap_or("0").parse().unwrap_or(0)
    }

    fn memory(&self) -> String {
        let of = |file, name| self.kib(file, name) as f64 / 1024.0;
        format!("{:.1} MiB PSS, {:.1} MiB RSS at most", of("smaps_rollup", "Pss"), of("status", "VmHWM"))
    }

    /// Stops it: its last line.
    fn stop(mut self) -> String {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let status = self.child.wait().unwrap();
        let said = std::fs::read_to_string(&self.log).unwrap();
        assert!(status.success(), "the bot ended with {status}, having said:\n{said}");
        said.lines().rfind(|line| line.contains("runs: ")).unwrap_or_default().to_owned()
    }
}

impl Drop for Bot {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("?").to_owned()
}

// ---- what came of it ----

/// The instants of a device's job, in microseconds from a full minute.
fn phase_us(device: u32) -> u64 {
    let key = JobKey::new(ACCOUNT as u64, u64::from(FIRST_DEVICE + device));
    key.fnv1a64() % INTERVAL_S * 1_000_000
}

/// Which of its grid's intervals an instant is in.
fn slot(device: u32, unix_us: u64) -> u64 {
    (unix_us - phase_us(device)) / INTERVAL_US
}

struct Verdict {
    delivered: u64,
    expected: u64,
    wrong: Vec<String>,
    wrong_count: u64,
}

/// Compares what has arrived with what must have, of slots that begin within `window_us`.
fn verdict(load: &Load, stand_in: &StandIn, window_us: core::ops::Range<u64>) -> Verdict {
    let mut verdict = Verdict { delivered: 0, expected: 0, wrong: Vec::new(), wrong_count: 0 };
    let mut by_path: HashMap<String, Vec<(u64, f64)>> = HashMap::new();
    for value in stand_in.values(ACCOUNT) {
        let values = by_path.entry(value.path).or_default();
        values.push((value.time_us as u64, value.value));
    }
    for device in 0..load.devices {
        let from = slot(device, window_us.start + INTERVAL_US - 1);
        let to = slot(device, window_us.end);
        let mut first_slot = None;
        for (end, expected) in load.series(device) {
            let path = format!("entity.{}.snmp.{end}", FIRST_DEVICE + device);
            let values = by_path.remove(&path).unwrap_or_default();
            let mut complain = |what: String| {
                verdict.wrong_count += 1;
                if verdict.wrong.len() < 20 {
                    verdict.wrong.push(format!("{path}: {what}"));
                }
            };
            let seen: HashSet<u64> =
                values.iter().map(|(time_us, _)| slot(device, time_us + CLOCKS_US)).collect();
            if matches!(expected, Expected::Gauge(_)) && first_slot.is_none() {
                first_slot = seen.iter().min().copied();
            }
            // A counter's first reading gives nothing.
            let from = match (expected, first_slot) {
                (Expected::Always(_), Some(first)) => from.max(first + 1),
                _ => from,
            };
            for slot in from..=to {
                verdict.expected += 1;
                if seen.contains(&slot) {
                    verdict.delivered += 1;
                } else {
                    complain(format!("nothing of minute {}", slot - from));
                }
            }
            let mut least = 0.0;
            for (time_us, number) in values {
                match expected {
                    Expected::Always(rate) if number == rate => {}
                    Expected::Always(rate) => complain(format!("{number} instead of {rate}")),
                    Expected::Gauge(first) => {
                        let grown = number - first;
                        let passed_s = (time_us.saturating_sub(window_us.start) / 1_000_000 + 1_200) as f64;
                        if grown < least || grown > passed_s {
                            complain(format!("{number}, which began at {first}"));
                        }
                        least = grown;
                    }
                }
            }
        }
    }
    for path in by_path.keys() {
        verdict.wrong_count += 1;
        verdict.wrong.push(format!("{path}: nobody expected it"));
    }
    verdict
}

fn of_sorted(sorted: &[u64], share: f64) -> u64 {
    let at = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
    sorted.get(at).copied().unwrap_or(0)
}

/// What the devices saw within the time measured.
fn tell_requests(arrivals: &[Arrival], window_us: &core::ops::Range<u64>) {
    let mut lateness_us: Vec<u64> = Vec::new();
    let mut seconds: BTreeMap<u64, u64> = BTreeMap::new();
    let mut retries = 0;
    let mut requests = 0u64;
    for of_device in arrivals.chunk_by(|a, b| a.device == b.device) {
        let mut ids = HashSet::new();
        let mut last_slot = None;
        for arrival in of_device {
            let is_new = ids.insert(arrival.request_id);
            if !window_us.contains(&arrival.unix_us) {
                continue;
            }
            requests += 1;
            retries += u64::from(!is_new);
            *seconds.entry(arrival.unix_us / 1_000_000).or_default() += 1;
            // Clocks may differ by a moment.
            let at = slot(arrival.device, arrival.unix_us + CLOCKS_US);
            if arrival.begins_run && last_slot != Some(at) {
                last_slot = Some(at);
                let instant_us = at * INTERVAL_US + phase_us(arrival.device);
                lateness_us.push(arrival.unix_us.saturating_sub(instant_us));
            }
        }
    }
    lateness_us.sort_unstable();
    let mut spread: Vec<u64> = seconds.values().copied().collect();
    spread.sort_unstable();
    println!("requests: {requests} sent, {retries} of them repetitions");
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| of_sorted(&lateness_us, share) as f64 / 1e3);
    println!(
        "lateness of {} runs at the device: median {p50:.1} ms, p99 {p99:.1} ms, at most {max:.1} ms",
        lateness_us.len()
    );
    println!(
        "requests per second: {:.1} on average, {} to {}, p99 {}",
        requests as f64 / spread.len().max(1) as f64,
        of_sorted(&spread, 0.0),
        of_sorted(&spread, 1.0),
        of_sorted(&spread, 0.99)
    );
}

/// Requests that the stand-in answered, of each kind.
fn tell_backend(stand_in: &StandIn, begin_us: u64, from_us: u64) {
    let mut kinds: BTreeMap<String, [u64; 2]> = BTreeMap::new();
    for request in stand_in.requests() {
        let path = request.path_only();
        let kind =
            if path.ends_with(char::is_numeric) { path.rsplit_once('/').map_or("", |p| p.0) } else { path };
        let counts = kinds.entry(format!("{} {kind}", request.method)).or_default();
        counts[usize::from(request.time_us as u64 >= from_us)] += 1;
    }
    println!("requests to the backend, in the {:.0} s before and since:", (from_us - begin_us) as f64 / 1e6);
    for (kind, [before, since]) in kinds {
        println!("  {kind}: {before}, {since}");
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [respond_, start_us] = args.as_slice()
        && respond_ == "--respond"
    {
        return respond(start_us.parse().unwrap());
    }
    let load = Load::from_args(&args);
    let begin_us = unix_us();
    let devices = Devices::start(begin_us);
    let config = load.config(devices.port);
    let stand_in = StandIn::builder().config(config).spawn_thread().unwrap();
    println!(
        "{:?}: {} devices of {} series each, every {INTERVAL_S} s; the machine's load is {}",
        load.scenario,
        load.devices,
        load.series(0).len(),
        load_average()
    );
    let bot = Bot::start(&load, &stand_in);
    let bot_began_us = unix_us();
    // All have their first runs within a minute, once the configuration is there.
    let minute = Duration::from_secs(60);
    std::thread::sleep(minute + Duration::from_secs(10));
    let mut cpu_s = bot.cpu_s();
    println!("before it is measured: {:.2} s of CPU; {}", cpu_s[0] + cpu_s[1], bot.memory());
    let from_us = unix_us();
    for nth in 1..=load.minutes {
        std::thread::sleep(minute);
        let now_s = bot.cpu_s();
        println!(
            "minute {nth}: {:.2} s of CPU, {:.2} s of them in the kernel; {}; load {}",
            now_s[0] - cpu_s[0] + now_s[1] - cpu_s[1],
            now_s[1] - cpu_s[1],
            bot.memory(),
            load_average()
        );
        cpu_s = now_s;
    }
    let window_us = from_us..unix_us();
    std::thread::sleep(GRACE);
    let last = bot.stop();
    println!("{}", last.trim());
    let arrivals = devices.end();
    tell_requests(&arrivals, &window_us);
    tell_backend(&stand_in, bot_began_us, from_us);
    let verdict = verdict(&load, &stand_in, window_us);
    println!("values: {} of {} that were due", verdict.delivered, verdict.expected);
    assert_eq!(verdict.wrong_count, 0, "wrong or missing:\n{}", verdict.wrong.join("\n"));
    assert_eq!(verdict.delivered, verdict.expected);
    assert!(verdict.expected > 0, "nothing was due");
    for count in ["0 failed", "0 cancelled", "0 coalesced"] {
        assert!(last.contains(&format!(" {count}")), "{count}, it should be: {last}");
    }
}
