//! A scripted backend for the driver's tests: the lists of one account, any of which can be made to misbehave.
#![allow(dead_code, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

use std::io::Write;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use grafolean_std::core::jobs::Due;
use grafolean_std::core::journal::Event;
use grafolean_std::driver::{Config, Observer, RunEnd};

use crate::http_support::{Received, Server, TOKEN, answer};

/// What the scripted backend sends to a request, and whether it closes the connection then.
pub enum Sends {
    Bytes(Vec<u8>, bool),
    /// Nothing, ever.
    Nothing,
}

pub fn json(status: u16, body: &str) -> Sends {
    Sends::Bytes(answer(status, body).into_bytes(), false)
}

/// The first half of the right answer, then the end of the connection.
pub fn cut(body: &str) -> Sends {
    let whole = answer(200, body);
    Sends::Bytes(whole.as_bytes()[..whole.len() - body.len() / 2].to_vec(), true)
}

/// The last word of a list's path, as `entities`; or the first of `profile/`, `status/info`.
pub fn kind(request: &Received) -> &str {
    let path = request.line().split(' ').nth(1).unwrap().split('?').next().unwrap();
    path.trim_start_matches("/api/").trim_end_matches('/').rsplit('/').next().unwrap()
}

/// Account 1 with two devices, polled every second over the protocol `test`.
pub fn right(kind: &str) -> &'static str {
    match kind {
        "info" => r#"{"alive": true, "db_migration_needed": false, "user_exists": true}"#,
        "profile" => {
            r#"{"user_id": 41, "user_type": "bot", "record": {"id": 41, "protocol": "test", "tied_to_account": null}}"#
        }
        "accounts" => r#"{"list": [{"id": 1, "name": "One"}]}"#,
        "entities" => {
            r#"{"list": [
              {"id": 31, "name": "a", "entity_type": "device", "parent": null, "details": {},
               "protocols": {"test": {"credential": 11, "bot": 41, "sensors": [{"sensor": 21, "interval": null}]}}},
              {"id": 32, "name": "b", "entity_type": "device", "parent": null, "details": {},
               "protocols": {"test": {"credential": 11, "bot": 41, "sensors": [{"sensor": 21, "interval": null}]}}}]}"#
        }
        "credentials" => r#"{"list": [{"id": 11, "name": "c", "protocol": "test", "details": {}}]}"#,
        "sensors" => {
            r#"{"list": [{"id": 21, "name": "s", "protocol": "test", "default_interval": 1, "details": {}}]}"#
        }
        "values" => "",
        other => panic!("not asked by a bot: {other}"),
    }
}

/// A backend that does what `script` says; where that says nothing, what is right.
pub async fn scripted(script: impl Fn(&Received) -> Option<Sends> + Send + Sync + 'static) -> Server {
    let script = Arc::new(script);
    Server::start(move |mut peer| {
        let script = script.clone();
        async move {
            while let Some(request) = peer.request().await {
                let sends = script(&request).unwrap_or_else(|| match kind(&request) {
                    "values" => Sends::Bytes(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(), false),
                    kind => json(200, right(kind)),
                });
                match sends {
                    Sends::Bytes(bytes, closes) => {
                        peer.send(&bytes).await;
                        if closes {
                            return;
                        }
                    }
                    Sends::Nothing => return peer.until_closed().await,
                }
            }
        }
    })
    .await
}

pub fn config(server: &Server) -> Config {
    quick(Config::new(&format!("http://{}/api", server.address), TOKEN).unwrap())
}

/// With a refresh each second and short pauses after faults.
pub fn quick(mut config: Config) -> Config {
    config.collector.refresh_interval_s = 1;
    config.collector.outbox.backoff_min_ms = 50;
    config.collector.outbox.backoff_max_ms = 200;
    config
}

/// What has happened.
#[derive(Clone, Default)]
pub struct Notes(Arc<Mutex<Noted>>);

#[derive(Default)]
pub struct Noted {
    pub events: Vec<Event>,
    pub began: Vec<Due>,
    pub ended: Vec<(Due, RunEnd)>,
    pub at_once: usize,
    pub most_at_once: usize,
}

impl Notes {
    pub fn read<T>(&self, look: impl FnOnce(&Noted) -> T) -> T {
        look(&self.0.lock().unwrap())
    }

    pub fn ended(&self) -> usize {
        self.read(|n| n.ended.len())
    }

    pub fn events(&self, which: impl Fn(&Event) -> bool) -> usize {
        self.read(|n| n.events.iter().filter(|e| which(e)).count())
    }
}

impl Observer for Notes {
    fn event(&self, event: &Event, _path: &str) {
        self.0.lock().unwrap().events.push(*event);
    }

    fn run_began(&self, due: &Due) {
        let mut noted = self.0.lock().unwrap();
        noted.began.push(*due);
        noted.at_once += 1;
        noted.most_at_once = noted.most_at_once.max(noted.at_once);
    }

    fn run_ended(&self, due: &Due, end: &RunEnd, _took: Duration, _values: u32) {
        let mut noted = self.0.lock().unwrap();
        noted.ended.push((*due, end.clone()));
        noted.at_once -= usize::from(*end != RunEnd::Gone);
    }
}

/// What the calling thread logs, at all levels.
///
/// One subscriber serves the whole process, and each thread has its text: with a subscriber per thread, a line that
/// another thread came to first could be switched off for all of them.
#[derive(Clone, Default)]
pub struct Captured(Arc<Mutex<Vec<u8>>>);

thread_local!(static CAPTURED: Captured = Captured::default());

impl Captured {
    pub fn here() -> Self {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            let logs = tracing_subscriber::fmt()
                .with_max_level(tracing::Level::TRACE)
                .with_ansi(false)
                .with_writer(|| CAPTURED.with(Captured::clone));
            tracing::subscriber::set_global_default(logs.finish()).unwrap();
        });
        CAPTURED.with(Captured::clone)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    /// How many lines hold all of `parts`.
    pub fn lines(&self, parts: &[&str]) -> usize {
        self.text().lines().filter(|line| parts.iter().all(|part| line.contains(part))).count()
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
