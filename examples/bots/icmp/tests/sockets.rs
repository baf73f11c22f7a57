//! Real sockets: the machine's loopback, and network namespaces where hosts are silent, late, or lie.
//!
//! What a machine does not allow is said on standard error, past the test runner's capture.

// Helpers outside of test functions count as product code for this lint.
#![allow(clippy::unwrap_used)]

use std::future::Future;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::process::{Command, Output};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use grafolean_icmp::{
    AddressChoice, Family, Icmp, IcmpConfig, MAX_TIMEOUT, OpenError, PingError, ResolveError, SocketChoice,
    SocketKind,
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::task::JoinSet;

/// No correct test waits this long.
const LIMIT: Duration = Duration::from_secs(30);
const HOST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
const CHILD: &str = "ICMP_TEST_CHILD";

fn say(text: &str) {
    let _ = std::io::stderr().write_all(format!("NOT ALLOWED HERE: {text}\n").as_bytes());
}

/// The machine's own sockets; where it allows none, the error must say what is missing.
fn open(config: IcmpConfig) -> Option<Icmp> {
    match Icmp::open(config) {
        Ok(icmp) => Some(icmp),
        Err(error) => {
            say(&error.to_string());
            assert!(error.to_string().contains("CAP_NET_RAW"), "{error}");
            None
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Runs the calling test again in a network namespace of its own, after the shell commands of `setup`, by way of
/// `through` (as setpriv). True in that child, which then does the testing.
fn in_namespace(test: &str, setup: &str, through: &str) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let exe = std::env::current_exe().unwrap();
    let unshare = |script: &str| -> std::io::Result<Output> {
        let script = format!("set -e; ip link set lo up; {setup}\n{script}");
        let root =
            std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
        let how = if root { "-n" } else { "-rn" };
        Command::new("unshare").args([how, "sh", "-c", &script]).arg(&exe).env(CHILD, "1").output()
    };
    match unshare(&format!("{through} true")) {
        Ok(output) if output.status.success() => {}
        failed => {
            say(&format!("{test} needs a network namespace: {failed:?}"));
            return false;
        }
    }
    let output = unshare(&format!("exec {through} \"$0\" --exact {test} --nocapture")).unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "in the namespace:\n{text}");
    false
}

const ALLOW_DATAGRAM: &str = "echo 0 0 > /proc/sys/net/ipv4/ping_group_range;";
const FORBID_DATAGRAM: &str = "echo 1 0 > /proc/sys/net/ipv4/ping_group_range;";
const SILENT: &str = "echo 1 > /proc/sys/net/ipv4/icmp_echo_ignore_all;";
const NO_PRIVILEGE: &str = "setpriv --bounding-set=-net_raw,-net_admin";

#[test]
fn loopback_answers_over_both_families() {
    let Some(icmp) = open(IcmpConfig::default()) else { return };
    runtime().block_on(async {
        let mapped = Ipv4Addr::new(127, 0, 0, 1).to_ipv6_mapped();
        for ip in [Ipv4Addr::LOCALHOST.into(), IpAddr::V6(mapped), Ipv6Addr::LOCALHOST.into()] {
            match icmp.ping(ip, LIMIT).await {
                Ok(rtt) => assert!(rtt.is_some_and(|rtt| rtt > Duration::ZERO), "{ip}: {rtt:?}"),
                Err(error) => {
                    say(&error.to_string());
                    assert!(ip == IpAddr::V6(Ipv6Addr::LOCALHOST), "{error}");
                }
            }
        }
    });
}

#[test]
fn five_thousand_targets_asked_at_once_all_answer() {
    let Some(icmp) = open(IcmpConfig::default()) else { return };
    runtime().block_on(async {
        let mut pings = JoinSet::new();
        for i in 0..5_000u32 {
            let icmp = icmp.clone();
            let ip = Ipv4Addr::from(0x7f01_0000 + i + 1);
            pings.spawn(async move { icmp.ping(ip, LIMIT).await });
        }
        let mut answered = 0;
        while let Some(result) = pings.join_next().await {
            assert!(result.unwrap().unwrap().is_some());
            answered += 1;
        }
        assert_eq!(answered, 5_000);
    });
    let stats = icmp.stats();
    assert_eq!((stats.sent, stats.answered, stats.queued, stats.in_flight), (5_000, 5_000, 0, 0));
}

#[test]
fn runtimes_of_several_threads_share_the_sockets_after_the_opening_one_has_gone() {
    let Some(icmp) = runtime().block_on(async { open(IcmpConfig::default()) }) else { return };
    let threads: Vec<_> = (0..4)
        .map(|thread: u8| {
            let icmp = icmp.clone();
            std::thread::spawn(move || {
                // Without any driver: a ping needs none.
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(async {
                    let mut pings = JoinSet::new();
                    for i in 0..250 {
                        let (icmp, ip) = (icmp.clone(), Ipv4Addr::new(127, 2, thread, i));
                        pings.spawn(async move { icmp.ping(ip, LIMIT).await });
                    }
                    pings.join_all().await.into_iter().filter(|rtt| matches!(rtt, Ok(Some(_)))).count()
                })
            })
        })
        .collect();
    let answered: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert_eq!(answered, 1_000);
}

#[test]
fn a_queued_ping_is_taken_back_by_dropping_its_future_and_the_next_one_refused_at_the_limit() {
    let config =
        IcmpConfig { packets_per_second: 1, burst_packets: 1, max_waiting: 1, ..IcmpConfig::default() };
    let Some(icmp) = open(config) else { return };
    let first = runtime().block_on(icmp.ping(Ipv4Addr::LOCALHOST, LIMIT));
    assert!(matches!(first, Ok(Some(_))), "{first:?}");
    {
        let mut second = pin!(icmp.ping(Ipv4Addr::LOCALHOST, LIMIT));
        assert!(second.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(icmp.stats().queued, 1);
        let third = runtime().block_on(icmp.ping(Ipv4Addr::LOCALHOST, LIMIT));
        assert!(matches!(third, Err(PingError::TooMany { limit: 1 })), "{third:?}");
    }
    let stats = icmp.stats();
    assert_eq!((stats.sent, stats.cancelled, stats.queued), (1, 1, 0));
}

#[test]
fn targets_and_time_outs_that_make_no_sense_are_refused() {
    let Some(icmp) = open(IcmpConfig { sockets: SocketChoice::DatagramElseRaw, ..IcmpConfig::default() })
    else {
        return;
    };
    runtime().block_on(async {
        for ip in [Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, Ipv4Addr::new(224, 0, 0, 1)] {
            let error = icmp.ping(ip, LIMIT).await.unwrap_err();
            assert!(matches!(error, PingError::NotUnicast { .. }), "{error}");
            assert!(error.to_string().contains(&ip.to_string()));
        }
        let error = icmp.ping(Ipv4Addr::LOCALHOST, Duration::MAX).await.unwrap_err();
        assert!(error.to_string().ends_with("over the limit of 3600 s"), "{error}");
    });
}

#[test]
fn settings_outside_their_limits_are_named() {
    let config = IcmpConfig { payload_bytes: 15, ..IcmpConfig::default() };
    let error = Icmp::open(config).unwrap_err();
    assert_eq!(error.to_string(), "payload_bytes is 15, but must be from 16 to 1452");
}

#[test]
fn localhost_resolves_and_answers() {
    let Some(icmp) = open(IcmpConfig { addresses: AddressChoice::OnlyV4, ..IcmpConfig::default() }) else {
        return;
    };
    runtime().block_on(async {
        let target = icmp.resolve(" LocalHost ").await.unwrap();
        assert_eq!(target.ip(), IpAddr::V4(Ipv4Addr::LOCALHOST));
        assert!(icmp.ping(target, LIMIT).await.unwrap().is_some());
        let literal = icmp.resolve("::ffff:192.0.2.1").await.unwrap();
        assert_eq!((literal.family(), literal.to_string()), (Family::V4, "192.0.2.1".to_string()));
    });
    let Some(icmp) = open(IcmpConfig::default()) else { return };
    let scoped = runtime().block_on(icmp.resolve("fe80::1%lo")).unwrap();
    assert_eq!((scoped.family(), scoped.to_string()), (Family::V6, "fe80::1%1".to_string()));
}

#[test]
fn a_name_that_gives_no_address_is_named_in_the_error() {
    let Some(icmp) = open(IcmpConfig { addresses: AddressChoice::OnlyV4, ..IcmpConfig::default() }) else {
        return;
    };
    runtime().block_on(async {
        let error = icmp.resolve("nosuch.invalid").await.unwrap_err();
        assert!(matches!(&error, ResolveError::Lookup { name, .. } if name == "nosuch.invalid"), "{error}");
        assert!(error.to_string().starts_with("cannot resolve \"nosuch.invalid\": "), "{error}");
        let error = icmp.resolve("fe80::1%lo").await.unwrap_err();
        assert_eq!(error.to_string(), "\"fe80::1%lo\" has no IPv4 address");
        for name in ["", "a b", "a\nb", &"x".repeat(254)] {
            let error = icmp.resolve(name).await.unwrap_err();
            assert!(matches!(error, ResolveError::Invalid { .. }), "{name:?}: {error}");
            assert!(!error.to_string().contains('\n'));
        }
    });
}

#[test]
fn datagram_sockets_need_no_privilege_where_the_group_is_allowed() {
    let test = "datagram_sockets_need_no_privilege_where_the_group_is_allowed";
    if !in_namespace(test, ALLOW_DATAGRAM, NO_PRIVILEGE) {
        return;
    }
    let icmp = Icmp::open(IcmpConfig::default()).unwrap();
    assert!(icmp.sockets().all(|socket| socket.kind == SocketKind::Datagram));
    let rtt = runtime().block_on(icmp.ping(Ipv4Addr::LOCALHOST, LIMIT));
    assert!(matches!(rtt, Ok(Some(_))), "{rtt:?}");
    if icmp.unavailable(Family::V6).is_none() {
        let rtt = runtime().block_on(icmp.ping(Ipv6Addr::LOCALHOST, LIMIT));
        assert!(matches!(rtt, Ok(Some(_))), "{rtt:?}");
    }
    let error =
        Icmp::open(IcmpConfig { sockets: SocketChoice::RawOnly, ..IcmpConfig::default() }).unwrap_err();
    assert!(error.to_string().contains("CAP_NET_RAW, which this process lacks"), "{error}");
    assert!(!error.to_string().contains("ping_group_range"), "{error}");
}

#[test]
fn raw_sockets_are_used_where_datagram_ones_are_forbidden() {
    if !in_namespace("raw_sockets_are_used_where_datagram_ones_are_forbidden", FORBID_DATAGRAM, "") {
        return;
    }
    let icmp = Icmp::open(IcmpConfig::default()).unwrap();
    assert!(icmp.sockets().all(|socket| socket.kind == SocketKind::Raw));
    // The neighbour sees all of the first one's replies, and takes none of them for its own.
    let neighbour = Icmp::open(IcmpConfig::default()).unwrap();
    let ping = |ip: IpAddr| runtime().block_on(icmp.ping(ip, LIMIT));
    assert!(matches!(ping(Ipv4Addr::LOCALHOST.into()), Ok(Some(_))));
    let mut replies = 1;
    if icmp.unavailable(Family::V6).is_none() {
        assert!(matches!(ping(Ipv6Addr::LOCALHOST.into()), Ok(Some(_))));
        replies = 2;
    }
    wait_until("the neighbour sees foreign replies", || neighbour.stats().foreign == replies);
    let error =
        Icmp::open(IcmpConfig { sockets: SocketChoice::DatagramOnly, ..IcmpConfig::default() }).unwrap_err();
    assert!(error.to_string().contains("net.ipv4.ping_group_range is \"1 0\""), "{error}");
}

#[test]
fn without_setting_and_capability_the_error_names_both() {
    if !in_namespace("without_setting_and_capability_the_error_names_both", FORBID_DATAGRAM, NO_PRIVILEGE) {
        return;
    }
    let error = Icmp::open(IcmpConfig::default()).unwrap_err();
    assert!(matches!(error, OpenError::NoSocket { .. }));
    let text = error.to_string();
    for part in
        ["IPv4 and IPv6: ", "for group 0", "net.ipv4.ping_group_range is \"1 0\"", "CAP_NET_RAW", "setcap"]
    {
        assert!(text.contains(part), "{part:?} in {text}");
    }
}

#[test]
fn a_target_without_a_route_gives_the_kernels_error() {
    if !in_namespace("a_target_without_a_route_gives_the_kernels_error", "", "") {
        return;
    }
    let icmp = Icmp::open(IcmpConfig::default()).unwrap();
    let error = runtime().block_on(icmp.ping(Ipv4Addr::new(192, 0, 2, 1), LIMIT)).unwrap_err();
    assert!(error.to_string().starts_with("cannot send to 192.0.2.1: Network is unreachable"), "{error}");
    assert_eq!(icmp.stats().send_errors, 1);
}

#[test]
fn ipv6_switched_off_is_named_as_the_cause() {
    let off = "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6;";
    if !in_namespace("ipv6_switched_off_is_named_as_the_cause", off, "") {
        return;
    }
    let icmp = Icmp::open(IcmpConfig::default()).unwrap();
    let error = runtime().block_on(icmp.ping(Ipv6Addr::LOCALHOST, LIMIT)).unwrap_err();
    assert!(matches!(error, PingError::Ipv6Off { .. }), "{error}");
    assert!(matches!(runtime().block_on(icmp.ping(Ipv4Addr::LOCALHOST, LIMIT)), Ok(Some(_))));
}

#[test]
fn seventy_thousand_in_flight_leave_nothing_behind_and_the_next_one_is_answered() {
    let test = "seventy_thousand_in_flight_leave_nothing_behind_and_the_next_one_is_answered";
    if !in_namespace(test, SILENT, "") {
        return;
    }
    let config = IcmpConfig { packets_per_second: 1_000_000, burst_packets: 1_000, ..IcmpConfig::default() };
    let icmp = Icmp::open(config).unwrap();
    runtime().block_on(async {
        let mut pings = JoinSet::new();
        for i in 0..70_000u32 {
            let icmp = icmp.clone();
            pings.spawn(async move { icmp.ping(Ipv4Addr::from(0x7f00_0001 + i), MAX_TIMEOUT).await });
        }
        while icmp.stats().in_flight < 70_000 {
            tokio::task::yield_now().await;
        }
        // Its sequence number is that of one in flight.
        std::fs::write("/proc/sys/net/ipv4/icmp_echo_ignore_all", "0").unwrap();
        assert!(icmp.ping(HOST, LIMIT).await.unwrap().is_some());
        pings.shutdown().await;
    });
    let stats = icmp.stats();
    assert_eq!((stats.sent, stats.answered, stats.cancelled, stats.in_flight), (70_001, 1, 70_000, 0));
}

#[test]
fn sends_without_buffers_are_made_again_and_keep_their_time_out() {
    // Requests to absent neighbours stay in the send buffer until their address resolution fails, here after 60 ms.
    let setup = "ip link add v0 type veth peer name v1; ip link set v0 up; ip link set v1 up; \
                 ip addr add 10.9.0.1/24 dev v0; echo 20 > /proc/sys/net/ipv4/neigh/v0/retrans_time_ms;";
    if !in_namespace("sends_without_buffers_are_made_again_and_keep_their_time_out", setup, "") {
        return;
    }
    let icmp = Icmp::open(IcmpConfig { send_buffer_bytes: 1, ..IcmpConfig::default() }).unwrap();
    runtime().block_on(async {
        let mut pings = JoinSet::new();
        for last in 2..62 {
            let icmp = icmp.clone();
            let ip = Ipv4Addr::new(10, 9, 0, last);
            pings.spawn(async move { icmp.ping(ip, Duration::from_secs(2)).await });
        }
        for outcome in pings.join_all().await {
            assert_eq!(outcome.unwrap(), None, "sent, not answered");
        }
    });
    let stats = icmp.stats();
    assert!(stats.put_off > 0, "the buffer was never full: {stats:?}");
    assert_eq!((stats.sent, stats.timed_out, stats.send_errors), (60, 60, 0));
}

/// Answers for [`HOST`] what, when and how often the test wants; the kernel there is silent.
struct Responder(Socket);

impl Responder {
    fn bind(ip: Ipv4Addr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap();
        if nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &(8 << 20)).is_err()
        {
            socket.set_recv_buffer_size(8 << 20).unwrap();
        }
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket.bind(&SockAddr::from(SocketAddr::from((ip, 0)))).unwrap();
        Self(socket)
    }

    /// The next request, as ICMP.
    fn request(&self) -> Vec<u8> {
        loop {
            let mut buffer = [0; 2048];
            let length = (&self.0).read(&mut buffer).unwrap();
            if buffer[20] == 8 {
                return buffer[20..length].to_vec();
            }
        }
    }

    fn reply(&self, request: &[u8], change: impl Fn(&mut Vec<u8>)) {
        let mut reply = request.to_vec();
        reply[0] = 0;
        change(&mut reply);
        reply[2..4].fill(0);
        let words: u64 = reply.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(pair[1])).sum();
        // Ones' complement: the sum modulo 65,535.
        let sum = !((words % 0xffff) as u16);
        reply[2..4].copy_from_slice(&sum.to_be_bytes());
        let pinger = SockAddr::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        self.0.send_to(&reply, &pinger).unwrap();
    }
}

fn pings_of(
    icmp: &Arc<Icmp>,
    count: usize,
    timeout: Duration,
) -> std::thread::JoinHandle<Vec<Option<Duration>>> {
    let icmp = icmp.clone();
    std::thread::spawn(move || {
        runtime().block_on(async move {
            let mut pings = JoinSet::new();
            for _ in 0..count {
                let icmp = icmp.clone();
                pings.spawn(async move { icmp.ping(HOST, timeout).await.unwrap() });
            }
            pings.join_all().await
        })
    })
}

fn only_the_right_reply_counts(kind: SocketChoice) {
    let icmp = Arc::new(Icmp::open(IcmpConfig { sockets: kind, ..IcmpConfig::default() }).unwrap());
    let (host, other) = (Responder::bind(HOST), Responder::bind(Ipv4Addr::new(127, 0, 0, 10)));
    let (unchanged, stats) = (|_: &mut Vec<u8>| {}, || icmp.stats());

    // Lies first, then the truth, twice.
    let start = Instant::now();
    let ping = pings_of(&icmp, 1, LIMIT);
    let request = host.request();
    let received = Instant::now();
    assert_eq!(request.len(), 64, "an ICMP header and 56 bytes");
    other.reply(&request, unchanged);
    wait_until("the reply from another address is counted", || stats().other_source == 1);
    host.reply(&request, |reply| reply[20] ^= 1);
    wait_until("the reply with a wrong cookie is counted", || stats().foreign == 1);
    host.reply(&request, |reply| reply.truncate(20));
    wait_until("the cut reply is counted", || stats().foreign == 2);
    assert_eq!((stats().in_flight, stats().answered), (1, 0));
    let held = received.elapsed();
    host.reply(&request, unchanged);
    let rtt = ping.join().unwrap()[0].unwrap();
    assert!(held <= rtt && rtt <= start.elapsed(), "{held:?} <= {rtt:?} <= {:?}", start.elapsed());
    host.reply(&request, unchanged);
    wait_until("the second reply is counted as late", || stats().late == 1);

    // Too late.
    assert_eq!(pings_of(&icmp, 1, Duration::from_millis(20)).join().unwrap(), [None]);
    host.reply(&host.request(), unchanged);
    wait_until("the reply after the time-out is counted as late", || stats().late == 2);

    // Dropped in flight.
    let runtime = runtime();
    let ping = icmp.clone();
    let ping = runtime.spawn(async move { ping.ping(HOST, LIMIT).await });
    runtime.block_on(async {
        while icmp.stats().in_flight < 1 {
            tokio::task::yield_now().await;
        }
        ping.abort();
        assert!(ping.await.unwrap_err().is_cancelled());
    });
    assert_eq!((stats().cancelled, stats().in_flight), (1, 0));
    host.request();

    // Many in the air at once, answered backwards.
    let pings = pings_of(&icmp, 5_000, LIMIT);
    let requests: Vec<_> = (0..5_000).map(|_| host.request()).collect();
    wait_until("all are in flight", || stats().in_flight == 5_000);
    for (i, request) in requests.iter().rev().enumerate() {
        host.reply(request, unchanged);
        if i % 100 == 99 {
            wait_until("the thread keeps up", || stats().answered == 2 + i as u64);
        }
    }
    assert!(pings.join().unwrap().iter().all(Option::is_some));
    let stats = stats();
    assert_eq!((stats.sent, stats.answered, stats.timed_out), (5_003, 5_001, 1));
}

#[test]
fn only_the_right_reply_counts_on_a_raw_socket() {
    if in_namespace("only_the_right_reply_counts_on_a_raw_socket", SILENT, "") {
        only_the_right_reply_counts(SocketChoice::RawOnly);
    }
}

#[test]
fn only_the_right_reply_counts_on_a_datagram_socket() {
    let setup = format!("{SILENT}{ALLOW_DATAGRAM}");
    if in_namespace("only_the_right_reply_counts_on_a_datagram_socket", &setup, "") {
        only_the_right_reply_counts(SocketChoice::DatagramOnly);
    }
}
