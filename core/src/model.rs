//! What is kept of the backend's entities, credentials and sensors, and how one of their JSON elements is read.
//!
//! Each detail is stored once and referred to by index; a sensor or credential is stored only if a kept entity
//! names it.

use core::fmt;

use crate::hash::Fnv1a64;
use crate::interval::{Interval, IntervalError};
use crate::json::{Decimal, Kind, NumberError, ReadError, ReadErrorKind, Reader, Span, Text};
use crate::table::TableKey;

/// An entity, credential or sensor: its account and its id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ItemKey {
    /// The account.
    pub account: u64,
    /// The id within its kind.
    pub id: u64,
}

impl TableKey for ItemKey {
    fn hash(&self) -> u64 {
        Fnv1a64::new().u64(self.account).u64(self.id).finish()
    }
    fn account(&self) -> u64 {
        self.account
    }
}

/// An interval as the backend gives it: a checked one, `None` if null, or what is wrong with it.
pub type GivenInterval = Result<Option<Interval>, IntervalError>;

fn read_interval(reader: &mut Reader<'_>) -> Result<GivenInterval, ReadError> {
    // The usual cases first.
    if reader.null()? {
        return Ok(Ok(None));
    }
    if let Some(seconds) = reader.plain_int().and_then(|seconds| i64::try_from(seconds).ok()) {
        return Ok(Interval::new(seconds).map(Some));
    }
    let decimal = match reader.peek()? {
        Kind::Number | Kind::String => reader.clone().decimal(),
        _ => {
            reader.skip_value()?;
            return Ok(Err(IntervalError::NotWhole));
        }
    };
    let decimal = match decimal {
        Ok(decimal) => decimal,
        Err(ReadError { kind: ReadErrorKind::Number(_), .. }) => {
            reader.skip_value()?;
            return Ok(Err(IntervalError::NotWhole));
        }
        Err(error) => return Err(error),
    };
    reader.skip_value()?;
    Ok(match decimal.to_i64() {
        Ok(seconds) => Interval::new(seconds).map(Some),
        Err(_) => Err(thousandths(&decimal)
            .map_or(IntervalError::NotWhole, |thousandths| IntervalError::Fraction { thousandths })),
    })
}

/// A decimal in thousandths, if it has no more than three places and fits.
fn thousandths(decimal: &Decimal) -> Option<i64> {
    let factor = 10u64.checked_pow(u32::try_from(decimal.exponent().checked_add(3)?).ok()?)?;
    let magnitude = i64::try_from(decimal.magnitude().checked_mul(factor)?).ok()?;
    Some(if decimal.is_negative() { -magnitude } else { magnitude })
}

/// A sensor of an entity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// The sensor's id.
    pub id: u64,
    /// The sensor's index in its table.
    pub sensor: u32,
    /// The entity's own interval for it.
    pub interval: Option<Interval>,
}

/// The sensors of one entity, in memory that the storage chooses: inline on a board, on the heap on a host.
pub trait LinkList: Clone {
    /// No link.
    fn new() -> Self;
    /// Inserts at `at`.
    ///
    /// # Errors
    /// [`LinksFull`]; nothing has changed.
    fn insert(&mut self, at: usize, link: Link) -> Result<(), LinksFull>;
    /// Removes the last one.
    fn pop(&mut self) -> Option<Link>;
    /// All of them.
    fn as_slice(&self) -> &[Link];
    /// All of them, to be changed.
    fn as_mut_slice(&mut self) -> &mut [Link];
}

/// More sensors than there is room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinksFull {
    /// How many there can be.
    pub capacity: usize,
}

impl fmt::Display for LinksFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an entity can have {} sensors here", self.capacity)
    }
}

impl core::error::Error for LinksFull {}

impl<const N: usize> LinkList for heapless::Vec<Link, N> {
    fn new() -> Self {
        heapless::Vec::new()
    }
    fn insert(&mut self, at: usize, link: Link) -> Result<(), LinksFull> {
        if at > self.len() {
            return Err(LinksFull { capacity: N });
        }
        heapless::Vec::insert(self, at, link).map_err(|_| LinksFull { capacity: N })
    }
    fn pop(&mut self) -> Option<Link> {
        heapless::Vec::pop(self)
    }
    fn as_slice(&self) -> &[Link] {
        self
    }
    fn as_mut_slice(&mut self) -> &mut [Link] {
        self
    }
}

/// What is kept of an entity. Its details can hold secrets, so `Debug` leaves them out.
#[derive(Clone)]
pub struct EntityRecord<N, D, L> {
    /// Hash of all that is kept of it, sensors as a set; 0 if something of it is missing for want of room.
    pub hash: u64,
    /// Its name.
    pub name: N,
    /// Its parent's id, 0 if none.
    pub parent: u64,
    /// Its details.
    pub details: D,
    /// Its credential's index.
    pub credential: u32,
    /// Its sensors by ascending id.
    pub links: L,
}

impl<N, D, L> fmt::Debug for EntityRecord<N, D, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntityRecord")
            .field("parent", &self.parent)
            .field("credential", &self.credential)
            .finish_non_exhaustive()
    }
}

/// What is kept of a credential or sensor. Details can hold secrets, so there is no `Debug`.
#[derive(Clone)]
pub struct DetailRecord<D> {
    /// Hash of the element's bytes.
    pub hash: u64,
    /// A sensor's default interval.
    pub default_interval: GivenInterval,
    /// Its details; `None` until they are read, or if they were refused.
    pub details: Option<D>,
    /// The refresh under way has met its element.
    pub(crate) met: bool,
}

impl<D> DetailRecord<D> {
    /// Named by an entity, not read yet.
    pub const UNREAD: Self = DetailRecord { hash: 0, default_interval: Ok(None), details: None, met: false };
}

/// What is kept of a credential.
pub type CredentialRecord<D> = DetailRecord<D>;
/// What is kept of a sensor.
pub type SensorRecord<D> = DetailRecord<D>;

/// An entity's element of the list, taken apart but for its details and protocols.
#[derive(Clone, Copy, Debug)]
pub struct EntityHead<'a> {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: Option<Text<'a>>,
    /// `device` or `interface`.
    pub entity_type: Option<Text<'a>>,
    /// Its parent's id, 0 if none.
    pub parent: u64,
    /// Where its details are.
    pub details: Span,
    /// Where its protocols are; `None` if the backend's list has none (before November 2019).
    pub protocols: Option<Span>,
}

/// What an entity says of one protocol.
#[derive(Clone, Copy, Debug)]
pub struct ProtocolEntry {
    /// Its credential's id.
    pub credential: Option<u64>,
    /// The bot that polls it; `None`: any bot of the protocol.
    pub bot: Option<u64>,
    /// Where its sensors are, within the entity's bytes.
    pub sensors: Option<Span>,
}

fn optional_id(reader: &mut Reader<'_>) -> Result<Option<u64>, ReadError> {
    if reader.null()? { Ok(None) } else { reader.u64().map(Some) }
}

pub(crate) fn missing(reader: &Reader<'_>) -> ReadError {
    ReadError { offset: reader.offset(), kind: ReadErrorKind::Number(NumberError::NotANumber) }
}

impl<'a> EntityHead<'a> {
    /// Reads an entity's element, and checks it as a whole.
    ///
    /// # Errors
    /// Where it is not what an entity is.
    pub fn read(element: &'a [u8]) -> Result<Self, ReadError> {
        Ok(read_entity(Reader::new(element), None)?.0)
    }

    /// Reads an entity's element that the framer handed on, and what it says of `protocol` as [`protocol`](Self::protocol) does, in
    /// one pass.
    ///
    /// # Errors
    /// Where it is not what an entity is.
    pub fn read_framed(
        element: &'a [u8],
        protocol: &str,
    ) -> Result<(Self, Result<Option<ProtocolEntry>, ReadError>), ReadError> {
        read_entity(Reader::framed(element), Some(protocol))
    }

    /// Whether it is polled: its type is `device`.
    #[must_use]
    pub fn is_device(&self) -> bool {
        self.entity_type.is_some_and(|kind| kind == "device")
    }

    /// What it says of `protocol`, if anything. `element` is what it was read from, and is not checked again: see
    /// [`Reader::framed`].
    ///
    /// # Errors
    /// Where it is not what the backend gives.
    pub fn protocol(&self, element: &[u8], protocol: &str) -> Result<Option<ProtocolEntry>, ReadError> {
        let Some(span) = self.protocols else { return Ok(None) };
        read_protocols(&mut Reader::framed(element).at(span.start), protocol)
    }
}

fn read_entity<'a>(
    mut reader: Reader<'a>,
    protocol: Option<&str>,
) -> Result<(EntityHead<'a>, Result<Option<ProtocolEntry>, ReadError>), ReadError> {
    const NAMES: &[&str] = &["id", "name", "entity_type", "parent", "details", "protocols"];
    let mut id = None;
    let mut head = EntityHead {
        id: 0,
        name: None,
        entity_type: None,
        parent: 0,
        details: Span::default(),
        protocols: None,
    };
    let mut entry = Ok(None);
    let mut guess = 0;
    reader.begin_object()?;
    while let Some(key) = reader.next_name(NAMES, &mut guess)? {
        match key {
            0 => id = Some(reader.u64()?),
            1 => head.name = Some(reader.text()?),
            2 => head.entity_type = Some(reader.text()?),
            3 => head.parent = optional_id(&mut reader)?.unwrap_or(0),
            4 => head.details = reader.skip_value()?,
            5 => {
                reader.peek()?;
                let start = reader.offset();
                let mut inner = reader.clone();
                entry = protocol.map_or(Ok(None), |protocol| read_protocols(&mut inner, protocol));
                if entry.is_ok() && protocol.is_some() {
                    reader = inner;
                } else {
                    // It may be of no interest that it is not as it should be.
                    reader.skip_value()?;
                }
                head.protocols = Some(Span { start, end: reader.offset() });
            }
            _ => {
                reader.skip_value()?;
            }
        }
    }
    head.id = id.ok_or_else(|| missing(&reader))?;
    reader.end()?;
    Ok((head, entry))
}

fn read_protocols(reader: &mut Reader<'_>, protocol: &str) -> Result<Option<ProtocolEntry>, ReadError> {
    const NAMES: &[&str] = &["credential", "sensors", "bot"];
    let mut found = None;
    if reader.null()? {
        return Ok(None);
    }
    reader.begin_object()?;
    while let Some(key) = reader.next_name(&[protocol], &mut 0)? {
        if key != 0 {
            reader.skip_value()?;
            continue;
        }
        let mut entry = ProtocolEntry { credential: None, bot: None, sensors: None };
        let mut guess = 0;
        reader.begin_object()?;
        while let Some(key) = reader.next_name(NAMES, &mut guess)? {
            match key {
                0 => entry.credential = optional_id(reader)?,
                1 => {
                    let null = reader.peek()? == Kind::Null;
                    let span = reader.skip_value()?;
                    entry.sensors = (!null).then_some(span);
                }
                2 => entry.bot = optional_id(reader)?,
                _ => {
                    reader.skip_value()?;
                }
            }
        }
        found = Some(entry);
    }
    Ok(found)
}

/// Reads an entity's sensors, and hands on the id and interval of each. `span` is where they are in the entity's `element`, which has
/// been read and is not checked again: see [`Reader::framed`].
///
/// # Errors
/// Where they are not what the backend gives.
pub fn read_sensors(
    element: &[u8],
    span: Span,
    mut each: impl FnMut(u64, GivenInterval),
) -> Result<(), ReadError> {
    const NAMES: &[&str] = &["sensor", "interval"];
    let mut reader = Reader::framed(element.get(..span.end).unwrap_or_default()).at(span.start);
    reader.begin_array()?;
    while reader.next_item()? {
        let (mut id, mut interval) = (None, Ok(None));
        let mut guess = 0;
        reader.begin_object()?;
        while let Some(key) = reader.next_name(NAMES, &mut guess)? {
            match key {
                0 => id = Some(reader.u64()?),
                1 => interval = read_interval(&mut reader)?,
                _ => {
                    reader.skip_value()?;
                }
            }
        }
        each(id.ok_or_else(|| missing(&reader))?, interval);
    }
    Ok(())
}

/// A credential's or sensor's element of the list, taken apart but for its details.
#[derive(Clone, Copy, Debug)]
pub struct DetailHead {
    /// Its id.
    pub id: u64,
    /// A sensor's default interval.
    pub default_interval: GivenInterval,
    /// Where its details are.
    pub details: Span,
}

impl DetailHead {
    /// Reads a credential's or sensor's element that the framer handed on, and does not check it again: see [`Reader::framed`].
    ///
    /// # Errors
    /// Where it is not what the backend gives.
    pub fn read(element: &[u8]) -> Result<Self, ReadError> {
        const NAMES: &[&str] = &["id", "default_interval", "details"];
        let mut reader = Reader::framed(element);
        let (mut id, mut default_interval, mut details) = (None, Ok(None), Span::default());
        let mut guess = 0;
        reader.begin_object()?;
        while let Some(key) = reader.next_name(NAMES, &mut guess)? {
            match key {
                0 => id = Some(reader.u64()?),
                1 => default_interval = read_interval(&mut reader)?,
                2 => details = reader.skip_value()?,
                _ => {
                    reader.skip_value()?;
                }
            }
        }
        Ok(DetailHead { id: id.ok_or_else(|| missing(&reader))?, default_interval, details })
    }
}

/// The id of an element of which only the beginning is there: `id` is its first key.
#[must_use]
pub fn first_id(prefix: &[u8]) -> Option<u64> {
    let mut reader = Reader::new(prefix);
    reader.begin_object().ok()?;
    let key = reader.next_key().ok()??;
    let id = if key == "id" { reader.u64().ok()? } else { return None };
    // At the very end, digits may be missing.
    (reader.offset() < prefix.len()).then_some(id)
}

/// An entity of any protocol and type, as [`crate::bot::Context::next_entity`] copies it out.
#[derive(Clone, Copy, Debug)]
pub struct ListedEntity<'a> {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: Text<'a>,
    /// `device` or `interface`.
    pub entity_type: Text<'a>,
    /// The entity that it belongs to.
    pub parent: Option<u64>,
    /// Its details: JSON.
    pub details: &'a str,
    /// Its protocols: JSON, to be sent back when it is changed.
    pub protocols: &'a str,
}

impl<'a> ListedEntity<'a> {
    /// Takes an entity's JSON apart.
    ///
    /// # Errors
    /// Where it is not what an entity is.
    pub fn parse(element: &'a [u8]) -> Result<Self, ReadError> {
        let head = EntityHead::read(element)?;
        let json = |span: Span| core::str::from_utf8(span.of(element)).ok().filter(|json| !json.is_empty());
        let gone = || missing(&Reader::new(element));
        Ok(ListedEntity {
            id: head.id,
            name: head.name.ok_or_else(gone)?,
            entity_type: head.entity_type.ok_or_else(gone)?,
            parent: (head.parent != 0).then_some(head.parent),
            details: json(head.details).unwrap_or("{}"),
            protocols: head.protocols.and_then(json).unwrap_or("{}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::borrow::ToOwned;
    use std::string::String;
    use std::{format, vec, vec::Vec};

    fn interval(json: &str) -> GivenInterval {
        let element = format!("{{\"id\":1,\"default_interval\":{json}}}");
        DetailHead::read(element.as_bytes()).unwrap().default_interval
    }

    #[test]
    fn an_interval_is_read_as_number_decimal_or_text_and_keeps_its_number_if_it_is_none() {
        for (json, seconds) in
            [("60", 60), ("60.0", 60), ("\"60\"", 60), ("6e1", 60), ("2147483647", 2_147_483_647)]
        {
            assert_eq!(interval(json).unwrap().unwrap().seconds(), seconds, "{json}");
        }
        assert_eq!(interval("null"), Ok(None));
        assert_eq!(interval("0"), Err(IntervalError::OutOfRange { seconds: 0 }));
        assert_eq!(interval("-5"), Err(IntervalError::OutOfRange { seconds: -5 }));
        for (json, thousandths) in [("2.5", 2500), ("-0.001", -1), ("\"59.9\"", 59_900)] {
            assert_eq!(interval(json), Err(IntervalError::Fraction { thousandths }), "{json}");
        }
        assert_eq!(interval("2147483648"), Err(IntervalError::OutOfRange { seconds: 2_147_483_648 }));
        for odd in
            ["0.0001", "\"abc\"", "true", "[1]", "1e300", "99999999999999999999999999999999999999999999"]
        {
            assert_eq!(interval(odd), Err(IntervalError::NotWhole), "{odd}");
        }
    }

    #[test]
    fn an_entity_is_taken_apart_whatever_else_it_holds() {
        let element = br#"{"id":"7","name":"a\u0062","entity_type":"device","parent":null,
            "details":{"":[1e300,-0.0,"\u0000"],"ipv4":"::"},"new":{"x":[]},
            "protocols":{"snmp":{"credential":1},"ping":{"credential":3,"sensors":[{"sensor":9,"interval":null},
            {"interval":-1,"sensor":"8"}],"bot":null}}}"#;
        let head = EntityHead::read(element).unwrap();
        assert!(head.id == 7 && head.is_device() && head.parent == 0 && head.name.unwrap() == *"ab");
        let entry = head.protocol(element, "ping").unwrap().unwrap();
        assert_eq!((entry.credential, entry.bot), (Some(3), None));
        let mut sensors = Vec::new();
        read_sensors(element, entry.sensors.unwrap(), |id, i| sensors.push((id, i))).unwrap();
        assert_eq!(sensors, vec![(9, Ok(None)), (8, Err(IntervalError::OutOfRange { seconds: -1 }))]);
        assert!(head.protocol(element, "netflow").unwrap().is_none());
        assert!(EntityHead::read(br#"{"id":7} "#).is_ok());
        assert_eq!(EntityHead::read(br#"{"id":7}, {}"#).map(|_| ()).map_err(|e| e.offset), Err(8));
    }

    /// An object of some of these members in any order, some of them twice, with this between tokens.
    fn object(
        keys: &'static [&'static str],
        value: impl Strategy<Value = String> + 'static,
    ) -> impl Strategy<Value = String> {
        let blank = prop::sample::select(vec!["", "", " ", "\n\t"]);
        let members = prop::collection::vec((prop::sample::select(keys), value), 0..6);
        (blank, members).prop_map(|(blank, members)| {
            let members: Vec<_> = members
                .iter()
                .map(|(key, value)| format!("{blank}\"{key}\"{blank}:{blank}{value}{blank}"))
                .collect();
            format!("{{{}}}", members.join(","))
        })
    }

    fn any_value() -> impl Strategy<Value = String> {
        let values = [
            "7",
            "0",
            "-1",
            "1.5e2",
            "null",
            "true",
            "\"8\"",
            "\"\"",
            "\"d\\u0065vice\"",
            "\"a}]\\\"{\"",
            "[]",
            "{}",
            "[{\"sensor\":1,\"interval\":60},{}]",
            "{\"ping\":7}",
            "18446744073709551616",
        ];
        prop::sample::select(values.to_vec()).prop_map(str::to_owned)
    }

    proptest! {
        #[test]
        fn an_entity_that_was_framed_is_read_in_one_pass_as_it_is_when_checked_in_two(
            element in object(
                &["id", "name", "entity_type", "parent", "details", "protocols", "i\\u0064", "new"],
                prop_oneof![
                    3 => any_value(),
                    1 => object(
                        &["ping", "p\\u0069ng", "snmp"],
                        prop_oneof![any_value(), object(&["credential", "sensors", "bot", "new"], any_value())],
                    ),
                ],
            ),
        ) {
            let checked = EntityHead::read(element.as_bytes());
            let framed = EntityHead::read_framed(element.as_bytes(), "ping");
            match (checked, framed) {
                (Ok(head), Ok((same, entry))) => {
                    let two = (head, head.protocol(element.as_bytes(), "ping").map_err(|_| ()));
                    prop_assert_eq!(format!("{two:?}"), format!("{:?}", (same, entry.map_err(|_| ()))), "{}", element);
                }
                (Err(a), Err(b)) => prop_assert_eq!(a.offset, b.offset, "{}", element),
                (a, b) => prop_assert!(false, "{element}: checked {a:?}, framed {b:?}"),
            }
        }
    }

    #[test]
    fn the_id_of_an_element_cut_off_is_known() {
        assert_eq!(first_id(br#"{"id": 12345, "name": "a"#), Some(12345));
        assert_eq!(first_id(br#"{"id": 123"#), None);
        assert_eq!(first_id(br#"{"name": "a", "id": 1"#), None);
    }
}
