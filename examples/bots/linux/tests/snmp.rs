//! The SNMP bot as a process, against net-snmp's snmpd and a stand-in backend: what arrives equals what snmpget and snmpbulkwalk
//! show. Needs the Debian packages `snmp` and `snmpd`; without them these tests fail.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use grafolean_stand_in::{Config, StandIn, StandInThread};
use serde_json::{Value, json};
use support::*;

/// Rows of the script's table.
const ROWS: u32 = 10_000;
/// The script's objects: a table with a name, a number and a Counter64 in each row, then a counter, at the end of the view.
const SCRIPT_OID: &str = "1.3.6.1.4.1.99999";

const SCRIPT: &str = r#"#!/bin/sh
# A table of 10,000 rows, and a counter that is in a file.
base=.1.3.6.1.4.1.99999
answer() {
    echo "$base$1"
    case $1 in
        .1.1.*) echo string; echo "row ${1##*.}" ;;
        .1.2.*) echo integer; echo $((${1##*.} * 3)) ;;
        .1.3.*) echo counter64; echo ${1##*.} ;;
        .2.0) read -r n < "$(dirname "$0")/counter"; echo counter; echo "$n" ;;
    esac
}
while read -r command; do
    case $command in
        PING) echo PONG ;;
        get)
            read -r oid
            rest=${oid#"$base"}
            case $rest in
                .2.0) answer .2.0 ;;
                .1.[123].*)
                    row=${rest##*.}
                    if [ "$row" -ge 1 ] && [ "$row" -le 10000 ]; then answer "$rest"; else echo NONE; fi ;;
                *) echo NONE ;;
            esac ;;
        getnext)
            read -r oid
            rest=${oid#"$base"}
            case $rest in
                ""|.1) answer .1.1.1 ;;
                .1.[123]) answer "$rest.1" ;;
                .1.[123].*)
                    row=${rest##*.}
                    column=${rest#.1.}
                    column=${column%%.*}
                    if [ "$row" -lt 10000 ]; then answer ".1.$column.$((row + 1))"
                    elif [ "$column" -lt 3 ]; then answer ".1.$((column + 1)).1"
                    else answer .2.0; fi ;;
                .2) answer .2.0 ;;
                *) echo NONE ;;
            esac ;;
        *) exit 0 ;;
    esac
done
"#;

/// A tool of net-snmp, which is in `/usr/sbin` where that is not searched.
fn tool(name: &str) -> Command {
    let places = ["/usr/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin"].map(PathBuf::from);
    let searched = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let mut found = searched.unwrap_or_default().into_iter().chain(places).map(|folder| folder.join(name));
    let path = found.find(|path| path.exists());
    Command::new(path.unwrap_or_else(|| panic!("{name} is missing: apt-get install snmp snmpd")))
}

/// A running snmpd, with the script's objects.
struct Agent {
    child: Child,
    port: u16,
    folder: Folder,
}

impl Agent {
    fn start(config: &str) -> Self {
        // Another process may take the port in between.
        for _ in 0..5 {
            let folder = Folder::new();
            let path = |name: &str| folder.0.join(name);
            let script = path("script");
            fs::write(&script, SCRIPT).unwrap();
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
            fs::write(path("counter"), "1000\n").unwrap();
            let script = script.display();
            let config = format!(
                "rocommunity public\nview script included .{SCRIPT_OID}\nrocommunity narrow default -V script\n\
                 sysName one\nsysServices 72\nextend number /bin/echo 42.5\npass_persist .{SCRIPT_OID} {script}\n{config}\n"
            );
            fs::write(path("agent.conf"), config).unwrap();
            let port = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let mut command = tool("snmpd");
            confine(&mut command, &folder);
            command.arg("-C").arg("-c").arg(path("agent.conf")).arg("-Lf").arg(path("agent.log"));
            command.args(["-f", "-r", "-x"]).arg(path("agentx")).arg(format!("udp:{address}"));
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let child = command.spawn().unwrap();
            let mut agent = Agent { child, port, folder };
            let began = Instant::now();
            while agent.child.try_wait().unwrap().is_none() {
                if agent.ask("snmpget", "-v2c", &["1.3.6.1.2.1.1.5.0"]).status.success() {
                    return agent;
                }
                assert!(began.elapsed() < LIMIT, "snmpd does not answer");
            }
        }
        panic!("snmpd could not be started on a free port, five times");
    }

    fn ask(&self, program: &str, version: &str, oids: &[&str]) -> std::process::Output {
        let mut command = tool(program);
        confine(&mut command, &self.folder);
        command.args([version, "-c", "public", "-t", "2", "-r", "2", "-Onq", "-Oe"]);
        command.arg(format!("127.0.0.1:{}", self.port)).args(oids).output().unwrap()
    }

    /// What the tool shows: values by names, quotes taken off.
    fn shown(&self, program: &str, version: &str, oids: &[&str]) -> BTreeMap<String, String> {
        let output = self.ask(program, version, oids);
        let text = String::from_utf8(output.stdout).unwrap();
        let pairs = text.lines().filter_map(|line| line.split_once(' '));
        pairs
            .map(|(name, value)| {
                (name.trim_start_matches('.').to_owned(), value.trim_matches('"').to_owned())
            })
            .collect()
    }

    /// A column's values by the last number of their names.
    fn column(&self, program: &str, version: &str, oid: &str) -> BTreeMap<u32, String> {
        let of_row =
            |(name, value): (String, String)| (name.rsplit('.').next().unwrap().parse().unwrap(), value);
        self.shown(program, version, &[oid]).into_iter().map(of_row).collect()
    }

    fn set_counter(&self, count: u64) {
        // Never half written.
        let new = self.folder.0.join("counter.new");
        fs::write(&new, format!("{count}\n")).unwrap();
        fs::rename(new, self.folder.0.join("counter")).unwrap();
    }
}

/// Reads no configuration but its own, and writes nowhere else.
fn confine(command: &mut Command, folder: &Folder) {
    command.env("SNMPCONFPATH", &folder.0).env("SNMP_PERSISTENT_DIR", &folder.0).env("MIBS", "");
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An account's configuration, as it grows.
#[derive(Default)]
struct Account {
    entities: Vec<Value>,
    credentials: Vec<Value>,
    sensors: Vec<Value>,
}

impl Account {
    /// A credential's id.
    fn credential(&mut self, details: Value) -> usize {
        let id = 100 + self.credentials.len();
        self.credentials
            .push(json!({"id": id, "name": format!("c{id}"), "protocol": "snmp", "details": details}));
        id
    }

    fn community(&mut self, version: &str, community: &str) -> usize {
        self.credential(json!({"version": version, "snmpv12_community": community}))
    }

    /// A sensor's id.
    fn sensor(&mut self, oids: &[(&str, &str)], expression: &str, output_path: &str) -> usize {
        let id = 200 + self.sensors.len();
        let oids: Vec<Value> =
            oids.iter().map(|(oid, method)| json!({"oid": oid, "fetch_method": method})).collect();
        self.sensors
            .push(json!({"id": id, "name": format!("s{id}"), "protocol": "snmp", "default_interval": 2,
            "details": {"oids": oids, "expression": expression, "output_path": output_path}}));
        id
    }

    /// A device's id.
    fn device(&mut self, port: u16, credential: usize, sensors: &[usize]) -> usize {
        let id = 1000 + self.entities.len();
        let sensors: Vec<Value> = sensors.iter().map(|id| json!({"sensor": id, "interval": null})).collect();
        self.entities.push(json!({"id": id, "name": format!("d{id}"), "entity_type": "device",
            "details": {"ipv4": "127.0.0.1", "port": port},
            "protocols": {"snmp": {"credential": credential, "bot": 41, "sensors": sensors}}}));
        id
    }

    fn stand_in(self, permissions: Option<Value>) -> StandInThread {
        let mut bot =
            json!({"id": 41, "name": "snmp", "short_name": "snmp", "protocol": "snmp", "token": TOKEN});
        if let Some(permissions) = permissions {
            bot["permissions"] = permissions;
        }
        let config = json!({"seed": 7, "bots": [bot], "accounts": [{"id": 1, "name": "One",
            "entities": self.entities, "credentials": self.credentials, "sensors": self.sensors}]});
        StandIn::builder().config(Config::from_json(&config.to_string()).unwrap()).spawn_thread().unwrap()
    }
}

fn start(stand_in: &StandIn, settings: &[(&str, &str)]) -> Process {
    let url = stand_in.base_url();
    let own: [(&str, &str); 2] = [("BACKEND_URL", &url), ("BOT_TOKEN", TOKEN)];
    Process::start(SNMP, &[&own, settings].concat())
}

/// Waits for values at this path.
fn values(stand_in: &StandIn, path: &str, count: usize) -> Vec<f64> {
    let mut numbers = Vec::new();
    wait_until(path, || {
        numbers = stand_in.values_of(1, path).into_iter().map(|(_, number)| number).collect();
        numbers.len() >= count
    });
    numbers
}

const NO_INTERFACES: [(&str, &str); 1] = [("SNMP_INTERFACES", "no")];

/// NET-SNMP-EXTEND-MIB::nsExtendOutput1Line."number"
const EXTEND: &str = "1.3.6.1.4.1.8072.1.3.2.3.1.1.6.110.117.109.98.101.114";
const IF_DESCR: &str = "1.3.6.1.2.1.2.2.1.2";
const IF_TYPE: &str = "1.3.6.1.2.1.2.2.1.3";
const IF_MTU: &str = "1.3.6.1.2.1.2.2.1.4";
const IF_SPEED: &str = "1.3.6.1.2.1.2.2.1.5";
const IF_HIGH_SPEED: &str = "1.3.6.1.2.1.31.1.1.1.15";

#[test]
fn values_are_what_snmpget_and_snmpbulkwalk_show_in_v1_and_v2c() {
    let agent = Agent::start("");
    let mut account = Account::default();
    let sensors = [
        account.sensor(&[(EXTEND, "get")], "$1", "extend"),
        account.sensor(&[(EXTEND, "get"), ("1.3.6.1.2.1.1.7.0", "get")], "$1 + $2", "sum"),
        account.sensor(&[(IF_DESCR, "walk"), (IF_MTU, "walk")], "$2", "mtu.{$index}.{$1}"),
        account.sensor(&[(IF_TYPE, "walk"), (EXTEND, "get")], "$1 * $2", "type.{$index}"),
        account.sensor(&[("1.3.6.1.2.1.1.3.0", "get")], "$1 / 100", "uptime"),
    ];
    let versions = [("snmpv1", "-v1", "snmpwalk"), ("snmpv2c", "-v2c", "snmpbulkwalk")];
    let devices = versions.map(|(version, ..)| {
        let credential = account.community(version, "public");
        account.device(agent.port, credential, &sensors)
    });
    let stand_in = account.stand_in(None);
    let _bot = start(&stand_in, &NO_INTERFACES);
    for (device, (_, version, walk)) in devices.into_iter().zip(versions) {
        let value = |path: &str| values(&stand_in, &format!("entity.{device}.snmp.{path}"), 1)[0];
        let extend: f64 = agent.shown("snmpget", version, &[EXTEND])[EXTEND].parse().unwrap();
        assert_eq!((value("extend"), extend), (42.5, 42.5));
        let services = "1.3.6.1.2.1.1.7.0";
        let services: f64 = agent.shown("snmpget", version, &[services])[services].parse().unwrap();
        assert_eq!(value("sum"), 42.5 + services);
        let [descr, mtu, kind] = [IF_DESCR, IF_MTU, IF_TYPE].map(|oid| agent.column(walk, version, oid));
        assert!(!descr.is_empty() && descr.len() == mtu.len());
        for (index, descr) in descr {
            assert_eq!(value(&format!("mtu.{index}.{descr}")), mtu[&index].parse::<f64>().unwrap());
            assert_eq!(value(&format!("type.{index}")), 42.5 * kind[&index].parse::<f64>().unwrap());
        }
        // It goes on, by one second each second.
        let uptimes = values(&stand_in, &format!("entity.{device}.snmp.uptime"), 2);
        assert!(uptimes.is_sorted() && uptimes[0] < uptimes[1] && uptimes[0] < 3600.0, "{uptimes:?}");
    }
}

#[test]
fn a_table_of_10_000_rows_is_read_to_the_end_of_the_agents_view() {
    let agent = Agent::start("");
    let mut account = Account::default();
    let [names, numbers, counter] = ["1.1", "1.2", "2"].map(|below| format!("{SCRIPT_OID}.{below}"));
    let sensors = [
        account.sensor(&[(&numbers, "walk")], "$1", "number.{$index}"),
        account.sensor(&[(&names, "walk"), (&numbers, "walk")], "$2 + 1", "named.{$1}"),
        // The last object of the narrow view, which has no sysUpTime: the walk ends with endOfMibView.
        account.sensor(&[(&counter, "walk")], "$1", "rate"),
    ];
    let narrow = account.community("snmpv2c", "narrow");
    let device = account.device(agent.port, narrow, &sensors);
    let stand_in = account.stand_in(None);
    let bot = start(&stand_in, &NO_INTERFACES);
    let path = |what: &str, row: u32| match what {
        "number" => format!("entity.{device}.snmp.number.{row}"),
        _ => format!("entity.{device}.snmp.named.row-{row}"),
    };
    for row in (1..=ROWS).rev() {
        assert_eq!(values(&stand_in, &path("number", row), 1)[0], f64::from(row) * 3.0);
        assert_eq!(values(&stand_in, &path("named", row), 1)[0], f64::from(row) * 3.0 + 1.0);
    }
    assert_eq!(stand_in.values_of(1, &path("number", ROWS + 1)), []);
    // The second run of a job tells the counter's rate: nothing moves.
    assert_eq!(values(&stand_in, &format!("entity.{device}.snmp.rate"), 1)[0], 0.0);
    assert!(!bot.said().contains("WARN job"), "{}", bot.said());
}

#[test]
fn each_of_10_000_rows_with_a_counter_has_its_rate_from_the_second_reading_on() {
    let agent = Agent::start("");
    let mut account = Account::default();
    let counters = format!("{SCRIPT_OID}.1.3");
    let sensors = [account.sensor(&[(&counters, "walk")], "$1", "rate.{$index}")];
    let public = account.community("snmpv2c", "public");
    let device = account.device(agent.port, public, &sensors);
    let stand_in = account.stand_in(None);
    let bot = start(&stand_in, &NO_INTERFACES);
    for row in (1..=ROWS).rev() {
        assert_eq!(values(&stand_in, &format!("entity.{device}.snmp.rate.{row}"), 1)[0], 0.0);
    }
    assert!(!bot.said().contains("not remembered"), "{}", bot.said());
}

#[test]
fn a_counter_gives_its_rate_from_the_second_reading_on_and_nothing_when_it_goes_down() {
    let agent = Agent::start("");
    let mut account = Account::default();
    let counter = format!("{SCRIPT_OID}.2.0");
    let sensors = [
        account.sensor(&[(&counter, "get")], "$1", "rate"),
        account.sensor(&[(EXTEND, "get")], "$1", "beat"),
    ];
    let public = account.community("snmpv2c", "public");
    let device = account.device(agent.port, public, &sensors);
    let stand_in = account.stand_in(None);
    let _bot = start(&stand_in, &NO_INTERFACES);
    let [rate, beat] = ["rate", "beat"].map(|path| format!("entity.{device}.snmp.{path}"));
    // The first run gives none, and the second one 0.
    assert_eq!(values(&stand_in, &rate, 1), [0.0]);
    assert!(stand_in.values_of(1, &beat).len() >= 2);
    agent.set_counter(101_000);
    wait_until("a rate above zero", || stand_in.values_of(1, &rate).iter().any(|(_, number)| *number > 0.0));
    // 100,000 within a time that sysUpTime tells: of a run every 2 s, or later.
    let above: Vec<f64> = values(&stand_in, &rate, 1).into_iter().filter(|number| *number > 0.0).collect();
    assert!(above.len() == 1 && above[0] <= 100_000.0, "{above:?}");
    let beats = stand_in.values_of(1, &beat).len();
    agent.set_counter(500);
    wait_until("two more runs", || stand_in.values_of(1, &beat).len() >= beats + 3);
    // A Counter32 that goes down has wrapped, as the agent was not restarted.
    let wrapped = f64::from(u32::MAX) + 1.0 - 101_000.0 + 500.0;
    let rates = values(&stand_in, &rate, 1);
    let highest = rates.iter().copied().fold(0.0, f64::max);
    assert!(highest > above[0] && highest <= wrapped, "{rates:?}");
}

#[test]
fn what_is_wrong_with_a_device_is_told_by_sensor_and_oid_and_no_secret_is_shown() {
    let agent = Agent::start("");
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let silent = silent.local_addr().unwrap().port();
    let mut account = Account::default();
    let good = account.sensor(&[(EXTEND, "get")], "$1", "good");
    let nothing = account.sensor(&[("1.3.6.1.2.1.1.99.0", "get")], "$1", "nothing");
    let empty = account.sensor(&[("1.3.6.1.2.1.1.99", "walk")], "$1", "empty.{$index}");
    let text = account.sensor(&[("1.3.6.1.2.1.1.5.0", "get")], "$1", "text");
    let public = ["snmpv1", "snmpv2c"].map(|version| account.community(version, "public"));
    let wrong = account.community("snmpv2c", "sesame-0815");
    let devices = [
        account.device(agent.port, wrong, &[good]),
        account.device(silent, public[1], &[good]),
        account.device(agent.port, public[0], &[nothing, good]),
        account.device(agent.port, public[1], &[nothing, good]),
        account.device(agent.port, public[1], &[empty, good]),
        account.device(agent.port, public[1], &[text, good]),
    ];
    let stand_in = account.stand_in(None);
    let settings = [("SNMP_INTERFACES", "no"), ("SNMP_TIMEOUT", "0.1"), ("RUST_LOG", "trace")];
    let bot = start(&stand_in, &settings);
    let of = |n: usize, text: &str| format!("entity {}: {text}", devices[n]);
    bot.wait_for(&of(0, "no answer to 3 requests"));
    bot.wait_for(&of(1, "no answer to 3 requests"));
    for device in [2, 3] {
        let what = format!("sensor {nothing}: 1.3.6.1.2.1.1.99.0: the agent has no such object or instance");
        bot.wait_for(&of(device, &what));
    }
    bot.wait_for(&of(4, &format!("sensor {empty}: 1.3.6.1.2.1.1.99: the agent has nothing below it")));
    bot.wait_for(&of(5, &format!("sensor {text}: 1.3.6.1.2.1.1.5.0: $1 is a text that is no number")));
    for device in &devices[2..] {
        assert_eq!(values(&stand_in, &format!("entity.{device}.snmp.good"), 1)[0], 42.5);
    }
    assert_eq!(stand_in.values_of(1, &format!("entity.{}.snmp.good", devices[0])), []);
    assert!(!bot.said().contains("sesame"), "{}", bot.said());
}

#[test]
fn snmpv3_is_spoken_at_all_levels_and_wrong_users_and_passwords_are_told() {
    let passwords = ["an authentication password", "privacy 2 password"];
    let [auth, privacy] = passwords;
    let mut lines = "createUser nobody\nrouser nobody noauth\n".to_owned();
    let users = [
        ("MD5", "", ""),
        ("SHA", "", ""),
        ("SHA-224", "", ""),
        ("SHA-256", "", ""),
        ("SHA-384", "", ""),
        ("SHA-512", "", ""),
        ("SHA", "DES", "DES"),
        ("SHA", "AES", "AES"),
        ("SHA-256", "AES-192", "AES192"),
        ("SHA-512", "AES-256", "AES256"),
    ];
    let name = |auth: &str, privacy: &str| format!("user{auth}{privacy}");
    for (protocol, encryption, _) in users {
        let name = name(protocol, encryption);
        lines += &match encryption {
            "" => format!("createUser {name} {protocol} \"{auth}\"\nrouser {name} auth\n"),
            _ => format!(
                "createUser {name} {protocol} \"{auth}\" {encryption} \"{privacy}\"\nrouser {name} priv\n"
            ),
        };
    }
    let agent = Agent::start(&lines);
    let mut account = Account::default();
    let sensors = [
        account.sensor(&[(EXTEND, "get")], "$1", "value"),
        account.sensor(&[(IF_MTU, "walk")], "$1", "mtu.{$index}"),
    ];
    let user = |name: &str, auth: Option<(&str, &str)>, privacy: Option<(&str, &str)>| {
        let level = match (auth, privacy) {
            (None, _) => "noAuthNoPriv",
            (_, None) => "authNoPriv",
            _ => "authPriv",
        };
        let (auth, privacy) = (auth.unwrap_or_default(), privacy.unwrap_or_default());
        json!({"version": "snmpv3", "snmpv3_securityName": name, "snmpv3_securityLevel": level,
            "snmpv3_authProtocol": auth.0.replace('-', ""), "snmpv3_authKey": auth.1,
            "snmpv3_privProtocol": privacy.0, "snmpv3_privKey": privacy.1})
    };
    let mut good = vec![user("nobody", None, None)];
    for (protocol, encryption, ours) in users {
        let name = name(protocol, encryption);
        good.push(user(&name, Some((protocol, auth)), (!ours.is_empty()).then_some((ours, privacy))));
    }
    let bad = [
        (user("stranger", None, None), "the agent does not know this user"),
        (user("userSHA", Some(("SHA", "the wrong password")), None), "wrong digest"),
        (user("userSHAAES", Some(("SHA", auth)), Some(("AES", "the wrong password"))), "no answer"),
        (user("userSHA", None, None), "authorizationError"),
    ];
    let mut device = |details: Value| {
        let credential = account.credential(details);
        account.device(agent.port, credential, &sensors)
    };
    let good: Vec<usize> = good.into_iter().map(&mut device).collect();
    let bad: Vec<(usize, &str)> = bad.into_iter().map(|(details, text)| (device(details), text)).collect();
    let stand_in = account.stand_in(None);
    // Passwords take a while to become keys, without optimisation.
    let settings =
        [("SNMP_INTERFACES", "no"), ("SNMP_TIMEOUT", "2"), ("SNMP_RETRIES", "1"), ("RUST_LOG", "trace")];
    let bot = start(&stand_in, &settings);
    let mtus = agent.column("snmpbulkwalk", "-v2c", IF_MTU);
    for device in good {
        assert_eq!(values(&stand_in, &format!("entity.{device}.snmp.value"), 2)[0], 42.5);
        for (index, mtu) in &mtus {
            let path = format!("entity.{device}.snmp.mtu.{index}");
            assert_eq!(values(&stand_in, &path, 1)[0], mtu.parse::<f64>().unwrap());
        }
    }
    for (device, text) in bad {
        bot.wait_for(&format!("entity {device}: "));
        assert!(stand_in.values_of(1, &format!("entity.{device}.snmp.value")).is_empty());
        wait_until(text, || {
            bot.said().lines().any(|line| line.contains(&format!("entity {device}: ")) && line.contains(text))
        });
    }
    for secret in [auth, privacy, "the wrong password"] {
        assert!(!bot.said().contains(secret));
    }
}

/// ifDescr and speed of each interface, as the tools show them.
fn interfaces(agent: &Agent) -> BTreeMap<u32, (String, String)> {
    let [descr, speed, high] =
        [IF_DESCR, IF_SPEED, IF_HIGH_SPEED].map(|oid| agent.column("snmpbulkwalk", "-v2c", oid));
    let of_row = |(index, descr): (u32, String)| {
        let speed = match speed.get(&index).map(String::as_str) {
            Some("4294967295") | None => format!("{}000000", high[&index]),
            Some(speed) => speed.to_owned(),
        };
        (index, (descr, if speed.bytes().all(|c| c == b'0') { "0".to_owned() } else { speed }))
    };
    descr.into_iter().map(of_row).collect()
}

fn changes(stand_in: &StandIn) -> Vec<(String, Option<u16>)> {
    let requests = stand_in.requests();
    let own = requests.into_iter().filter(|r| r.method != "GET" && r.path.contains("/entities/"));
    own.map(|r| (r.method, r.status)).collect()
}

#[test]
fn interfaces_get_entities_by_one_request_each_and_none_is_deleted_while_the_agent_is_young() {
    let agent = Agent::start("");
    let mut account = Account::default();
    let sensor = account.sensor(&[(EXTEND, "get")], "$1", "good");
    let public = account.community("snmpv2c", "public");
    let device = account.device(agent.port, public, &[sensor]);
    let other = account.device(9, public, &[]);
    let told = interfaces(&agent);
    let (first, (first_name, _)) = told.first_key_value().unwrap();
    let mut interface = |id: u32, parent: usize, name: &str, index: u32, protocols: Value| {
        account.entities.push(json!({"id": id, "name": name, "entity_type": "interface", "parent": parent,
            "details": {"snmp_index": index.to_string(), "speed_bps": "17"}, "protocols": protocols}));
    };
    let kept = json!({"snmp": {"credential": public, "bot": 41, "sensors": []}});
    // One with another speed, its double, one of no interface, and one of another device.
    interface(21, device, first_name, *first, kept);
    interface(22, device, "double", *first, json!({}));
    interface(23, device, "gone0", 99_999, json!({}));
    interface(24, other, "another", 99_999, json!({}));
    let stand_in = account.stand_in(None);
    let _bot = start(&stand_in, &[]);
    // All but one are new.
    wait_until("interfaces", || changes(&stand_in).len() >= told.len());
    let there: BTreeMap<u32, (String, String)> = stand_in.read(|backend| {
        let of_device = |e: &&grafolean_stand_in::Entity| {
            e.parent == i32::try_from(device).ok()
                && e.entity_type == "interface"
                && ![22, 23].contains(&e.id)
        };
        let entities = backend.entities(1);
        entities
            .iter()
            .filter(of_device)
            .map(|e| {
                let details: Value = serde_json::from_str(&e.details.to_compact().unwrap()).unwrap();
                let text = |key: &str| details[key].as_str().unwrap().to_owned();
                (text("snmp_index").parse().unwrap(), (e.name.clone(), text("speed_bps")))
            })
            .collect()
    });
    assert_eq!(there, told);
    let changed = stand_in.read(|backend| backend.entities(1).into_iter().find(|e| e.id == 21).unwrap());
    assert_eq!(changed.protocols.len(), 1, "its protocols were sent back");
    let mut made: Vec<String> = changes(&stand_in).into_iter().map(|(method, _)| method).collect();
    made.sort();
    let mut wanted = vec!["POST"; told.len() - 1];
    wanted.push("PUT");
    assert_eq!(made, wanted);
    // The agent has just been started, so that it may not know all of its interfaces yet.
    let kept = |id: i32| stand_in.read(|backend| backend.entities(1).iter().any(|e| e.id == id));
    assert!([22, 23, 24].into_iter().all(kept), "nothing is deleted");
}

#[test]
fn without_permission_to_change_entities_one_device_says_so_once_and_values_go_on() {
    let agent = Agent::start("");
    let mut account = Account::default();
    let sensor = account.sensor(&[(EXTEND, "get")], "$1", "good");
    let public = account.community("snmpv2c", "public");
    let devices = [(); 3].map(|()| account.device(agent.port, public, &[sensor]));
    let permissions = json!([
        {"resource_prefix": "accounts/1/values", "methods": ["POST", "PUT"]},
        {"resource_prefix": "accounts", "methods": ["GET"]},
    ]);
    let stand_in = account.stand_in(Some(permissions));
    let bot = start(&stand_in, &[]);
    bot.wait_for("no permission to keep entities for interfaces");
    for device in devices {
        let path = format!("entity.{device}.snmp.good");
        let before = stand_in.values_of(1, &path).len();
        values(&stand_in, &path, before + 2);
    }
    assert_eq!(bot.said().matches("no permission to keep").count(), 1, "{}", bot.said());
    assert_eq!(changes(&stand_in), [("POST".to_owned(), Some(403))]);
}

#[test]
fn the_plan_names_jobs_and_sensors_that_cannot_be_used_without_asking_any_device() {
    let mut account = Account::default();
    let good = account.sensor(&[(EXTEND, "get")], "$1", "good");
    let bad = account.sensor(&[(EXTEND, "get")], "$1 +", "bad");
    let public = account.community("snmpv2c", "public");
    let device = account.device(9, public, &[good, bad]);
    let stand_in = account.stand_in(None);
    let folder = Folder::new();
    let output = Command::new(SNMP)
        .arg("--plan")
        .env_clear()
        .env("BACKEND_URL", stand_in.base_url())
        .env("BOT_TOKEN", TOKEN)
        .current_dir(&folder.0)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let jobs: Vec<&str> =
        lines.iter().filter(|l| l.get("intervals").is_some()).map(|l| l["key"].as_str().unwrap()).collect();
    assert_eq!(jobs, [device.to_string(), format!("{device}-interfaces")], "{text}");
    assert!(text.contains("`expression`, column 5"), "{text}");
}
