//! The SNMP bot on an emulated board, against net-snmp's snmpd on this machine: what arrives is what snmpget and snmpbulkwalk show.
//!
//! It needs QEMU, a compiler for the board and the Debian packages `snmp` and `snmpd`, so it is ignored by a plain `cargo test`:
//! `examples/emulation/run test`.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use grafolean_emulation::{Board, Firmware, HOST};
use grafolean_stand_in::{Config, StandIn, StandInThread};

/// Longer than the minute within which a job of 300 s, as that of the interfaces, has its first run.
const PATIENCE: Duration = Duration::from_secs(150);
const TOKEN: &str = "55555555-5555-4555-8555-555555555555";
const COMMUNITY: &str = "hushhush";
/// Nobody has this address.
const NOBODY: &str = "10.0.2.77";

const SERVICES: &str = "1.3.6.1.2.1.1.7.0";
/// snmpInPkts: a counter that each request makes greater.
const PACKETS: &str = "1.3.6.1.2.1.11.1.0";
const IF_DESCR: &str = "1.3.6.1.2.1.2.2.1.2";
const IF_SPEED: &str = "1.3.6.1.2.1.2.2.1.5";
const IF_HIGH_SPEED: &str = "1.3.6.1.2.1.31.1.1.1.15";
/// NET-SNMP-EXTEND-MIB: nsExtendOutput1Line."one", and nsExtendOutLine."two" and "six": a row for each line.
const ONE: &str = "1.3.6.1.4.1.8072.1.3.2.3.1.1.3.111.110.101";
const LINES_OF_TWO: &str = "1.3.6.1.4.1.8072.1.3.2.4.1.2.3.116.119.111";
const LINES_OF_SIX: &str = "1.3.6.1.4.1.8072.1.3.2.4.1.2.3.115.105.120";
/// So many that no answer holds them all.
const ROWS: u32 = 20;

/// A folder of its own, removed with everything in it.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A tool of net-snmp, which is in `/usr/sbin` where that is not searched.
fn tool(name: &str, folder: &Folder) -> Command {
    let searched = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let places = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let path = searched.unwrap_or_default().into_iter().chain(places).map(|place| place.join(name));
    let path = { path }.find(|path| path.exists());
    let mut command =
        Command::new(path.unwrap_or_else(|| panic!("{name} is missing: apt-get install snmp snmpd")));
    // It reads no configuration but its own, and writes nowhere else.
    command.env("SNMPCONFPATH", &folder.0).env("SNMP_PERSISTENT_DIR", &folder.0).env("MIBS", "");
    command
}

/// A running snmpd.
struct Agent {
    child: Child,
    port: u16,
    folder: Folder,
}

impl Agent {
    fn start() -> Self {
        // Another process may take the port in between.
        for n in 0..5 {
            let name = format!("snmp-{}-{n}", std::process::id());
            let folder = Folder(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
            fs::create_dir_all(&folder.0).unwrap();
            // A machine may have more interfaces than a board has room for.
            let config = format!(
                "rocommunity {COMMUNITY}\nsysServices 72\ninclude_ifmib_iface_prefix lo eth en wl\n\
                 extend one /bin/echo 42.5\nextend two /usr/bin/seq {ROWS}\nextend six /usr/bin/seq 101 {}\n",
                100 + ROWS - 1
            );
            let file = folder.0.join("agent.conf");
            fs::write(&file, config).unwrap();
            let port = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            let mut command = tool("snmpd", &folder);
            command.arg("-C").arg("-c").arg(file).arg("-Lf").arg(folder.0.join("agent.log"));
            command
                .args(["-f", "-r", "-x"])
                .arg(folder.0.join("agentx"))
                .arg(format!("udp:127.0.0.1:{port}"));
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut agent = Agent { child: command.spawn().unwrap(), port, folder };
            let began = Instant::now();
            while agent.child.try_wait().unwrap().is_none() {
                if !agent.shown("snmpget", SERVICES).is_empty() {
                    return agent;
                }
                assert!(began.elapsed() < PATIENCE, "snmpd does not answer");
            }
        }
        panic!("snmpd could not be started on a free port, five times");
    }

    /// What the tool shows: values by the last number of their names.
    fn shown(&self, program: &str, oid: &str) -> BTreeMap<u32, String> {
        let mut command = tool(program, &self.folder);
        command.args(["-v2c", "-c", COMMUNITY, "-t", "2", "-r", "2", "-Onq", "-Oe"]);
        let output = command.arg(format!("127.0.0.1:{}", self.port)).arg(oid).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let pairs = text.lines().filter_map(|line| line.split_once(' '));
        let of_row = |(name, value): (&str, &str)| {
            Some((name.rsplit('.').next()?.parse().ok()?, value.trim_matches('"').to_owned()))
        };
        pairs.filter_map(of_row).collect()
    }

    /// The numbers that the tool shows.
    fn numbers(&self, program: &str, oid: &str) -> BTreeMap<u32, f64> {
        self.shown(program, oid).into_iter().map(|(row, value)| (row, value.parse().unwrap())).collect()
    }

    /// The one number that snmpget shows.
    fn number(&self, oid: &str) -> f64 {
        *self.numbers("snmpget", oid).first_key_value().unwrap().1
    }

    /// Name and speed of each interface.
    fn interfaces(&self) -> BTreeMap<u32, (String, String)> {
        let [descr, speed, high] =
            [IF_DESCR, IF_SPEED, IF_HIGH_SPEED].map(|oid| self.shown("snmpbulkwalk", oid));
        let speed_of = |index: &u32| match speed.get(index).map(String::as_str) {
            Some("4294967295") | None => format!("{}000000", high[index]),
            Some(speed) => speed.to_owned(),
        };
        descr.iter().map(|(index, name)| (*index, (name.clone(), speed_of(index)))).collect()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Devices 31 and 32 are the agent, by SNMPv2c and v1; nobody has the address of device 33.
fn backend(port: u16) -> StandInThread {
    let device = |id: u32, ip: &str, credential: u32, sensors: &[u32]| {
        let sensors: Vec<_> =
            sensors.iter().map(|id| format!(r#"{{"sensor": {id}, "interval": null}}"#)).collect();
        format!(
            r#"{{"id": {id}, "name": "d{id}", "entity_type": "device", "details": {{"ipv4": "{ip}", "port": {port}}},
                "protocols": {{"snmp": {{"credential": {credential}, "bot": 41, "sensors": [{}]}}}}}}"#,
            sensors.join(",")
        )
    };
    let credential = |id: u32, version: &str| {
        format!(
            r#"{{"id": {id}, "name": "c{id}", "protocol": "snmp",
                "details": {{"version": "{version}", "snmpv12_community": "{COMMUNITY}"}}}}"#
        )
    };
    let sensor = |id: u32, oids: &[(&str, &str)], expression: &str, path: &str| {
        let oids: Vec<_> = oids
            .iter()
            .map(|(oid, method)| format!(r#"{{"oid": "{oid}", "fetch_method": "{method}"}}"#))
            .collect();
        format!(
            r#"{{"id": {id}, "name": "s{id}", "protocol": "snmp", "default_interval": 3, "details":
                {{"oids": [{}], "expression": "{expression}", "output_path": "{path}"}}}}"#,
            oids.join(",")
        )
    };
    let config = format!(
        r#"{{"seed": 5, "accounts": [{{"id": 1, "name": "Boards",
            "credentials": [{}, {}], "sensors": [{}, {}, {}], "entities": [{}, {}, {}]}}],
            "bots": [{{"id": 41, "name": "snmp", "short_name": "snmp", "protocol": "snmp", "token": "{TOKEN}"}}]}}"#,
        credential(11, "snmpv2c"),
        credential(12, "snmpv1"),
        sensor(21, &[(ONE, "get"), (SERVICES, "get")], "($1 + 1) / 2 * $2", "got"),
        sensor(
            22,
            &[(LINES_OF_TWO, "walk"), (SERVICES, "get"), (LINES_OF_SIX, "walk")],
            "$3 * $2 - $1",
            "row.{$index}"
        ),
        sensor(23, &[(PACKETS, "get")], "$1", "rate"),
        device(31, HOST, 11, &[21, 22, 23]),
        device(32, HOST, 12, &[21, 22]),
        device(33, NOBODY, 11, &[21]),
    );
    StandIn::builder().config(Config::from_json(&config).unwrap()).spawn_thread().unwrap()
}

fn wait(stand_in: &StandInThread, board: &Board, what: &str, condition: impl FnMut(&StandIn) -> bool) {
    if let Err(error) = stand_in.wait_for(PATIENCE, condition) {
        panic!("{what}: {error}\n{}", board.log());
    }
}

fn values(stand_in: &StandIn, device: u32, path: &str) -> Vec<f64> {
    let path = format!("entity.{device}.snmp.{path}");
    stand_in.values_of(1, &path).into_iter().map(|(_, value)| value).collect()
}

/// Name and speed of the interface entities of device 31, by their index.
fn interface_entities(stand_in: &StandIn) -> BTreeMap<u32, (String, String)> {
    let entities = stand_in.read(|backend| backend.entities(1));
    let of_device = entities.iter().filter(|e| e.parent == Some(31) && e.entity_type == "interface");
    let of_entity = |e: &grafolean_stand_in::Entity| {
        // Both are strings, for the web page.
        let details = e.details.to_compact().unwrap();
        let text = |key: &str| {
            let (_, rest) =
                details.split_once(&format!(r#""{key}":""#)).unwrap_or_else(|| panic!("{key}: {details}"));
            rest.split('"').next().unwrap().to_owned()
        };
        (text("snmp_index").parse().unwrap(), (e.name.clone(), text("speed_bps")))
    };
    of_device.map(of_entity).collect()
}

#[test]
#[ignore = "needs QEMU and net-snmp"]
fn a_board_reads_what_snmpget_and_snmpbulkwalk_show_while_another_agent_is_gone() {
    let firmware = Firmware::build_with_snmp().unwrap();
    println!("flash {} bytes, ram {} bytes without call stack", firmware.flash_bytes, firmware.ram_bytes);
    let agent = Agent::start();
    let stand_in = backend(agent.port);
    let mut board = Board::builder(&firmware)
        .backend(&stand_in)
        .setting("SNMP_BOT_TOKEN", TOKEN)
        .setting("JOBS_REFRESH_INTERVAL", "5")
        .start()
        .unwrap();
    let (one, services) = (agent.number(ONE), agent.number(SERVICES));
    let (two, six) =
        (agent.numbers("snmpbulkwalk", LINES_OF_TWO), agent.numbers("snmpbulkwalk", LINES_OF_SIX));
    // The second table lacks the first one's last row.
    assert_eq!((two.len(), six.len()), (ROWS as usize, ROWS as usize - 1));
    for device in [31, 32] {
        wait(&stand_in, &board, "a value of GETs", |s| values(s, device, "got").len() >= 2);
        let got = values(&stand_in, device, "got");
        assert!(got.iter().all(|value| *value == (one + 1.0) / 2.0 * services), "{got:?}");
        wait(&stand_in, &board, "the rows' values", |s| {
            six.keys().all(|row| !values(s, device, &format!("row.{row}")).is_empty())
        });
        for (row, value) in &six {
            let got = values(&stand_in, device, &format!("row.{row}"));
            assert!(got.iter().all(|got| *got == value * services - two[row]), "row {row}: {got:?}");
        }
        let none = values(&stand_in, device, &format!("row.{ROWS}"));
        assert!(none.is_empty(), "{none:?}");
    }
    wait(&stand_in, &board, "a counter's rate", |s| !values(s, 31, "rate").is_empty());
    let rates = values(&stand_in, 31, "rate");
    assert!(rates.iter().all(|rate| *rate > 0.0), "{rates:?}");
    let told = agent.interfaces();
    assert!(!told.is_empty());
    wait(&stand_in, &board, "entities of the interfaces", |s| interface_entities(s).len() >= told.len());
    assert_eq!(interface_entities(&stand_in), told);
    // The one that is gone holds nobody up for long: it takes 6 s to give it up.
    board.wait_for_line(PATIENCE, "no answer to 3 requests", 1).unwrap();
    let before = values(&stand_in, 31, "got").len();
    wait(&stand_in, &board, "more values", |s| values(s, 31, "got").len() >= before + 5);
    assert!(values(&stand_in, 33, "got").is_empty());
    board.press('q').unwrap();
    let code = board.wait(PATIENCE).unwrap();
    let log = board.log();
    assert_eq!(code, 0, "{log}");
    assert!(!log.contains(COMMUNITY) && !log.contains(&TOKEN[..8]), "{log}");
    for line in log.lines().filter(|line| line.starts_with("ram snmp") || line.starts_with("report s")) {
        println!("{line}");
    }
}
