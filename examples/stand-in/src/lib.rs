//! A stand-in for the Grafolean backend: the bot side of its API over real HTTP, for tests, demos and authors of bots.
//!
//! ```
//! # #[cfg(feature = "server")] {
//! use std::time::Duration;
//! use grafolean_stand_in::{Config, StandIn};
//!
//! let stand_in = StandIn::builder().config(Config::demo()?).spawn_thread()?;
//! let backend_url = stand_in.base_url(); // http://127.0.0.1:.../api
//! let token = stand_in.token("ping").ok_or("no such bot")?;
//! // ... start a bot with these two, then:
//! let seen = stand_in.wait_for(Duration::from_millis(1), |s| s.value_count() >= 10);
//! assert!(seen.is_err(), "no bot was started here");
//! # let _ = (backend_url, token);
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! It answers as the real backend was seen to answer, its mistakes included: client errors that show as 500, values that are
//! stored although the answer is a failure, connections that close without a word. [`Backend`] decides and [`StandIn`]
//! waits: the first can be asked without any socket.
//!
//! [`Misbehaviour`] is there on demand: refused and reset connections, lost, late, cut and wrong answers, each for the requests that
//! a [`Rule`] names.
//!
//! A release build on two shared cores, which also ran the clients, stored at least 5000 requests of 10 values a second in memory, or 2000
//! of 100. Memory grows with the values unless they go to a file, and with the last [`LOG_CAPACITY`] requests.
//!
//! Not spoken: MQTT, aggregated readings, persons besides one administrator, and everything else that only the web interface uses; where
//! the real backend has something there, the answer is 501.
//!
//! # Features
//! `server`, on by default, is everything that waits: [`StandIn`], the program, and values in a file. Without it the crate is
//! [`Backend`] with its values in memory, which builds in a second or two: what `grafolean-test` asks in simulated time.
#![forbid(unsafe_code)]

mod backend;
#[cfg(feature = "server")]
mod body;
#[cfg(feature = "server")]
mod canned;
mod config;
#[cfg(feature = "server")]
mod connection;
#[cfg(feature = "server")]
mod control;
#[cfg(feature = "server")]
mod door;
mod entities;
#[cfg(feature = "server")]
mod exchange;
#[cfg(feature = "server")]
mod first_line;
mod json;
#[cfg(feature = "server")]
mod log;
#[cfg(feature = "server")]
mod misbehave;
mod model;
#[cfg(feature = "server")]
mod page;
mod persons;
mod routes;
mod schema;
#[cfg(feature = "server")]
mod server;
mod store;
mod values;

pub use backend::{Backend, ChangeError, ListKind, Reply, ReplyBody, Request};
pub use config::{AccountConfig, Config, ConfigError, ConfigProblem};
pub use json::{Json, JsonError, MAX_DEPTH, python_float};
#[cfg(feature = "server")]
pub use log::{Counters, Event, LOG_CAPACITY, RequestRecord};
#[cfg(feature = "server")]
pub use misbehave::{
    DateHeader, MAX_RULE_BYTES, MAX_RULES, MAX_WAIT, Misbehaviour, Rule, RuleError, RuleId, Status, WrongBody,
};
pub use model::{Account, Bot, Credential, Entity, EntityProtocol, EntitySensor, Permission, Sensor, Token};
pub use persons::{Admin, NewAccount, Readiness};
#[cfg(feature = "server")]
pub use server::{
    Builder, EVENT_CAPACITY, FRONT_BODY_LIMIT, StandIn, StandInThread, StartError, TimedOut,
    UVICORN_KEEP_ALIVE,
};
pub use store::{StoreError, StoredValue};
pub use values::PAGE;
