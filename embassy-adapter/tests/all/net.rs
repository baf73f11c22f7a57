//! The connector and the pings over embassy-net: two stacks on one wire in memory, on simulated time.
#![cfg(feature = "net")]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use embassy_futures::join::{join, join_array};
use embassy_futures::select::{select, select3};
use embassy_net::tcp::{State, TcpSocket};
use embassy_net::udp::{PacketMetadata, UdpSocket};
use embassy_net::{Config, Ipv4Cidr, Stack, StackResources, StaticConfigV4};
use embassy_net_driver::{Capabilities, Driver, HardwareAddress, LinkState, RxToken, TxToken};
use embassy_time::{Duration, Instant, Timer, with_timeout};
use grafolean_embassy::Transport;
use grafolean_embassy::core::api::{BaseUrl, Method};
use grafolean_embassy::core::collector::RequestError::{Lost, NotSent};
use grafolean_embassy::core::random::SplitMix64;
use grafolean_embassy::http::{Connector, Http, Limits};
use grafolean_embassy::net::{Echo, EchoError, EchoMemory, NetConnector, NetMemory};

use crate::requests;
use crate::requests::{List, Outcome, Request, get, request};
use crate::support;

const BOARD: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const PORT: u16 = 8080;

/// Two ends, frames on their way to each, and what happens to them.
#[derive(Default)]
struct Wire {
    ways: [RefCell<VecDeque<Vec<u8>>>; 2],
    wakers: [RefCell<Option<Waker>>; 2],
    is_cut: Cell<bool>,
    /// Of 100 frames so many are lost, by this generator.
    lost: Cell<u64>,
    random: RefCell<Option<SplitMix64>>,
    /// Resets (RST) that the board has sent.
    resets: Cell<u32>,
    /// Ends (FIN) that the board has sent.
    ends: Cell<u32>,
}

impl Wire {
    fn carry(&self, to: usize, frame: Vec<u8>) {
        if to == 1
            && let Some(flags) = tcp_flags(&frame)
        {
            self.resets.set(self.resets.get() + u32::from(flags & 4 != 0));
            self.ends.set(self.ends.get() + u32::from(flags & 1 != 0));
        }
        let unlucky = self.random.borrow_mut().as_mut().is_some_and(|r| r.next_u64() % 100 < self.lost.get());
        if self.is_cut.get() || unlucky {
            return;
        }
        self.ways[to].borrow_mut().push_back(frame);
        if let Some(waker) = self.wakers[to].borrow_mut().take() {
            waker.wake();
        }
    }
}

/// The flags of a TCP segment over IPv4 over ethernet.
fn tcp_flags(frame: &[u8]) -> Option<u8> {
    let is_tcp = frame.get(12..14)? == [8, 0] && *frame.get(23)? == 6;
    let head = usize::from(frame.get(14)? & 15) * 4;
    if is_tcp { frame.get(14 + head + 13).copied() } else { None }
}

struct End {
    wire: Rc<Wire>,
    side: usize,
}

struct Rx(Vec<u8>);
struct Tx {
    wire: Rc<Wire>,
    to: usize,
}

impl RxToken for Rx {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(mut self, f: F) -> R {
        f(&mut self.0)
    }
}

impl TxToken for Tx {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.wire.carry(self.to, frame);
        result
    }
}

impl End {
    fn tx(&self) -> Tx {
        Tx { wire: Rc::clone(&self.wire), to: 1 - self.side }
    }
}

impl Driver for End {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx;
    fn receive(&mut self, cx: &mut Context<'_>) -> Option<(Rx, Tx)> {
        let frame = self.wire.ways[self.side].borrow_mut().pop_front();
        if frame.is_none() {
            self.wire.wakers[self.side].replace(Some(cx.waker().clone()));
        }
        frame.map(|frame| (Rx(frame), self.tx()))
    }
    fn transmit(&mut self, _: &mut Context<'_>) -> Option<Tx> {
        Some(self.tx())
    }
    fn link_state(&mut self, _: &mut Context<'_>) -> LinkState {
        LinkState::Up
    }
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
    fn hardware_address(&self) -> HardwareAddress {
        HardwareAddress::Ethernet([2, 0, 0, 0, 0, self.side as u8])
    }
}

/// A future that is polled only if it was woken itself, as a task of an executor is: a socket that is asked wakes its stack.
struct Task<F> {
    future: Pin<Box<F>>,
    woken: Arc<Woken>,
}

struct Woken {
    itself: AtomicBool,
    outer: Mutex<Waker>,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.itself.store(true, Ordering::Relaxed);
        self.outer.lock().unwrap().wake_by_ref();
    }
}

impl<F: Future> Task<F> {
    fn new(future: F) -> Self {
        let woken = Woken { itself: AtomicBool::new(true), outer: Mutex::new(Waker::noop().clone()) };
        Task { future: Box::pin(future), woken: Arc::new(woken) }
    }
}

impl<F: Future> Future for Task<F> {
    type Output = F::Output;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.woken.outer.lock().unwrap().clone_from(cx.waker());
        if !self.woken.itself.swap(false, Ordering::Relaxed) {
            return Poll::Pending;
        }
        let waker = Waker::from(Arc::clone(&self.woken));
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }
}

fn config(address: Ipv4Addr) -> Config {
    let mut servers = heapless::Vec::new();
    servers.push(SERVER).unwrap();
    Config::ipv4_static(StaticConfigV4 {
        address: Ipv4Cidr::new(address, 24),
        gateway: None,
        dns_servers: servers,
    })
}

/// Awaits `board` on the board's stack beside `server` on the server's, on simulated time.
fn lab<R>(
    limit_s: u64,
    wire: &Rc<Wire>,
    board: impl AsyncFnOnce(Stack<'static>) -> R,
    server: impl AsyncFnOnce(Stack<'static>),
) -> R {
    support::polls_take_time();
    // Tests may leak: sockets want a stack that lives as long.
    let stack = |side, address| {
        let resources = Box::leak(Box::new(StackResources::<8>::new()));
        embassy_net::new(End { wire: Rc::clone(wire), side }, config(address), resources, 7 + side as u64)
    };
    let (board_stack, mut board_runner) = stack(0, BOARD);
    let (server_stack, mut server_runner) = stack(1, SERVER);
    let result = RefCell::new(None);
    let all = async {
        let board = async {
            let ended = board(board_stack).await;
            result.replace(Some(ended));
        };
        let served = async {
            server(server_stack).await;
            core::future::pending::<()>().await;
        };
        select3(
            Task::new(board),
            Task::new(served),
            join(Task::new(board_runner.run()), Task::new(server_runner.run())),
        )
        .await;
    };
    support::simulate(limit_s, all);
    result.into_inner().unwrap()
}

/// Performs `requests` over a connector of its own.
async fn perform(stack: Stack<'static>, url: &str, limits: Limits, requests: &[Request]) -> Vec<Outcome> {
    let memory = Box::leak(Box::new(NetMemory::<1024, 1024>::new()));
    let mut buf = [0; 700];
    let url = BaseUrl::parse(url).unwrap();
    let mut http = Http::new(NetConnector::new(stack, memory), url, &mut buf, limits).unwrap();
    let list = List::new(requests);
    http.serve(&list).await;
    // A connector lives as long as its board; dropped, it could not send what is left.
    Timer::after_secs(1).await;
    list.outcomes.take()
}

/// Answers each request with `hello`, on connections one after the other; after `per_connection` answers it closes.
/// Gives how the connections ended to `ends`.
async fn serve(stack: Stack<'static>, per_connection: usize, ends: &RefCell<Vec<&'static str>>) {
    let (rx, tx) = (Box::leak(Box::new([0; 2048])), Box::leak(Box::new([0; 2048])));
    let mut socket = TcpSocket::new(stack, rx, tx);
    loop {
        socket.accept(PORT).await.unwrap();
        let mut left = per_connection;
        let end = loop {
            let (mut head, mut buf) = (Vec::new(), [0; 256]);
            let read = loop {
                match socket.read(&mut buf).await {
                    Ok(0) => break "end",
                    Err(_) => break "reset",
                    Ok(n) => head.extend_from_slice(&buf[..n]),
                }
                let text = String::from_utf8(head.clone()).unwrap();
                if let Some((head, body)) = text.split_once("\r\n\r\n") {
                    let promised = head.lines().find_map(|l| l.strip_prefix("Content-Length: "));
                    if body.len() >= promised.map_or(0, |n| n.parse().unwrap()) {
                        break "";
                    }
                }
            };
            if !read.is_empty() {
                break read;
            }
            let mut answer: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
            while !answer.is_empty() {
                let Ok(n) = socket.write(answer).await else { break };
                answer = &answer[n..];
            }
            left -= 1;
            if left == 0 {
                break "closed";
            }
        };
        ends.borrow_mut().push(end);
        socket.close();
        let _ = with_timeout(Duration::from_secs(20), socket.flush()).await;
        while socket.state() != State::Closed && socket.state() != State::TimeWait {
            if with_timeout(Duration::from_secs(20), socket.read(&mut [0; 64])).await.is_err() {
                break;
            }
            Timer::after_millis(10).await;
        }
        socket.abort();
        let _ = with_timeout(Duration::from_millis(100), socket.flush()).await;
    }
}

const URL: &str = "http://192.0.2.2:8080/api";

#[test]
fn requests_share_a_connection_which_is_closed_in_order_at_the_end() {
    let (wire, ends) = (Rc::new(Wire::default()), RefCell::new(Vec::new()));
    let requests = [get(), request(Method::Put, b"[1,2,3]"), request(Method::Post, b"[4]")];
    let board = async |stack| perform(stack, URL, Limits::DEFAULT, &requests).await;
    let outcomes = lab(60, &wire, board, async |stack| serve(stack, 9, &ends).await);
    assert!(outcomes.iter().all(|o| o.answer() == (200, "hello")) && outcomes.len() == 3);
    assert_eq!(*ends.borrow(), ["end"]);
    assert_eq!((wire.ends.get(), wire.resets.get()), (1, 0));
}

#[test]
fn a_connection_that_is_given_up_is_reset_so_that_the_server_does_not_keep_it() {
    let (wire, ends) = (Rc::new(Wire::default()), RefCell::new(Vec::new()));
    // The server takes the request and says nothing.
    let silent = async |stack: Stack<'static>| {
        let (rx, tx) = (Box::leak(Box::new([0; 2048])), Box::leak(Box::new([0; 2048])));
        let mut socket = TcpSocket::new(stack, rx, tx);
        socket.accept(PORT).await.unwrap();
        let end = loop {
            match socket.read(&mut [0; 256]).await {
                Ok(0) => break "end",
                Ok(_) => {}
                Err(_) => break "reset",
            }
        };
        ends.borrow_mut().push(end);
    };
    let board = async |stack| {
        let limits = Limits { head_ms: 2_000, ..Limits::DEFAULT };
        perform(stack, URL, limits, &[get()]).await
    };
    let outcomes = lab(60, &wire, board, silent);
    assert_eq!(outcomes[0].failure(), (Lost, "no answer within 2000 ms"));
    assert_eq!(*ends.borrow(), ["reset"]);
}

#[test]
fn a_server_that_closes_after_each_answer_costs_no_socket_in_a_thousand_connections() {
    let (wire, ends) = (Rc::new(Wire::default()), RefCell::new(Vec::new()));
    // A pause, in which the server closes; a set of 8 sockets would be full at the sixth that is not given back.
    let requests: Vec<Request> = (0..1000).map(|_| Request { after_ms: 100, ..get() }).collect();
    let board = async |stack| perform(stack, URL, Limits::DEFAULT, &requests).await;
    let outcomes = lab(3_000, &wire, board, async |stack| {
        join_array([(); 3].map(|()| serve(stack, 1, &ends))).await;
    });
    assert!(outcomes.len() == 1000 && outcomes.iter().all(|o| o.answer() == (200, "hello")));
    assert!(ends.borrow().len() >= 999, "{}", ends.borrow().len());
}

#[test]
fn no_step_waits_for_ever_without_a_link() {
    let (wire, ends) = (Rc::new(Wire::default()), RefCell::new(Vec::new()));
    let requests = [get(), Request { after_ms: 1_000, ..get() }, Request { after_ms: 1_000, ..get() }];
    let link = Rc::clone(&wire);
    let board = async |stack| {
        let cut = async {
            Timer::after_millis(500).await;
            link.is_cut.set(true);
            // Past the second request, which waits for its answer, and the third, which connects.
            Timer::after_millis(41_500).await;
            link.is_cut.set(false);
            core::future::pending::<()>().await;
        };
        let performed = perform(stack, URL, Limits::DEFAULT, &requests);
        match select(performed, cut).await {
            embassy_futures::select::Either::First(outcomes) => (outcomes, Instant::now().as_millis()),
            embassy_futures::select::Either::Second(()) => unreachable!(),
        }
    };
    let (outcomes, ended_ms) = lab(200, &wire, board, async |stack| serve(stack, 9, &ends).await);
    assert_eq!(outcomes[0].answer(), (200, "hello"));
    assert_eq!(outcomes[1].failure(), (Lost, "no answer within 30000 ms"));
    assert_eq!(outcomes[2].failure(), (NotSent, "no connection within 10000 ms"));
    assert!(ended_ms < 45_000, "{ended_ms}");
}

#[test]
fn requests_get_through_whatever_a_bad_link_loses() {
    for seed in 0..8 {
        println!("replay: seed {seed}");
        let (wire, ends) = (Rc::new(Wire::default()), RefCell::new(Vec::new()));
        wire.lost.set(10);
        wire.random.replace(Some(SplitMix64::new(seed)));
        let put = request(Method::Put, &[b'1'; 3_000]);
        let requests: Vec<Request> = (0..20).map(|_| Request { after_ms: 100, ..put.clone() }).collect();
        let board = async |stack| perform(stack, URL, Limits::DEFAULT, &requests).await;
        let outcomes = lab(2_000, &wire, board, async |stack| {
            // Each that listens may still be busy with a connection that the board has left.
            join_array([(); 5].map(|()| serve(stack, 1000, &ends))).await;
        });
        let answered = outcomes.iter().filter(|o| o.end == requests::End::Answered).count();
        assert!(answered >= 15, "{answered} of {}: {outcomes:?}", outcomes.len());
    }
}

/// Answers `questions` of the board for any name by the server's address, then says nothing.
async fn name_server(stack: Stack<'static>, questions: u32) {
    let leak = || Box::leak(Box::new([0; 1024]));
    let metadata = || Box::leak(Box::new([PacketMetadata::EMPTY; 4]));
    let mut socket = UdpSocket::new(stack, metadata(), leak(), metadata(), leak());
    socket.bind(53).unwrap();
    for _ in 0..questions {
        let mut question = [0; 512];
        let (len, from) = socket.recv_from(&mut question).await.unwrap();
        // RFC 1035: the question again, as an answer, and two addresses of which the first is right.
        let mut answer = question[..len].to_vec();
        answer[2..4].copy_from_slice(&[0x81, 0x80]);
        answer[6..8].copy_from_slice(&[0, 2]);
        for address in [SERVER, Ipv4Addr::new(192, 0, 2, 99)] {
            answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
            answer.extend_from_slice(&address.octets());
        }
        socket.send_to(&answer, from).await.unwrap();
    }
    core::future::pending().await
}

#[test]
fn while_the_name_server_is_silent_the_last_good_address_is_used() {
    let (wire, ends) = (Rc::new(Wire::default()), RefCell::new(Vec::new()));
    let named = "http://grafolean.lan:8080/api";
    let requests = [get(), Request { after_ms: 100, ..get() }];
    let board = async |stack| perform(stack, named, Limits::DEFAULT, &requests).await;
    let server = async |stack| {
        join(name_server(stack, 1), serve(stack, 1, &ends)).await;
    };
    let outcomes = lab(60, &wire, board, server);
    assert!(outcomes.iter().all(|o| o.answer() == (200, "hello")), "{outcomes:?}");
    // Without a last address there is none.
    let board = async |stack| perform(stack, named, Limits::DEFAULT, &[get()]).await;
    let outcomes = lab(60, &wire, board, async |stack| name_server(stack, 0).await);
    assert_eq!(outcomes[0].failure(), (NotSent, "host name not resolved"));
}

#[test]
fn an_ipv6_address_and_a_closed_port_are_told_apart() {
    let wire = Rc::new(Wire::default());
    let one = |url: &'static str| {
        let board = async |stack| perform(stack, url, Limits::DEFAULT, &[get()]).await;
        let outcomes = lab(60, &wire, board, async |_| {});
        let (error, why) = outcomes[0].failure();
        assert_eq!(error, NotSent);
        why.to_string()
    };
    assert_eq!(one("http://[2001:db8::1]/api"), "no connection: Unsupported");
    assert_eq!(one(URL), "no connection: ConnectionRefused");
}

#[test]
fn connecting_is_given_up_and_taken_up_again_at_any_moment() {
    let (wire, ends) = (Rc::new(Wire::default()), RefCell::new(Vec::new()));
    let board = async |stack: Stack<'static>| {
        let memory = Box::leak(Box::new(NetMemory::<256, 256>::new()));
        let mut connector = NetConnector::new(stack, memory);
        for us in (0..3_000).step_by(37) {
            let limit = Duration::from_micros(us);
            if let Ok(stream) = with_timeout(limit, connector.connect("192.0.2.2", PORT)).await {
                drop(stream.unwrap());
            }
        }
        let stream = connector.connect("192.0.2.2", PORT).await.unwrap();
        <NetConnector<'_> as Connector>::close(stream).await;
    };
    lab(600, &wire, board, async |stack| serve(stack, 1, &ends).await);
    assert_eq!(ends.borrow().last(), Some(&"end"));
}

#[test]
fn pings_are_answered_or_not_and_run_beside_each_other() {
    let wire = Rc::new(Wire::default());
    let memory: &EchoMemory<2> = Box::leak(Box::new(EchoMemory::new()));
    let board = async |stack| {
        let echo = Echo::new(stack, memory);
        let nobody = Ipv4Addr::new(192, 0, 2, 77);
        // One that nobody answers, not even for its link-layer address, holds up no other.
        let lost = echo.ping(nobody, 5_000);
        let answered = async {
            let mut answers = 0;
            for _ in 0..50 {
                let asked = Instant::now();
                answers += u32::from(echo.ping(SERVER, 1_000).await.unwrap().is_some());
                assert!(asked.elapsed() < Duration::from_millis(2_100), "it waited for the other");
            }
            answers
        };
        let (lost, answers) = join(lost, answered).await;
        assert_eq!((lost, answers), (Ok(None), 50));
        // Each time with sockets of its own, which are given back; also when given up.
        for _ in 0..100 {
            let given_up = with_timeout(Duration::from_millis(10), echo.ping(nobody, 5_000)).await;
            assert!(given_up.is_err());
        }
        assert!(echo.ping(SERVER, 1_000).await.unwrap().is_some());
        // A third at once has no place.
        let two = join(echo.ping(nobody, 500), echo.ping(nobody, 500));
        let (_, third) = join(two, async { echo.ping(SERVER, 500).await }).await;
        assert_eq!(third, Err(EchoError::TooMany { limit: 2 }));
    };
    // The server's stack answers pings by itself.
    lab(60, &wire, board, async |_| {});
}

#[test]
fn the_round_trip_does_not_hold_the_time_in_which_the_link_layer_address_was_asked_for() {
    let wire = Rc::new(Wire::default());
    let memory: &EchoMemory<1> = Box::leak(Box::new(EchoMemory::new()));
    let link = Rc::clone(&wire);
    let board = async |stack| {
        let echo = Echo::new(stack, memory);
        link.is_cut.set(true);
        // The first question for the address is lost, the second one comes a second later.
        let plug = async {
            Timer::after_millis(300).await;
            link.is_cut.set(false);
        };
        let (rtt, ()) = join(echo.ping(SERVER, 10_000), plug).await;
        let rtt_us = rtt.unwrap().unwrap();
        assert!(Instant::now().as_millis() >= 900, "{}", Instant::now().as_millis());
        assert!(rtt_us < 10_000, "{rtt_us}");
    };
    lab(60, &wire, board, async |_| {});
}

#[test]
fn a_board_without_an_address_does_not_call_others_unreachable() {
    support::polls_take_time();
    let wire = Rc::new(Wire::default());
    let resources = Box::leak(Box::new(StackResources::<8>::new()));
    let (stack, mut runner) = embassy_net::new(End { wire, side: 0 }, Config::default(), resources, 1);
    let memory: &EchoMemory<1> = Box::leak(Box::new(EchoMemory::new()));
    let echo = Echo::new(stack, memory);
    let asked = async {
        assert_eq!(echo.ping(SERVER, 1_000).await, Err(EchoError::NoNetwork));
        assert_eq!(echo.resolve("grafolean.lan").await, Err(EchoError::NoNetwork));
        let outcomes = perform(stack, URL, Limits::DEFAULT, &[get()]).await;
        assert_eq!(outcomes[0].failure(), (NotSent, "no connection within 10000 ms"));
    };
    support::simulate(60, select(Task::new(asked), Task::new(runner.run())));
}
