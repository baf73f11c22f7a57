//! Keeps the entities of a device's interfaces as the device tells them: creates what is new, changes what has changed,
//! deletes what is gone.
//!
//! | interface entity | is |
//! | --- | --- |
//! | name | ifDescr; `interface {index}` where that is empty |
//! | parent | the device |
//! | `details.snmp_index` | ifIndex, as text |
//! | `details.speed_bps` | ifSpeed, as text; ifHighSpeed · 1,000,000 where that is 4294967295 or missing; 0 if neither is there |
//!
//! # What it costs the backend
//! The account's entities are listed only if the device tells something else than last time, and once an hour to repair what
//! others have changed; each change is one request. If the bot may not change entities, one job of the account says so, and
//! an hour goes by until the next try.
//!
//! # When nothing is deleted
//! If the device did not answer to the end, or told of no interface at all.

use core::fmt::Write as _;
use core::str;

use grafolean_core::bot::{BackendError, Context, EntityDraft};
use grafolean_core::hash::Fnv1a64;
use grafolean_core::jobs::Due;
use grafolean_core::json::from_slice;
use grafolean_core::model::ListedEntity;
use grafolean_core::time::Millis;
use grafolean_snmp_codec::{Oid, Value};
use serde::Deserialize;

use crate::bot::SnmpBot;
use crate::fault::{Problem, SnmpError, short};
use crate::memory::{Bytes, Memory, TRY_AGAIN_MS};
use crate::network::Network;
use crate::poll::{MAX_NAMES, PollFault, Poller, Walk};
use crate::readings::{Cells, Readings};

/// ifDescr.
const DESCR: &[u32] = &[1, 3, 6, 1, 2, 1, 2, 2, 1, 2];
/// ifSpeed, in bit/s.
const SPEED: &[u32] = &[1, 3, 6, 1, 2, 1, 2, 2, 1, 5];
/// ifHighSpeed, in Mbit/s.
const HIGH_SPEED: &[u32] = &[1, 3, 6, 1, 2, 1, 31, 1, 1, 1, 15];

/// The job's state: a hash of the interfaces that the backend has, and when it was looked at.
const KNOWN: &str = "interfaces";
/// So often the backend's entities are looked at without need, in milliseconds.
const REPAIR_MS: u64 = 3_600_000;
/// The longest name, in bytes.
const MAX_NAME: usize = 255;
/// An entity's JSON may be as long as this, where there is memory for it.
const MAX_ENTITY: usize = 64 << 10;
/// The backend's entities are listed anew so often at most, if what is to be changed does not fit into memory at once.
const MAX_PASSES: usize = 64;

/// What the web page keeps in an interface's details.
#[derive(Deserialize)]
struct InterfaceDetails {
    snmp_index: u32,
    speed_bps: u64,
}

/// Interfaces, one behind the other: index, speed, whether an entity has it, length of its name, name.
#[derive(Default)]
struct Found<B> {
    bytes: B,
}

const ROW_HEAD: usize = 4 + 8 + 1 + 1;
const CLAIMED_AT: usize = 12;

struct Interface<'f> {
    /// Where it is.
    at: usize,
    index: u32,
    speed_bps: u64,
    is_claimed: bool,
    name: &'f str,
}

impl<B: Bytes> Found<B> {
    fn push(&mut self, index: u32, speed_bps: u64, name: &str) -> Result<(), SnmpError> {
        if self.iter().any(|interface| interface.index == index) {
            return Ok(());
        }
        let mut head = [0; ROW_HEAD];
        let len = u8::try_from(name.len()).unwrap_or(u8::MAX);
        let fields = index.to_le_bytes().into_iter().chain(speed_bps.to_le_bytes()).chain([0, len]);
        for (to, from) in head.iter_mut().zip(fields) {
            *to = from;
        }
        let put = self.bytes.append(&head).and_then(|()| self.bytes.append(name.as_bytes()));
        put.map_err(|_| SnmpError::of(Problem::NoRoom { limit: B::LIMIT }))
    }

    fn at(&self, at: usize) -> Option<Interface<'_>> {
        let (head, after) = self.bytes.as_slice().get(at..)?.split_first_chunk::<ROW_HEAD>()?;
        let [i0, i1, i2, i3, speed @ .., claimed, len] = *head;
        Some(Interface {
            at,
            index: u32::from_le_bytes([i0, i1, i2, i3]),
            speed_bps: u64::from_le_bytes(speed),
            is_claimed: claimed != 0,
            name: str::from_utf8(after.get(..usize::from(len))?).ok()?,
        })
    }

    fn iter(&self) -> impl Iterator<Item = Interface<'_>> {
        let mut at = 0;
        core::iter::from_fn(move || {
            let interface = self.at(at)?;
            at += ROW_HEAD + interface.name.len();
            Some(interface)
        })
    }

    fn claim(&mut self, at: usize, claimed: bool) {
        if let Some(byte) = self.bytes.as_mut_slice().get_mut(at + CLAIMED_AT) {
            *byte = u8::from(claimed);
        }
    }

    fn release_all(&mut self) {
        let mut at = 0;
        while let Some(len) = self.at(at).map(|interface| interface.name.len()) {
            self.claim(at, false);
            at += ROW_HEAD + len;
        }
    }

    fn hash(&self) -> u64 {
        let each = |hash: Fnv1a64, i: Interface<'_>| {
            hash.u64(i.index.into()).u64(i.speed_bps).u64(i.name.len() as u64).bytes(i.name.as_bytes())
        };
        self.iter().fold(Fnv1a64::new(), each).finish()
    }
}

/// Changes to be made, one behind the other: the entity, where its interface is, the length of its protocols, and those.
#[derive(Default)]
struct Changes<B> {
    bytes: B,
}

const CHANGE_HEAD: usize = 8 + 4 + 4;
/// Stands for an interface that is gone.
const GONE: u32 = u32::MAX;

impl<B: Bytes> Changes<B> {
    /// Whether there was room.
    fn push(&mut self, entity: u64, interface: Option<usize>, protocols: &str) -> bool {
        let mut head = [0; CHANGE_HEAD];
        let interface = interface.and_then(|at| u32::try_from(at).ok()).unwrap_or(GONE);
        let fields = entity.to_le_bytes().into_iter().chain(interface.to_le_bytes());
        for (to, from) in head.iter_mut().zip(fields.chain((protocols.len() as u32).to_le_bytes())) {
            *to = from;
        }
        let before = self.bytes.as_slice().len();
        let put = self.bytes.append(&head).and_then(|()| self.bytes.append(protocols.as_bytes()));
        if put.is_err() {
            self.bytes.truncate(before);
        }
        put.is_ok()
    }

    /// The one at this place: the entity, its interface, its protocols; and the place of the next.
    fn at(&self, at: usize) -> Option<(u64, Option<usize>, &str, usize)> {
        let (head, after) = self.bytes.as_slice().get(at..)?.split_first_chunk::<CHANGE_HEAD>()?;
        let (entity, head) = head.split_first_chunk::<8>()?;
        let (interface, head) = head.split_first_chunk::<4>()?;
        let len = u32::from_le_bytes(*head.first_chunk()?) as usize;
        let interface = u32::from_le_bytes(*interface);
        Some((
            u64::from_le_bytes(*entity),
            (interface != GONE).then_some(interface as usize),
            str::from_utf8(after.get(..len)?).ok()?,
            at + CHANGE_HEAD + len,
        ))
    }
}

/// An interface's name from ifDescr, in which anything can be.
fn name_of(descr: &[u8], index: u32) -> heapless::String<MAX_NAME> {
    let mut name = heapless::String::new();
    let descr = match descr.iter().position(|byte| *byte == 0) {
        Some(end) => descr.get(..end).unwrap_or_default(),
        None => descr,
    };
    for chunk in descr.trim_ascii().utf8_chunks() {
        for c in
            chunk.valid().chars().chain((!chunk.invalid().is_empty()).then_some(char::REPLACEMENT_CHARACTER))
        {
            if name.push(c).is_err() {
                return name;
            }
        }
    }
    if name.is_empty() {
        let _ = write!(name, "interface {index}");
    }
    name
}

/// What the backend does not take is remembered, and the others go on; any other error ends the run.
fn go_on(error: BackendError, refused: &mut Option<BackendError>) -> Result<(), SnmpError> {
    if !matches!(error, BackendError::Status(400 | 409 | 413 | 422) | BackendError::TooLong { .. }) {
        return Err(backend(error));
    }
    refused.get_or_insert(error);
    Ok(())
}

fn backend(error: BackendError) -> SnmpError {
    SnmpError::of(Problem::Backend(error))
}

impl<
    N: Network,
    M: Memory,
    const NAME: usize,
    const CREDENTIAL: usize,
    const SENSOR: usize,
    const OIDS: usize,
    const OPS: usize,
    const P: usize,
> SnmpBot<N, M, NAME, CREDENTIAL, SENSOR, OIDS, OPS, P>
{
    /// One run of the job.
    pub(crate) async fn interfaces<C: Context<Bot = Self>>(
        &self,
        due: &Due,
        cx: &mut C,
        poller: &mut Poller<'_, N, P>,
    ) -> Result<(), SnmpError> {
        if let Some(result) = self.is_denied(due, cx.now()) {
            return result;
        }
        let mut found = Found::<M::Bytes>::default();
        self.read_interfaces(poller, &mut found).await?;
        if found.bytes.as_slice().is_empty() {
            return Ok(());
        }
        let mut known = [0; 16];
        let (hash, now) = (found.hash(), cx.now());
        if cx.get_state(KNOWN, &mut known) == Some(16)
            && let Some((there, since)) = known.split_first_chunk::<8>()
            && let Some(since) = since.first_chunk::<8>()
            && u64::from_le_bytes(*there) == hash
            // A time to come is of another boot's clock.
            && now.0.checked_sub(u64::from_le_bytes(*since)).is_some_and(|ms| ms < REPAIR_MS)
        {
            return Ok(());
        }
        let mut refused = None;
        match self.make_equal(due.key.entity, cx, &mut found, &mut refused).await {
            Ok(()) => self.allow(due),
            Err(SnmpError { problem: Problem::Backend(BackendError::Status(403)), .. }) => {
                return self.deny(due, cx.now());
            }
            Err(error) => return Err(error),
        }
        let (hash, now) = (hash.to_le_bytes(), now.0.to_le_bytes());
        for (to, from) in known.iter_mut().zip(hash.into_iter().chain(now)) {
            *to = from;
        }
        // If it has no room, the entities are listed again next time. What was refused is tried again in an hour.
        let _ = cx.set_state(KNOWN, &known);
        refused.map_or(Ok(()), |error| Err(backend(error)))
    }

    /// Reads all interfaces of the device.
    async fn read_interfaces(
        &self,
        poller: &mut Poller<'_, N, P>,
        found: &mut Found<M::Bytes>,
    ) -> Result<(), SnmpError> {
        let oid = |arcs| Oid::<64>::from_arcs(arcs);
        let (Ok(descr), Ok(speed), Ok(high)) = (oid(DESCR), oid(SPEED), oid(HIGH_SPEED)) else {
            return Ok(());
        };
        let failed = |oid: &Oid, fault: PollFault| SnmpError {
            problem: Problem::Poll(fault),
            sensor: 0,
            oid: short(oid),
            more: 0,
        };
        let no_room = || SnmpError::of(Problem::NoRoom { limit: M::Bytes::LIMIT });
        let mut walk = Walk::new(&descr).map_err(|error| failed(&descr, PollFault::LongName(error)))?;
        let mut speeds = Readings::<M::Bytes>::default();
        let rows_at_once = (M::Bytes::LIMIT / 32).clamp(1, MAX_NAMES);
        while let Some(rows) = poller.next_rows(&mut walk).await.map_err(|fault| failed(&descr, fault))? {
            let mut left = rows.iter();
            loop {
                let here = left.clone();
                let count = left.by_ref().take(rows_at_once).count();
                if count == 0 {
                    break;
                }
                let mut bps = [0u64; MAX_NAMES];
                speeds.clear();
                let names = here.clone().map(|row| row.oid);
                let columns = [speed.clone()];
                let mut wanted =
                    Cells { rows: names, walked: walk.column(), columns: &columns, count, read: &mut speeds };
                poller.get(&mut wanted).await.map_err(|fault| failed(&speed, fault))?;
                if speeds.overflowed {
                    return Err(no_room());
                }
                // A bit for each that ifSpeed says nothing of.
                let mut unknown = 0u64;
                for (at, bps) in bps.iter_mut().enumerate().take(count) {
                    match speeds.get(at).map(|sample| sample.read) {
                        Some(Ok(Value::Unsigned32(n))) if n != u32::MAX => *bps = n.into(),
                        Some(Ok(Value::Integer(n))) if n >= 0 => *bps = n as u64,
                        saturated => {
                            *bps = if let Some(Ok(Value::Unsigned32(n))) = saturated { n.into() } else { 0 };
                            unknown |= 1 << at;
                        }
                    }
                }
                if unknown != 0 {
                    speeds.clear();
                    let is_unknown = move |at: usize| unknown >> at & 1 == 1;
                    let names = here.clone().enumerate().filter(move |(at, _)| is_unknown(*at));
                    let columns = [high.clone()];
                    let mut wanted = Cells {
                        rows: names.map(|(_, row)| row.oid),
                        walked: walk.column(),
                        columns: &columns,
                        count: unknown.count_ones() as usize,
                        read: &mut speeds,
                    };
                    poller.get(&mut wanted).await.map_err(|fault| failed(&high, fault))?;
                    if speeds.overflowed {
                        return Err(no_room());
                    }
                    for (nth, at) in (0..count).filter(|at| is_unknown(*at)).enumerate() {
                        if let Some(Ok(Value::Unsigned32(n))) = speeds.get(nth).map(|sample| sample.read)
                            && let Some(bps) = bps.get_mut(at)
                        {
                            *bps = u64::from(n) * 1_000_000;
                        }
                    }
                }
                for (row, bps) in here.take(count).zip(bps) {
                    let Some(mut suffix) = row.oid.suffix_of(walk.column()) else { continue };
                    let (Some(index), None) = (suffix.next(), suffix.next()) else { continue };
                    let descr = if let Value::OctetString(text) = row.value { text } else { &[] };
                    found.push(index, bps, &name_of(descr, index))?;
                }
            }
        }
        Ok(())
    }

    /// Makes the backend's entities equal to what was found. A single one that the backend does not take, as one whose
    /// protocols name a bot that is gone, holds up no others.
    async fn make_equal<C: Context<Bot = Self>>(
        &self,
        device: u64,
        cx: &mut C,
        found: &mut Found<M::Bytes>,
        refused: &mut Option<BackendError>,
    ) -> Result<(), SnmpError> {
        let mut element = M::Bytes::default();
        while element.as_slice().len() < MAX_ENTITY && element.append(&[0; 64]).is_ok() {}
        let mut changes = Changes::<M::Bytes>::default();
        for _ in 0..MAX_PASSES {
            found.release_all();
            changes.bytes.truncate(0);
            let compared = self.compare(device, cx, found, element.as_mut_slice(), &mut changes).await?;
            let mut at = 0;
            while let Some((entity, interface, protocols, next)) = changes.at(at) {
                at = next;
                let done = match interface.and_then(|at| found.at(at)) {
                    Some(interface) => {
                        let details = details_of(&interface);
                        // The backend removes all protocols that are not sent back.
                        let protocols = (protocols != "{}").then_some(protocols);
                        let draft = EntityDraft {
                            name: interface.name,
                            entity_type: "interface",
                            parent: None,
                            details: &details,
                            protocols,
                        };
                        cx.update_entity(entity, &draft).await
                    }
                    None => cx.delete_entity(entity).await,
                };
                match done {
                    // Somebody else has deleted it.
                    Ok(()) | Err(BackendError::Status(404)) => {}
                    Err(error) => go_on(error, refused)?,
                }
            }
            if let Some(error) = compared.unread {
                // It may be one of those that seem to be missing.
                return Err(backend(error));
            }
            let mut at = 0;
            while let Some(interface) = found.at(at) {
                at += ROW_HEAD + interface.name.len();
                if interface.is_claimed {
                    continue;
                }
                let details = details_of(&interface);
                let draft = EntityDraft {
                    name: interface.name,
                    entity_type: "interface",
                    parent: Some(device),
                    details: &details,
                    protocols: None,
                };
                if let Err(error) = cx.create_entity(&draft).await {
                    go_on(error, refused)?;
                }
            }
            if compared.is_complete {
                return Ok(());
            }
            if changes.bytes.as_slice().is_empty() {
                break;
            }
        }
        Err(SnmpError::of(Problem::NoRoom { limit: M::Bytes::LIMIT }))
    }

    /// Goes through the account's entities once.
    async fn compare<C: Context<Bot = Self>>(
        &self,
        device: u64,
        cx: &mut C,
        found: &mut Found<M::Bytes>,
        element: &mut [u8],
        changes: &mut Changes<M::Bytes>,
    ) -> Result<Compared, SnmpError> {
        let mut compared = Compared { is_complete: true, unread: None };
        cx.list_entities().await.map_err(backend)?;
        loop {
            let len = match cx.next_entity(element).await {
                Ok(Some(len)) => len,
                Ok(None) => return Ok(compared),
                Err(error @ BackendError::TooLong { .. }) => {
                    compared.unread = Some(error);
                    continue;
                }
                Err(error) => return Err(backend(error)),
            };
            let entity = ListedEntity::parse(element.get(..len).unwrap_or_default())
                .map_err(|error| SnmpError::of(Problem::Entity(error)))?;
            if entity.parent != Some(device) || !(entity.entity_type == *"interface") {
                continue;
            }
            let details = from_slice::<InterfaceDetails>(entity.details.as_bytes(), &mut [0; 64]).ok();
            let of_index = |details: &InterfaceDetails| {
                found.iter().find(|found| found.index == details.snmp_index && !found.is_claimed)
            };
            let fits = match details.as_ref().and_then(|details| Some((details, of_index(details)?))) {
                Some((details, interface)) => {
                    let is_equal = entity.name == *interface.name && details.speed_bps == interface.speed_bps;
                    let at = interface.at;
                    found.claim(at, true);
                    is_equal || changes.push(entity.id, Some(at), entity.protocols)
                }
                // Gone, or the second entity of an interface, or one that says nothing.
                None => changes.push(entity.id, None, ""),
            };
            compared.is_complete &= fits;
        }
    }

    /// What a run has to say where the bot may not change entities; `None`: it may be tried.
    fn is_denied(&self, due: &Due, now: Millis) -> Option<Result<(), SnmpError>> {
        let mut result = None;
        self.memory.denials(&mut |denials| {
            if let Some(denial) = denials.of(due.key.account)
                && denial.until.is_some_and(|until| now < until)
            {
                let says = denial.said_by == due.key.entity;
                result = Some(if says { Err(SnmpError::of(Problem::MayNotChange)) } else { Ok(()) });
            }
        });
        result
    }

    fn deny(&self, due: &Due, now: Millis) -> Result<(), SnmpError> {
        let mut says = true;
        self.memory.denials(&mut |denials| {
            if let Some(denial) = denials.of(due.key.account) {
                if denial.until.is_none() {
                    denial.said_by = due.key.entity;
                }
                denial.until = Some(Millis(now.0.saturating_add(TRY_AGAIN_MS)));
                says = denial.said_by == due.key.entity;
            }
        });
        if says { Err(SnmpError::of(Problem::MayNotChange)) } else { Ok(()) }
    }

    fn allow(&self, due: &Due) {
        self.memory.denials(&mut |denials| {
            if let Some(denial) = denials.of(due.key.account) {
                denial.until = None;
            }
        });
    }
}

/// What going through the entities gave.
struct Compared {
    /// All changes had room.
    is_complete: bool,
    /// An entity could not be read.
    unread: Option<BackendError>,
}

fn details_of(interface: &Interface<'_>) -> heapless::String<96> {
    let mut text = heapless::String::new();
    // Never longer.
    let _ =
        write!(text, "{{\"snmp_index\":\"{}\",\"speed_bps\":\"{}\"}}", interface.index, interface.speed_bps);
    text
}
