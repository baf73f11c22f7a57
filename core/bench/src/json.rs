//! The JSON load: lists as the backend gives them, of an account with many devices, and what a collector takes from them.

use std::fmt::Write as _;
use std::marker::PhantomData;

use grafolean_core::heapless;
use grafolean_core::interval::Interval;
use grafolean_core::json::{Frame, Framer, from_element};
use grafolean_core::model::{EntityHead, read_sensors};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::random::Random;

/// The protocol whose bot reads the lists.
pub const PROTOCOL: &str = "myprotocol";
/// The bot.
pub const BOT: u64 = 1_408_704_727;
/// How many sensors and credentials an account has.
pub const SENSORS: u32 = 45;
/// See [`SENSORS`].
pub const CREDENTIALS: u32 = 6;
/// Intervals of sensors, as an entity's own one or as a default: seconds, or `null`.
const INTERVALS: [&str; 8] = ["null", "null", "null", "15", "60", "120", "300", "3600"];

/// The id of sensor or credential number `n`: spread as the backend's are.
#[must_use]
pub const fn id(n: u32) -> u32 {
    // Odd, so that no two are the same, below 2³¹.
    (n + 1).wrapping_mul(0x5bd1_e995) & 0x7fff_ffff
}

/// The list of an account's `n` entities, `sensors` (at most 45) of each.
#[must_use]
pub fn entities(n: u32, sensors: u32) -> String {
    let mut random = Random::new(0x1234_5678_9abc_def1);
    let mut body = "{\"list\":[".to_owned();
    for i in 0..n {
        let comma = if i == 0 { "" } else { "," };
        let name = if i % 9 == 0 { format!("Router {i:03} (Črnuče)") } else { format!("Router {i:03}") };
        let (id, address, rack) = (1_000_000 + 7 * i, i % 250 + 1, random.below(20));
        let _ = write!(
            body,
            r#"{comma}{{"id":{id},"name":"{name}","entity_type":"device","parent":null,"details":{{"ipv4":"127.0.{}.{address}","location":{{"rack":"R{rack}","row":{}}}}},"protocols":{{"{PROTOCOL}":{{"credential":{},"sensors":["#,
            i / 250,
            rack % 7,
            self::id(random.below(CREDENTIALS)),
        );
        let first = random.below(SENSORS);
        for k in 0..sensors {
            let comma = if k == 0 { "" } else { "," };
            let interval = INTERVALS[random.below(INTERVALS.len() as u32) as usize];
            let sensor = self::id((first + k) % SENSORS);
            let _ = write!(body, r#"{comma}{{"sensor":{sensor},"interval":{interval}}}"#);
        }
        let _ = write!(body, r#"],"bot":{BOT}}}}}}}"#);
    }
    body.push_str("]}");
    body
}

/// The list of its sensors.
#[must_use]
pub fn sensors() -> String {
    let one = |n| {
        format!(
            r#"{{"id":{},"name":"Sensor {n:02}","protocol":"{PROTOCOL}","default_interval":{},"details":{{"metric":"metric.{n}","expression":"$1 / $2 * 100","unit":"B/s"}}}}"#,
            id(n),
            INTERVALS[3 + n as usize % 5],
        )
    };
    format!("{{\"list\":[{}]}}", (0..SENSORS).map(one).collect::<Vec<_>>().join(","))
}

/// The list of its credentials.
#[must_use]
pub fn credentials() -> String {
    let one = |n| {
        format!(
            r#"{{"id":{},"name":"Credential {n:02}","protocol":"{PROTOCOL}","details":{{"username":"collector{n:02}","password":"pa\"ss\\{n:02}","timeout":8}}}}"#,
            id(n)
        )
    };
    format!("{{\"list\":[{}]}}", (0..CREDENTIALS).map(one).collect::<Vec<_>>().join(","))
}

/// What is taken from a list of entities, added up, so that parsers can be compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Elements.
    pub entities: u64,
    /// Of all sensors.
    pub sensors: u64,
    /// Of all ids, intervals (0 for `null`), and lengths of names and addresses.
    pub sum: u64,
}

impl Taken {
    /// A number.
    pub const fn number(&mut self, n: u64) {
        self.sum = self.sum.wrapping_mul(31).wrapping_add(n);
    }
}

/// An entity of a list that is taken apart by way of serde.
pub trait Element: for<'de> Deserialize<'de> {
    /// Adds what it holds.
    fn add(&self, taken: &mut Taken);
}

/// An entity, without memory of its own beyond its size.
#[derive(Debug, serde::Deserialize)]
pub struct Entity {
    id: u64,
    name: heapless::String<48>,
    details: Details,
    protocols: Protocols,
}

#[derive(Debug, serde::Deserialize)]
struct Details {
    ipv4: heapless::String<40>,
}

#[derive(Debug, serde::Deserialize)]
struct Protocols {
    myprotocol: Protocol,
}

#[derive(Debug, serde::Deserialize)]
struct Protocol {
    credential: u64,
    sensors: heapless::Vec<Link, 8>,
    bot: u64,
}

#[derive(Debug, serde::Deserialize)]
struct Link {
    sensor: u64,
    interval: Option<u64>,
}

impl Element for Entity {
    fn add(&self, taken: &mut Taken) {
        taken.entities += 1;
        taken.number(self.id);
        taken.number(self.name.len() as u64);
        taken.number(self.details.ipv4.len() as u64);
        taken.number(self.protocols.myprotocol.credential);
        for link in &self.protocols.myprotocol.sensors {
            taken.sensors += 1;
            taken.number(link.sensor);
            taken.number(link.interval.unwrap_or(0));
        }
        taken.number(self.protocols.myprotocol.bot);
    }
}

/// An entity as real lists have them: with escapes in its name, details of any form, without the protocol or without a bot, with
/// intervals that are none.
#[derive(Debug, serde::Deserialize)]
pub struct Recorded {
    id: u64,
    name: heapless::String<96>,
    parent: Option<u64>,
    protocols: RecordedProtocols,
}

#[derive(Debug, serde::Deserialize)]
struct RecordedProtocols {
    myprotocol: Option<RecordedProtocol>,
}

#[derive(Debug, serde::Deserialize)]
struct RecordedProtocol {
    credential: Option<u64>,
    sensors: heapless::Vec<RecordedLink, 8>,
    bot: Option<u64>,
}

#[derive(Debug, serde::Deserialize)]
struct RecordedLink {
    sensor: u64,
    interval: Option<i64>,
}

impl Element for Recorded {
    fn add(&self, taken: &mut Taken) {
        taken.entities += 1;
        taken.number(self.id);
        taken.number(self.name.len() as u64);
        taken.number(self.parent.unwrap_or(0));
        let Some(protocol) = &self.protocols.myprotocol else { return };
        taken.number(protocol.credential.unwrap_or(0));
        for link in &protocol.sensors {
            taken.sensors += 1;
            taken.number(link.sensor);
            taken.number(link.interval.unwrap_or(0).max(0) as u64);
        }
        taken.number(protocol.bot.unwrap_or(0));
    }
}

/// A whole list by way of serde, element by element: none is kept.
#[derive(Debug)]
pub struct Folded<E>(pub Taken, PhantomData<E>);

impl<'de, E: Element> Deserialize<'de> for Folded<E> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object<E>(PhantomData<E>);
        impl<'de, E: Element> Visitor<'de> for Object<E> {
            type Value = Folded<E>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object with a list")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Folded<E>, A::Error> {
                let mut taken = Taken::default();
                while let Some(key) = map.next_key::<&str>()? {
                    if key == "list" {
                        taken = map.next_value::<List<E>>()?.0;
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Folded(taken, PhantomData))
            }
        }
        deserializer.deserialize_map(Object(PhantomData))
    }
}

struct List<E>(Taken, PhantomData<E>);

impl<'de, E: Element> Deserialize<'de> for List<E> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<E>(PhantomData<E>);
        impl<'de, E: Element> Visitor<'de> for Items<E> {
            type Value = List<E>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<List<E>, A::Error> {
                let mut taken = Taken::default();
                while let Some(entity) = seq.next_element::<E>()? {
                    entity.add(&mut taken);
                }
                Ok(List(taken, PhantomData))
            }
        }
        deserializer.deserialize_seq(Items(PhantomData))
    }
}

/// Frames `body`, which comes in chunks of `chunk` bytes, and hands on each element.
///
/// # Panics
/// If it is not such a list.
pub fn frame(body: &[u8], chunk: usize, mut each: impl FnMut(&[u8])) {
    let mut framer = Framer::list("list");
    let mut buffer = [0; 2048];
    for chunk in body.chunks(chunk) {
        let mut rest = chunk;
        while !rest.is_empty() {
            let (consumed, frame) = framer.push(rest, &mut buffer).unwrap();
            rest = &rest[consumed..];
            match frame {
                Some(Frame::Element { len }) => each(&buffer[..len]),
                Some(other) => panic!("{other:?}"),
                None => {}
            }
        }
    }
    framer.finish().unwrap();
}

/// Only cut into elements and checked.
#[must_use]
pub fn framed(body: &[u8], chunk: usize) -> u64 {
    let mut bytes = 0;
    frame(body, chunk, |element| bytes += element.len() as u64);
    bytes
}

/// Each element decoded by way of serde.
#[must_use]
pub fn by_serde(body: &[u8], chunk: usize) -> Taken {
    by_serde_as::<Entity>(body, chunk)
}

/// The same of any kind.
#[must_use]
pub fn by_serde_as<E: Element>(body: &[u8], chunk: usize) -> Taken {
    let mut taken = Taken::default();
    let mut scratch = [0; 128];
    frame(body, chunk, |element| from_element::<E>(element, &mut scratch).unwrap().add(&mut taken));
    taken
}

/// Each element taken apart as a refresh does it.
#[must_use]
pub fn by_model(body: &[u8], chunk: usize) -> Taken {
    let mut taken = Taken::default();
    let mut scratch = [0; 128];
    frame(body, chunk, |element| {
        let (head, protocol) = EntityHead::read_framed(element, PROTOCOL).unwrap();
        taken.entities += 1;
        taken.number(head.id);
        taken.number(head.name.unwrap().plain().unwrap().len() as u64);
        let details: Details = from_element(head.details.of(element), &mut scratch).unwrap();
        taken.number(details.ipv4.len() as u64);
        let protocol = protocol.unwrap().unwrap();
        taken.number(protocol.credential.unwrap());
        read_sensors(element, protocol.sensors.unwrap(), |sensor, interval| {
            taken.sensors += 1;
            taken.number(sensor);
            taken.number(interval.unwrap().map_or(0, Interval::seconds).into());
        })
        .unwrap();
        taken.number(protocol.bot.unwrap());
    });
    taken
}

/// Each element of a recorded list taken apart as a refresh does it.
#[must_use]
pub fn recorded_by_model(body: &[u8], chunk: usize) -> Taken {
    let mut taken = Taken::default();
    let mut scratch = [0; 128];
    frame(body, chunk, |element| {
        let (head, protocol) = EntityHead::read_framed(element, PROTOCOL).unwrap();
        taken.entities += 1;
        taken.number(head.id);
        taken.number(head.name.unwrap().to_str(&mut scratch).unwrap().len() as u64);
        taken.number(head.parent);
        let Some(protocol) = protocol.unwrap() else { return };
        taken.number(protocol.credential.unwrap_or(0));
        read_sensors(element, protocol.sensors.unwrap(), |sensor, interval| {
            taken.sensors += 1;
            taken.number(sensor);
            taken.number(interval.ok().flatten().map_or(0, Interval::seconds).into());
        })
        .unwrap();
        taken.number(protocol.bot.unwrap_or(0));
    });
    taken
}
