//! PUT of values on loopback: processor time of the client for each request, next to a bare socket, hyper and reqwest.

use std::future::Future;
use std::io::{Read, Write};
use std::net::TcpStream;

use bytes::Bytes;
use grafolean_std::http::{Endpoint, HttpClient, HttpConfig, Method, Request, Target};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;

use super::bots::Scenario;
use super::sink::Sink;
use super::{CpuTime, Effort};
use crate::refresh::TOKEN;
use crate::table::{Table, figure, times};

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

/// The least µs of CPU for a request, of many short rounds: one in which nobody else was in the way.
fn least(effort: Effort, mut round: impl FnMut(usize)) -> f64 {
    const REQUESTS: usize = 200;
    round(REQUESTS);
    let once = |_| {
        let begin = CpuTime::now();
        round(REQUESTS);
        begin.elapsed().as_secs_f64() * 1e6 / REQUESTS as f64
    };
    (0..8 * effort.repetitions()).map(once).fold(f64::MAX, f64::min)
}

fn raw(effort: Effort, sink: &Sink, body: &str) -> f64 {
    let mut stream = TcpStream::connect(sink.address).unwrap();
    stream.set_nodelay(true).unwrap();
    let request = format!(
        "PUT {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        target(),
        sink.address,
        body.len()
    );
    let mut answer = [0; 1024];
    least(effort, |n| {
        for _ in 0..n {
            stream.write_all(request.as_bytes()).unwrap();
            let got = stream.read(&mut answer).unwrap();
            assert!(answer[..got].starts_with(b"HTTP/1.1 204"));
        }
    })
}

fn on_tokio<F: Future<Output = ()>>(effort: Effort, mut round: impl FnMut(usize) -> F) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let inside = tokio::task::LocalSet::new();
    least(effort, |n| inside.block_on(&runtime, round(n)))
}

fn hyper(effort: Effort, sink: &Sink, body: &str) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let inside = tokio::task::LocalSet::new();
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
    least(effort, |n| {
        inside.block_on(&runtime, async {
            for _ in 0..n {
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

fn ours(effort: Effort, sink: &Sink, body: &str) -> f64 {
    let endpoint = Endpoint { https: false, host: "127.0.0.1".into(), port: sink.address.port() };
    let client = HttpClient::new(endpoint, HttpConfig::default()).unwrap();
    let body = Bytes::copy_from_slice(body.as_bytes());
    // One runtime for all rounds: the connection is kept.
    let client = &client;
    on_tokio(effort, |n| {
        let body = body.clone();
        async move {
            for _ in 0..n {
                let request =
                    Request::new(Method::Put, Target::new(target()).unwrap()).with_body(body.clone());
                let mut answer = client.send(request).await.unwrap();
                assert_eq!(answer.status(), 204);
                while answer.chunk().await.unwrap().is_some() {}
            }
        }
    })
}

fn reqwest(effort: Effort, sink: &Sink, body: &str) -> f64 {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}{}", sink.address, target());
    let body = Bytes::copy_from_slice(body.as_bytes());
    let (client, url) = (&client, &url);
    on_tokio(effort, |n| {
        let body = body.clone();
        async move {
            for _ in 0..n {
                let request = client.put(url).header("content-type", "application/json").body(body.clone());
                let answer = request.send().await.unwrap();
                assert_eq!(answer.status().as_u16(), 204);
                answer.bytes().await.unwrap();
            }
        }
    })
}

/// CPU of a whole bot, µs: for each request, for each value.
fn bot(effort: Effort, batch: u16) -> (f64, f64) {
    let seconds = if effort == Effort::Quick { 3 } else { 6 };
    let scenario =
        Scenario { jobs: 2_000, interval_s: 1, values: 10, spin: 0, batch, threads: 0, seconds, then: 0 };
    let once = |_| {
        let f = scenario.measure();
        assert!(f["dropped"] == 0.0 && f["delivered"] > 0.0, "{f:?}");
        // Requests are counted from the start on: each is full, but for the last one of a second.
        (f["cpu_s"] * 1e6 / (f["delivered"] / f64::from(batch)), f["cpu_s"] * 1e6 / f["delivered"])
    };
    let all = (0..effort.repetitions().min(3)).map(once);
    all.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((0.0, 0.0))
}

/// Prints it.
pub fn run(effort: Effort) {
    println!(
        "## The wire\n\nPUT of values to a sink on loopback that looks at nothing; CPU of the client, kernel included\n"
    );
    let sink = Sink::start(&[]);
    let (ten, hundred) = (body(10), body(100));
    let mut table =
        Table::new(&["client", "µs/request of 10 values", "/ hyper", "µs/request of 100", "µs/value of 100"]);
    type Client = fn(Effort, &Sink, &str) -> f64;
    let clients: [(&str, Client); 4] = [
        ("bare socket, blocking", raw),
        ("hyper, one connection", hyper),
        ("**grafolean-std's client**", ours),
        ("reqwest", reqwest),
    ];
    let mut of_hyper = f64::NAN;
    let mut rows = Vec::new();
    for (name, client) in clients {
        let (a, b) = (client(effort, &sink, &ten), client(effort, &sink, &hundred));
        if name.starts_with("hyper") {
            of_hyper = a;
        }
        rows.push((name, a, b));
    }
    for (name, a, b) in rows {
        table.row(vec![name.into(), figure(a), times(a, of_hyper), figure(b), figure(b / 100.0)]);
    }
    table.row(vec!["Python requests".into(), "492-684".into(), "-".into(), "-".into(), "-".into()]);
    table.print();

    println!(
        "a whole bot: 2,000 jobs of 1 s that post 10 values each; CPU of runs, outbox and requests together\n"
    );
    let mut table = Table::new(&["values in a request, at most", "µs/value", "µs/request"]);
    let (single, batched) = (bot(effort, 10), bot(effort, 1000));
    table.row(vec!["10: one job".into(), figure(single.1), figure(single.0)]);
    table.row(vec!["1000: all jobs of the second".into(), figure(batched.1), figure(batched.0)]);
    table.row(vec!["gain".into(), times(single.1, batched.1), "-".into()]);
    table.row(vec!["Python library, 10".into(), "136".into(), "1360".into()]);
    table.print();
}
