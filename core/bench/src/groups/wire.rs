//! PUT of values on loopback: processor time of the client for each request, next to a bare socket, hyper and reqwest.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::Bytes;
use grafolean_core::outbox::Settings;
use grafolean_std::http::{Endpoint, HttpClient, HttpConfig, Method, Request, Target};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;

use super::bots::Scenario;
use super::sink::Sink;
use super::{Bounds, CpuTime, Effort};
use crate::refresh::TOKEN;
use crate::table::{Table, figure, times};
use crate::values::Queue;

/// A body of `n` values of a ping bot.
fn body(n: usize) -> String {
    let one = |i| {
        format!(
            r#"{{"p":"entity.{}.ping.p{}.rtt","v":0.{:06},"t":1700000000.123}}"#,
            1_000_000 + i / 10,
            i % 10,
            1_500 + i
        )
    };
    format!("[{}]", (0..n).map(one).collect::<Vec<_>>().join(","))
}

fn target() -> String {
    format!("/api/accounts/7/values/?b={TOKEN}")
}

/// Of a round.
const REQUESTS: usize = 200;

/// Some requests: what they took of the processor.
type Round = Box<dyn FnMut() -> Duration>;

fn timed(mut round: impl FnMut() + 'static) -> Round {
    Box::new(move || {
        let begin = CpuTime::now();
        round();
        begin.elapsed()
    })
}

fn raw(sink: &Sink, body: &str) -> Round {
    let mut stream = TcpStream::connect(sink.address).unwrap();
    stream.set_nodelay(true).unwrap();
    let request = format!(
        "PUT {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        target(),
        sink.address,
        body.len()
    );
    let mut answer = [0; 1024];
    timed(move || {
        for _ in 0..REQUESTS {
            stream.write_all(request.as_bytes()).unwrap();
            let got = stream.read(&mut answer).unwrap();
            assert!(answer[..got].starts_with(b"HTTP/1.1 204"));
        }
    })
}

fn runtime() -> (tokio::task::LocalSet, tokio::runtime::Runtime) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    (tokio::task::LocalSet::new(), runtime)
}

fn hyper(sink: &Sink, body: &str) -> Round {
    let (inside, runtime) = runtime();
    let mut sender = inside.block_on(&runtime, async {
        let stream = tokio::net::TcpStream::connect(sink.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) =
            hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await.unwrap();
        tokio::task::spawn_local(connection);
        sender
    });
    let body = Bytes::copy_from_slice(body.as_bytes());
    // All that can be made before is made before.
    let target: hyper::Uri = target().parse().unwrap();
    let host = hyper::header::HeaderValue::from_str(&sink.address.to_string()).unwrap();
    let json = hyper::header::HeaderValue::from_static("application/json");
    timed(move || {
        inside.block_on(&runtime, async {
            for _ in 0..REQUESTS {
                let request = hyper::Request::put(target.clone())
                    .header("host", host.clone())
                    .header("content-type", json.clone())
                    .body(Full::new(body.clone()))
                    .unwrap();
                sender.ready().await.unwrap();
                let answer = sender.send_request(request).await.unwrap();
                assert_eq!(answer.status(), 204);
                answer.into_body().collect().await.unwrap();
            }
        });
    })
}

fn client(sink: &Sink) -> HttpClient {
    let https = sink.certificate.is_some();
    let endpoint = Endpoint { https, host: "127.0.0.1".into(), port: sink.address.port() };
    let mut config = HttpConfig::default();
    let file = std::env::temp_dir().join(format!("grafolean-bench-{}.pem", std::process::id()));
    if let Some(pem) = &sink.certificate {
        std::fs::write(&file, pem).unwrap();
        config.ca_file = Some(file.clone());
    }
    let client = HttpClient::new(endpoint, config).unwrap();
    let _ = std::fs::remove_file(file);
    client
}

async fn put(client: &HttpClient, body: impl Into<Bytes>) -> u16 {
    let request = Request::new(Method::Put, Target::new(target()).unwrap()).with_body(body);
    let mut answer = client.send(request).await.unwrap();
    while answer.chunk().await.unwrap().is_some() {}
    answer.status()
}

fn ours(sink: &Sink, body: &str) -> Round {
    let (inside, runtime) = runtime();
    let client = client(sink);
    let body = Bytes::copy_from_slice(body.as_bytes());
    timed(move || {
        inside.block_on(&runtime, async {
            for _ in 0..REQUESTS {
                assert_eq!(put(&client, body.clone()).await, 204);
            }
        });
    })
}

/// What a request costs from the outbox on, as the driver does it: values that wait there, a body made of them, the answer taken.
fn from_outbox(sink: &Sink, values: u16) -> Round {
    let (inside, runtime) = runtime();
    let client = client(sink);
    Box::new(move || {
        let settings = Settings { max_values: values, ..Settings::DEFAULT };
        let mut queue = Queue::with(REQUESTS * usize::from(values), settings);
        queue.hand_over();
        let mut requests = 0;
        let begin = CpuTime::now();
        inside.block_on(&runtime, async {
            while let Some(body) = queue.request() {
                let status = put(&client, body).await;
                queue.answered(status);
                requests += 1;
            }
        });
        let took = begin.elapsed();
        assert_eq!(requests, REQUESTS);
        took
    })
}

fn reqwest(sink: &Sink, body: &str) -> Round {
    let (inside, runtime) = runtime();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}{}", sink.address, target());
    let body = Bytes::copy_from_slice(body.as_bytes());
    timed(move || {
        inside.block_on(&runtime, async {
            for _ in 0..REQUESTS {
                let request = client.put(&url).header("content-type", "application/json").body(body.clone());
                let answer = request.send().await.unwrap();
                assert_eq!(answer.status().as_u16(), 204);
                answer.bytes().await.unwrap();
            }
        });
    })
}

/// CPU of a whole bot, µs: for each request, for each value.
fn bot(effort: Effort, batch: u16) -> (f64, f64) {
    let seconds = if effort == Effort::Quick { 3 } else { 6 };
    let scenario = Scenario {
        jobs: 2_000,
        interval_s: 1,
        values: 10,
        spin: 0,
        batch,
        threads: 0,
        seconds,
        then: [0; 2],
        ages: false,
    };
    let once = |_| {
        let f = scenario.measure();
        assert!(f["delivered"] > 0.0 && f["requests"] > 0.0, "{f:?}");
        (f["cpu_s"] * 1e6 / f["requests"], f["cpu_s"] * 1e6 / f["delivered"])
    };
    let all = (0..effort.repetitions().min(3)).map(once);
    all.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((0.0, 0.0))
}

/// Prints it.
pub fn run(effort: Effort, bounds: &mut Bounds) {
    println!(
        "## The wire\n\nPUT of values to a sink on loopback that looks at nothing; CPU of the client, kernel included\n"
    );
    let sink = Sink::start(&[]);
    let (ten, hundred) = (body(10), body(100));
    let mut table =
        Table::new(&["client", "µs/request of 10 values", "/ hyper", "µs/request of 100", "µs/value of 100"]);
    let of = |client: fn(&Sink, &str) -> Round, sink: &Sink| [&ten, &hundred].map(|body| client(sink, body));
    let mut clients = [
        ("bare socket, blocking", of(raw, &sink)),
        ("hyper, one connection", of(hyper, &sink)),
        (
            "**outbox to socket**: body made, sent, answer taken",
            [10, 100].map(|values| from_outbox(&sink, values)),
        ),
        ("grafolean-std's client alone, body made before", of(ours, &sink)),
        ("the same over TLS 1.3", of(ours, &Sink::start_tls())),
        ("reqwest", of(reqwest, &sink)),
    ];
    // In turns; of many short rounds the least counts: one in which nobody else was in the way.
    let mut least = [[Duration::MAX; 2]; 6];
    for _ in 0..8 * effort.repetitions() {
        for ((_, rounds), least) in clients.iter_mut().zip(&mut least) {
            rounds.iter_mut().zip(least).for_each(|(round, least)| *least = round().min(*least));
        }
    }
    let least = least.map(|two| two.map(|took| took.as_secs_f64() * 1e6 / REQUESTS as f64));
    let of_hyper = least[1][0];
    for ((name, _), [a, b]) in clients.iter().zip(least) {
        table.row(vec![(*name).into(), figure(a), times(a, of_hyper), figure(b), figure(b / 100.0)]);
    }
    table.row(vec!["Python requests".into(), "492-684".into(), "-".into(), "-".into(), "-".into()]);
    table.print();

    let ratio = least[2][0] / of_hyper;
    let measured = format!("{}x from the outbox on", figure(ratio));
    bounds.add("wire: at most 1.3x a raw hyper loop, 10 values", measured, ratio <= 1.3);
    println!("handing values over is not counted here; see `values`\n");

    println!(
        "a whole bot: 2,000 jobs of 1 s that post 10 values each; CPU of the process: runs, outbox and requests together; requests as the sink counts them\n"
    );
    let mut table = Table::new(&["values in a request, at most", "µs/value", "µs/request"]);
    let (single, batched) = (bot(effort, 10), bot(effort, 1000));
    table.row(vec!["10: one job".into(), figure(single.1), figure(single.0)]);
    table.row(vec!["1000: all jobs of the second".into(), figure(batched.1), figure(batched.0)]);
    table.row(vec!["gain".into(), times(single.1, batched.1), "-".into()]);
    let (gain, measured) = (single.1 / batched.1, times(single.1, batched.1));
    bounds.add("wire: batching makes a value at least 4x cheaper, whole bot", measured, gain >= 4.0);
    table.row(vec!["Python library, 10".into(), "136".into(), "1360".into()]);
    table.print();
}
