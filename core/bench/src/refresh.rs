//! A refresh of a large account through a whole collector: bytes in, jobs out, no sockets.

use grafolean_core::api::{Resource, Token};
use grafolean_core::bot::{Bot, Context, EntityView, JobSink, NewJob};
use grafolean_core::collector::{Action, BodyStatus, Collector, ResponseHead, Settings};
use grafolean_core::heapless;
use grafolean_core::inline_storage;
use grafolean_core::jobs::Due;
use grafolean_core::journal::Event;
use grafolean_core::time::Millis;

use crate::json::{PROTOCOL, credentials, entities, sensors};

/// The account.
pub const ACCOUNT: u64 = 7;
/// A token of the right form.
pub const TOKEN: &str = "00000000-0000-4000-8000-00000000000a";

/// What the backend says of the bot.
pub const PROFILE: &str =
    r#"{"user_id":1408704727,"user_type":"bot","record":{"protocol":"myprotocol","tied_to_account":null}}"#;

/// The bot: one job for each device.
#[derive(Clone, Copy, Debug)]
pub struct Poller;

/// A device's details.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct Device {
    /// Its address.
    pub ipv4: heapless::String<40>,
}

/// A credential's.
#[derive(Clone, serde::Deserialize)]
pub struct Login {
    /// Who.
    pub username: heapless::String<32>,
    /// The secret.
    pub password: heapless::String<32>,
    /// Seconds.
    pub timeout: u16,
}

/// A sensor's.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct Metric {
    /// What to read.
    pub metric: heapless::String<32>,
}

impl Bot for Poller {
    type Name = heapless::String<24>;
    type Entity = Device;
    type Credential = Login;
    type Sensor = Metric;
    type Job = ();
    type Error = &'static str;

    fn protocol(&self) -> Option<&str> {
        Some(PROTOCOL)
    }

    fn entity_jobs(&self, entity: &EntityView<'_, Self>, jobs: &mut dyn JobSink<()>) {
        let intervals = entity.intervals(jobs);
        jobs.add(NewJob::new(intervals, ()));
    }

    async fn perform<C: Context<Bot = Self>>(&self, _: &(), _: &Due, _: &mut C) -> Result<(), &'static str> {
        Ok(())
    }
}

inline_storage! {
    /// Room for the large account, and as much again to stage it.
    pub struct Memory for Poller {
        accounts: 2, entities: 320, links: 8, credentials: 16, sensors: 64, jobs: 320, spare: 320,
        intervals: 1600, distinct_intervals: 64, runs: 2, cells: 64, element: 2048, scratch: 128,
        listing: 0, states: 0, faults: 64, events: 256,
    }
}

/// A collector and the bodies that it reads.
pub struct Account {
    collector: Box<Collector<Poller, Memory>>,
    entities: String,
    credentials: String,
    sensors: String,
    now: Millis,
    chunk: usize,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Account")
    }
}

impl Account {
    /// 300 devices with 5 sensors each, nothing read yet; bodies come in chunks of `chunk` bytes.
    #[must_use]
    pub fn new(chunk: usize) -> Self {
        let mut settings = Settings::host(Token::parse(TOKEN).unwrap(), "/api");
        settings.wait_until_ready = false;
        Account {
            collector: Box::new(Collector::new(settings, Memory::new())),
            entities: entities(300, 5),
            credentials: credentials(),
            sensors: sensors(),
            now: Millis(1),
            chunk,
        }
    }

    /// Bytes of the three lists.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.entities.len() + self.credentials.len() + self.sensors.len()
    }

    /// The next refresh, from its first request to its commit: how many requests.
    pub fn refresh(&mut self) -> u32 {
        self.now = Millis(self.now.0 + 1_000);
        self.collector.handle_time(self.now);
        self.collector.refresh_soon();
        let mut requests = 0;
        loop {
            match self.collector.poll(&Poller) {
                Some(Action::Send(id)) => {
                    requests += 1;
                    let resource = self.collector.request_head(id).unwrap().resource;
                    let head =
                        ResponseHead { status: 200, date_unix_s: Some(1_700_000_000), retry_after_ms: None };
                    self.collector.handle_response_head(id, head);
                    let body = match resource {
                        Resource::Profile => PROFILE,
                        Resource::Accounts => r#"{"list":[{"id":7,"name":"Large"}]}"#,
                        Resource::Entities(_) => &self.entities,
                        Resource::Credentials(_) => &self.credentials,
                        Resource::Sensors(_) => &self.sensors,
                        other => panic!("{other}"),
                    };
                    for piece in body.as_bytes().chunks(self.chunk) {
                        let mut rest = piece;
                        while !rest.is_empty() {
                            match self.collector.handle_response_body(&Poller, id, rest) {
                                BodyStatus::Taken(n) => rest = &rest[n..],
                                _ => panic!("an unwanted answer"),
                            }
                        }
                    }
                    self.collector.handle_response_end(&Poller, id);
                }
                Some(Action::Run(due)) => self.collector.handle_completed(due.run),
                _ => {}
            }
            while let Some(event) = self.collector.poll_event() {
                match event {
                    Event::Refreshed(_) => {
                        assert_eq!(self.collector.jobs(|jobs| jobs.len()), 300);
                        return requests;
                    }
                    Event::RefreshFailed { .. } | Event::Fault(_) => panic!("{event}"),
                    _ => {}
                }
            }
        }
    }
}
