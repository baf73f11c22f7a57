//! net-snmp's agent answers this crate's requests, and its tools understand this crate's answers.
//!
//! Needs Debian's packages `snmp` and `snmpd`, or whatever else provides `snmpget`, `snmpbulkget` and `snmpd`.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use grafolean_snmp_codec::v3::{
    Answer, AnswerError, AuthProtocol, Engine, EngineId, LocalizedKeys, MasterKeys, PrivProtocol, Report,
    ReportReason, RequestParams, Security, discovery_request,
};
use grafolean_snmp_codec::{
    ErrorStatus, Message, MessageWriter, Oid, OidRef, PduHeader, PduKind, Value, Version, request_tag,
};

const UPTIME: &str = "1.3.6.1.2.1.1.3.0";
const CONTACT: &str = "1.3.6.1.2.1.1.4.0";
const AUTH_PASSWORD: &str = "an authentication password";
const PRIV_PASSWORD: &str = "privacy 2";

const AUTH: [(AuthProtocol, &str); 6] = [
    (AuthProtocol::Md5, "MD5"),
    (AuthProtocol::Sha1, "SHA"),
    (AuthProtocol::Sha224, "SHA-224"),
    (AuthProtocol::Sha256, "SHA-256"),
    (AuthProtocol::Sha384, "SHA-384"),
    (AuthProtocol::Sha512, "SHA-512"),
];

const PRIVACY: [(PrivProtocol, &str); 6] = [
    (PrivProtocol::Des, "DES"),
    (PrivProtocol::Aes128, "AES"),
    (PrivProtocol::Aes192Blumenthal, "AES-192"),
    (PrivProtocol::Aes256Blumenthal, "AES-256"),
    (PrivProtocol::Aes192Reeder, "AES-192-C"),
    (PrivProtocol::Aes256Reeder, "AES-256-C"),
];

/// How long any of these processes may take for anything.
const LIMIT: Duration = Duration::from_secs(30);

fn oid(text: &str) -> Oid {
    text.parse().unwrap()
}

/// A tool of net-snmp, which is in `/usr/sbin` where that is not searched.
fn tool(name: &str) -> Command {
    let places = ["/usr/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin"];
    let searched = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let found = searched
        .unwrap_or_default()
        .into_iter()
        .chain(places.map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|path| path.exists());
    let Some(path) = found else { panic!("{name} is missing: apt-get install snmp snmpd") };
    Command::new(path)
}

/// A folder of its own, removed with everything in it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("snmp-codec-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Reads no configuration but its own, and writes nowhere else.
    fn confine(&self, command: &mut Command) {
        command.env("SNMPCONFPATH", &self.0).env("SNMP_PERSISTENT_DIR", &self.0).env("MIBS", "");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// A running snmpd.
struct Agent {
    child: Child,
    address: SocketAddr,
    folder: Folder,
}

impl Agent {
    /// Starts one with these lines of configuration, and waits until it answers.
    fn start(users: &str) -> Self {
        // Another process may take the port in between.
        for _ in 0..5 {
            let folder = Folder::new();
            let config = format!("rocommunity public\nsysContact someone\n{users}\n");
            fs::write(folder.0.join("agent.conf"), config).unwrap();
            let port = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let mut command = tool("snmpd");
            folder.confine(&mut command);
            command.arg("-C").arg("-c").arg(folder.0.join("agent.conf"));
            command.arg("-Lf").arg(folder.0.join("agent.log")).args(["-f", "-r"]);
            command.arg("-x").arg(folder.0.join("agentx")).arg(format!("udp:{address}"));
            let child =
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let mut agent = Self { child, address, folder };
            if agent.answers() {
                return agent;
            }
        }
        panic!("snmpd could not be started on a free port, five times");
    }

    /// Waits for its first answer; false if it ended.
    fn answers(&mut self) -> bool {
        let socket = Socket::to(self.address, Duration::from_millis(200));
        let begin = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            if socket.get(Version::V2c, "public", UPTIME).is_ok() {
                return true;
            }
            assert!(begin.elapsed() < LIMIT, "snmpd does not answer: {}", self.log());
        }
        false
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.0.join("agent.log")).unwrap_or_default()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

struct Socket(UdpSocket);

impl Socket {
    fn to(address: SocketAddr, limit: Duration) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.connect(address).unwrap();
        socket.set_read_timeout(Some(limit)).unwrap();
        Self(socket)
    }

    /// Sends a request, and waits for what answers it.
    fn exchange(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        self.0.send(request)?;
        let mut buffer = [0; 65_535];
        loop {
            let len = self.0.recv(&mut buffer)?;
            if request_tag(&buffer[..len]) == request_tag(request) {
                return Ok(buffer[..len].to_vec());
            }
        }
    }

    fn get(&self, version: Version, community: &str, name: &str) -> io::Result<Vec<u8>> {
        let mut buffer = [0; 484];
        let mut writer =
            MessageWriter::new(&mut buffer, version, community.as_bytes(), PduHeader::get(next_id()))
                .unwrap();
        writer.push_oid(&oid(name)).unwrap();
        self.exchange(writer.finish().unwrap())
    }
}

/// Each of three bytes, so that messages have the same lengths in every run.
fn next_id() -> i32 {
    static NEXT: AtomicU32 = AtomicU32::new(0x10000);
    NEXT.fetch_add(1, Ordering::Relaxed) as i32
}

/// A user of an agent, as a bot would be.
struct User {
    socket: Socket,
    engine: Engine,
    name: String,
    keys: LocalizedKeys,
}

impl User {
    fn new(agent: &Agent, name: &str, keys: &MasterKeys) -> Self {
        let socket = Socket::to(agent.address, LIMIT);
        let mut buffer = [0; 100];
        let answer = socket.exchange(discovery_request(&mut buffer, next_id(), 1).unwrap()).unwrap();
        let engine = Engine::from_discovery(&answer, 0).unwrap();
        assert!(!engine.is_verified);
        Self { socket, engine, name: name.to_owned(), keys: keys.localize(&engine.id) }
    }

    /// A request for the contact, with the number of its PDU.
    fn request(&self) -> (Vec<u8>, i32) {
        let security = Security::new(self.name.as_bytes(), &self.keys).unwrap();
        let mut buffer = [0; 1472];
        let request_id = next_id();
        let params = RequestParams::new(next_id(), PduHeader::get_next(request_id), 0, next_id() as u64);
        let mut writer = security.encode_request(&mut buffer, &self.engine, params).unwrap();
        writer.push_oid(&oid("1.3.6.1.2.1.1.4")).unwrap();
        (writer.finish().unwrap().to_vec(), request_id)
    }

    /// Gets the contact: the values, or the report.
    fn ask(&mut self) -> Result<Result<Vec<String>, Report>, AnswerError> {
        let (request, request_id) = self.request();
        let mut answer = self.socket.exchange(&request).unwrap();
        let security = Security::new(self.name.as_bytes(), &self.keys).unwrap();
        security.decode_response(&mut self.engine, &mut answer, 0).map(|answer| match answer {
            Answer::Response(scoped) => {
                assert_eq!(scoped.context_engine_id, self.engine.id.as_bytes());
                assert_eq!(scoped.pdu.header.request_id(), request_id);
                Ok(scoped
                    .pdu
                    .var_binds
                    .map(|v| v.unwrap())
                    .map(|v| format!("{} {:?}", v.oid, v.value))
                    .collect())
            }
            Answer::Report(report) => Err(report),
        })
    }

    fn assert_gets_the_contact(&mut self) {
        let wanted = format!("{CONTACT} {:?}", Value::OctetString(b"someone"));
        assert_eq!(self.ask(), Ok(Ok(vec![wanted])), "{}", self.name);
    }

    fn assert_is_refused_with(&mut self, reason: ReportReason) {
        match self.ask() {
            Ok(Err(report)) => assert_eq!(report.reason, reason, "{}", self.name),
            other => panic!("{}: {other:?}", self.name),
        }
    }
}

#[test]
fn the_agent_answers_versions_1_and_2c() {
    let agent = Agent::start("");
    let socket = Socket::to(agent.address, LIMIT);
    for version in [Version::V1, Version::V2c] {
        let answer = socket.get(version, "public", CONTACT).unwrap();
        let message = Message::decode(&answer).unwrap();
        assert_eq!((message.version, message.community.as_bytes()), (version, &b"public"[..]));
        assert_eq!(message.pdu.header.error_status(), ErrorStatus::NoError);
        let read: Vec<_> = message.pdu.var_binds.collect::<Result<_, _>>().unwrap();
        assert_eq!((read.len(), read[0].oid == oid(CONTACT)), (1, true));
        assert_eq!(read[0].value, Value::OctetString(b"someone"));
    }

    let missing = "1.3.6.1.2.1.1.4.9";
    let answer = socket.get(Version::V1, "public", missing).unwrap();
    let header = Message::decode(&answer).unwrap().pdu.header;
    assert_eq!((header.error_status(), header.error_index()), (ErrorStatus::NoSuchName, 1));
    let answer = socket.get(Version::V2c, "public", missing).unwrap();
    let message = Message::decode(&answer).unwrap();
    assert_eq!(message.pdu.var_binds.map(|v| v.unwrap().value).collect::<Vec<_>>(), [Value::NoSuchInstance]);
}

#[test]
fn the_agent_answers_bulk_requests_with_as_many_variables_as_were_asked_for() {
    let agent = Agent::start("");
    let socket = Socket::to(agent.address, LIMIT);
    let mut buffer = [0; 484];
    let header = PduHeader::get_bulk(77, 1, 4);
    let mut writer = MessageWriter::new(&mut buffer, Version::V2c, b"public", header).unwrap();
    for name in ["1.3.6.1.2.1.1.3", "1.3.6.1.2.1.1"] {
        writer.push_oid(&oid(name)).unwrap();
    }
    let answer = socket.exchange(writer.finish().unwrap()).unwrap();
    let message = Message::decode(&answer).unwrap();
    assert_eq!(message.pdu.header, PduHeader::response(77, ErrorStatus::NoError, 0));
    let read: Vec<_> = message.pdu.var_binds.collect::<Result<_, _>>().unwrap();
    assert_eq!(read.len(), 5);
    assert_eq!(read[0].oid, oid(UPTIME));
    assert!(matches!(read[0].value, Value::TimeTicks(_)));
    assert!(
        read[1..].is_sorted_by(|a, b| a.oid < b.oid)
            && read[1..].iter().all(|v| v.oid.starts_with(&oid("1.3.6.1.2.1.1")))
    );
    assert!(matches!(read[2].value, Value::ObjectIdentifier(id) if id.starts_with(&oid("1.3.6.1.4.1.8072"))));
}

#[test]
fn the_agent_answers_users_with_every_level_and_every_protocol() {
    let mut users = "createUser nobody\nrouser nobody noauth\n".to_owned();
    for (_, auth) in AUTH {
        users += &format!("createUser {auth} {auth} \"{AUTH_PASSWORD}\"\nrouser {auth} auth\n");
        for (_, privacy) in PRIVACY {
            users += &format!(
                "createUser {auth}+{privacy} {auth} \"{AUTH_PASSWORD}\" {privacy} \"{PRIV_PASSWORD}\"\n\
                 rouser {auth}+{privacy} priv\n"
            );
        }
    }
    let agent = Agent::start(&users);
    User::new(&agent, "nobody", &MasterKeys::none()).assert_gets_the_contact();
    // One thread for each protocol, as unoptimised hashing takes long.
    thread::scope(|scope| {
        for (auth, name) in AUTH {
            let agent = &agent;
            scope.spawn(move || {
                let keys = MasterKeys::auth(auth, AUTH_PASSWORD.as_bytes()).unwrap();
                let mut user = User::new(agent, name, &keys);
                user.assert_gets_the_contact();
                assert!(user.engine.is_verified);
                for (privacy, priv_name) in PRIVACY {
                    let keys = MasterKeys::auth_priv(
                        auth,
                        AUTH_PASSWORD.as_bytes(),
                        privacy,
                        PRIV_PASSWORD.as_bytes(),
                    )
                    .unwrap();
                    User::new(agent, &format!("{name}+{priv_name}"), &keys).assert_gets_the_contact();
                }
            });
        }
    });
}

#[test]
fn the_agent_reports_what_is_wrong_with_a_user() {
    let agent = Agent::start(&format!(
        "createUser signs SHA-256 \"{AUTH_PASSWORD}\"\nrouser signs auth\n\
         createUser des SHA-256 \"{AUTH_PASSWORD}\" DES \"{PRIV_PASSWORD}\"\nrouser des priv\n"
    ));
    let (auth, right, wrong) = (AuthProtocol::Sha256, AUTH_PASSWORD.as_bytes(), &b"another password"[..]);
    let signs = |password| MasterKeys::auth(auth, password).unwrap();
    let both = |privacy, password| MasterKeys::auth_priv(auth, right, privacy, password).unwrap();
    let aes = PrivProtocol::Aes128;
    User::new(&agent, "signs", &signs(right)).assert_gets_the_contact();
    let des_keys = both(PrivProtocol::Des, PRIV_PASSWORD.as_bytes());
    User::new(&agent, "des", &des_keys).assert_gets_the_contact();

    User::new(&agent, "signs", &signs(wrong)).assert_is_refused_with(ReportReason::WrongDigest);
    let md5 = MasterKeys::auth(AuthProtocol::Md5, right).unwrap();
    User::new(&agent, "signs", &md5).assert_is_refused_with(ReportReason::WrongDigest);
    User::new(&agent, "stranger", &signs(right)).assert_is_refused_with(ReportReason::UnknownUserName);
    User::new(&agent, "stranger", &MasterKeys::none()).assert_is_refused_with(ReportReason::UnknownUserName);
    User::new(&agent, "signs", &both(aes, right))
        .assert_is_refused_with(ReportReason::UnsupportedSecurityLevel);
    // No whole number of DES' blocks.
    User::new(&agent, "des", &both(aes, PRIV_PASSWORD.as_bytes()))
        .assert_is_refused_with(ReportReason::DecryptionError);

    // net-snmp does not notice that what a wrong password gives is no message, and says nothing: what comes first is
    // the answer to the next request.
    let (silent, mut user) =
        (User::new(&agent, "des", &both(PrivProtocol::Des, wrong)), User::new(&agent, "des", &des_keys));
    user.socket.0.send(&silent.request().0).unwrap();
    let (request, _) = user.request();
    user.socket.0.send(&request).unwrap();
    let mut buffer = [0; 2048];
    let len = user.socket.0.recv(&mut buffer).unwrap();
    assert_eq!(request_tag(&buffer[..len]), request_tag(&request));
    user.assert_gets_the_contact();

    let mut user = User::new(&agent, "signs", &signs(right));
    let other = EngineId::new(b"\x80\x00\x00\x00\x04other").unwrap();
    user.engine = Engine { id: other, ..user.engine };
    user.keys = signs(right).localize(&other);
    user.assert_is_refused_with(ReportReason::UnknownEngineId);
}

#[test]
fn a_wrong_clock_is_set_by_the_agents_report_and_the_request_then_succeeds() {
    let agent = Agent::start(&format!("createUser signs SHA \"{AUTH_PASSWORD}\"\nrouser signs auth\n"));
    let keys = MasterKeys::auth(AuthProtocol::Sha1, AUTH_PASSWORD.as_bytes()).unwrap();
    let user = User::new(&agent, "signs", &keys);
    let (true_boots, id) = (user.engine.boots, user.engine.id);
    // One which knows only the name, and one which remembers what was before a restart.
    for engine in
        [Engine::new(id), Engine { boots: true_boots - 1, time_s: 5_000, is_verified: true, ..user.engine }]
    {
        let mut user = User { engine, ..User::new(&agent, "signs", &keys) };
        let report = user.ask().unwrap().unwrap_err();
        assert_eq!(
            (report.reason, report.is_verified, report.send_again),
            (ReportReason::NotInTimeWindow, true, true)
        );
        assert_eq!((user.engine.boots, user.engine.is_verified), (true_boots, true));
        user.assert_gets_the_contact();
    }
}

/// A variable, and what the tools print for it.
type Row = (Oid, Value<'static>, &'static str);

/// One of each type that SMI has, as our agent has them.
fn table() -> Vec<Row> {
    const NULL_OID: &[u8] = &[0];
    let values = [
        (Value::Integer(i32::MIN), "INTEGER: -2147483648"),
        (Value::Integer(-129), "INTEGER: -129"),
        (Value::Integer(128), "INTEGER: 128"),
        (Value::OctetString(b"some text"), "STRING: \"some text\""),
        (Value::OctetString(&[0, 0xff, 0x10]), "Hex-STRING: 00 FF 10 "),
        (Value::OctetString(b""), "\"\""),
        (
            Value::ObjectIdentifier(OidRef::from_ber(&[0x2b, 6, 1, 0x8f, 0xff, 0xff, 0xff, 0x7f]).unwrap()),
            "OID: .1.3.6.1.4294967295",
        ),
        (Value::ObjectIdentifier(OidRef::from_ber(NULL_OID).unwrap()), "OID: .0.0"),
        (Value::IpAddress([192, 0, 2, 255]), "IpAddress: 192.0.2.255"),
        (Value::Counter32(u32::MAX), "Counter32: 4294967295"),
        (Value::Unsigned32(1 << 31), "Gauge32: 2147483648"),
        (Value::TimeTicks(123_456), "Timeticks: (123456) 0:20:34.56"),
        (Value::Opaque(&[0x9f, 0x78, 4, 0x3f, 0xc0, 0, 0]), "Opaque: Float: 1.500000"),
        (Value::Counter64(u64::MAX), "Counter64: 18446744073709551615"),
        (Value::Null, "NULL"),
        (Value::NoSuchObject, "No Such Object available on this agent at this OID"),
        (Value::NoSuchInstance, "No Such Instance currently exists at this OID"),
        (Value::EndOfMibView, "No more variables left in this MIB View (It is past the end of the MIB tree)"),
    ];
    let name = |row: u32| Oid::from_arcs(&[1, 3, 6, 1, 4, 1, 99_999, row, 0]).unwrap();
    (1..).zip(values).map(|(row, (value, shown))| (name(row), value, shown)).collect()
}

/// Answers requests from the table until one asks for nothing.
fn serve(socket: &UdpSocket) {
    let table = table();
    let (mut request, mut buffer) = ([0; 2048], [0; 2048]);
    loop {
        let (len, from) = socket.recv_from(&mut request).unwrap();
        let message = Message::decode(&request[..len]).unwrap();
        assert_eq!(message.community.as_bytes(), b"secret");
        if message.pdu.var_binds.clone().next().is_none() {
            return;
        }
        let header = PduHeader::response(message.pdu.header.request_id(), ErrorStatus::NoError, 0);
        let mut writer = MessageWriter::new(&mut buffer, message.version, b"secret", header).unwrap();
        for var_bind in message.pdu.var_binds {
            let name = var_bind.unwrap().oid;
            match message.pdu.header.kind() {
                PduKind::Get => {
                    let row = table.iter().find(|(oid, ..)| *oid == name);
                    writer.push(name, row.map_or(Value::NoSuchObject, |(_, value, _)| *value)).unwrap();
                }
                PduKind::GetBulk => {
                    let rows = table.iter().filter(|(oid, ..)| oid.as_oid_ref() > name);
                    for (oid, value, _) in rows.take(message.pdu.header.max_repetitions() as usize) {
                        writer.push(oid, *value).unwrap();
                    }
                }
                kind => panic!("{kind:?}"),
            }
        }
        socket.send_to(writer.finish().unwrap(), from).unwrap();
    }
}

/// What a tool prints with these arguments.
fn run(name: &str, folder: &Folder, arguments: &[String]) -> String {
    let mut command = tool(name);
    folder.confine(&mut command);
    let output = command.args(arguments).output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_tools_read_every_type_of_value() {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let address = socket.local_addr().unwrap();
    let folder = Folder::new();
    let arguments = |version: &str, more: &[&str], names: Vec<String>| -> Vec<String> {
        let first = [version, "-c", "secret", "-On", "-Oe", "-t", "10", "-r", "0"];
        let address = address.to_string();
        first.iter().chain(more).map(|s| (*s).to_owned()).chain([address]).chain(names).collect()
    };
    let names = |rows: &[Row]| rows.iter().map(|(oid, ..)| oid.to_string()).collect();
    let in_v1 = |value: &Value<'_>| !value.is_exception() && !matches!(value, Value::Counter64(_));
    let all = table();
    let old: Vec<Row> = all.iter().filter(|(_, value, _)| in_v1(value)).cloned().collect();

    let printed = thread::scope(|scope| {
        let agent = scope.spawn(|| serve(&socket));
        let printed = [
            run("snmpget", &folder, &arguments("-v2c", &[], names(&all))),
            run("snmpget", &folder, &arguments("-v1", &[], names(&old))),
            run("snmpbulkget", &folder, &arguments("-v2c", &["-Cr5"], names(&all[1..2]))),
        ];
        let mut buffer = [0; 100];
        let end = MessageWriter::new(&mut buffer, Version::V1, b"secret", PduHeader::get(0)).unwrap();
        Socket::to(address, LIMIT).0.send(end.finish().unwrap()).unwrap();
        agent.join().unwrap();
        printed
    });
    let lines =
        |rows: &[Row]| rows.iter().map(|(oid, _, shown)| format!(".{oid} = {shown}\n")).collect::<String>();
    assert_eq!(printed, [lines(&all), lines(&old), lines(&all[2..7])]);
}
