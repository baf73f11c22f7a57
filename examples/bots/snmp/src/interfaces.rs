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
//! On hosts, all devices of an account share one list for five minutes, to which the bot's own changes are made; a request
//! that failed makes it doubtful, and it is listed anew. As the bot's own requests go one after the other, 8 devices at most
//! wait for them at once; another one comes again at its next time, and those that came in vain go first then (up to 16).
//!
//! # Which entity is whose
//! An entity belongs to the interface whose ifIndex is in its details, as text or number; what else is in them may be missing
//! or unreadable and is put right. One without a readable ifIndex becomes an interface's if its name is that of exactly one
//! interface without an entity; otherwise it is somebody's own and is left alone.
//!
//! # When nothing is deleted
//! An entity is deleted (with its sensors and its credential) when three complete reads in a row have not told of its
//! interface, as line cards and links come and go: at least ten minutes. Reads count as complete if the device answered to the
//! end and told of any interface, and not while its sysUpTime is below ten minutes. Only so many of a device's entities are
//! counted at once as there is room for: 6 on boards, 768 on hosts; the others follow.

use core::fmt::Write as _;
use core::str;

use grafolean_core::bot::{BackendError, Context, EntityDraft};
use grafolean_core::hash::Fnv1a64;
use grafolean_core::jobs::Due;
use grafolean_core::json::Reader;
use grafolean_core::model::ListedEntity;
use grafolean_core::time::Millis;
use grafolean_snmp_codec::{Oid, Value};

use crate::bot::SnmpBot;
use crate::fault::{Fault, Problem, short};
use crate::memory::{Bytes, Child, Memory, Note, Places, Share, TRY_AGAIN_MS};
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
/// So often it is looked whether another run has listed the account's entities, in milliseconds.
const WAIT_MS: u32 = 200;

/// So many complete reads in a row that do not tell of an interface delete its entity.
const GONE_READS: u8 = 3;
/// What a device tells in so long after its start is not all that it has, in hundredths of a second.
const BOOT_CS: u32 = 60_000;

/// ifIndex and ifSpeed of an entity's details, as far as they are readable.
fn read_details(details: &str) -> (Option<u32>, Option<u64>) {
    let (mut index, mut speed_bps) = (None, None);
    let mut reader = Reader::new(details.as_bytes());
    if reader.begin_object().is_err() {
        return (None, None);
    }
    while let Ok(Some(key)) = reader.next_key() {
        let number = reader.clone().u64().ok();
        if key == "snmp_index" {
            index = number.and_then(|index| u32::try_from(index).ok());
        } else if key == "speed_bps" {
            speed_bps = number;
        }
        if reader.skip_value().is_err() {
            break;
        }
    }
    (index, speed_bps)
}

/// Interfaces, one behind the other: index, speed, whether an entity has it, length of its name, name.
struct Found<M: Memory> {
    bytes: M::Bytes,
    /// Where they are, by index and by name.
    places: M::Places,
    /// The device was started not long ago.
    is_young: bool,
}

impl<M: Memory> Default for Found<M> {
    fn default() -> Self {
        Found { bytes: M::Bytes::default(), places: M::Places::default(), is_young: false }
    }
}

const ROW_HEAD: usize = 4 + 8 + 1 + 1;
const CLAIMED_AT: usize = 12;
/// Stands for several places.
const SEVERAL: usize = usize::MAX;

struct Interface<'f> {
    /// Where it is.
    at: usize,
    index: u32,
    speed_bps: u64,
    is_claimed: bool,
    name: &'f str,
}

impl Interface<'_> {
    /// That it has this entity.
    const fn note<'n>(&'n self, device: u64, id: u64, protocols: &'n str) -> Note<'n> {
        let (index, speed_bps) = (Some(self.index), Some(self.speed_bps));
        Note::Put { device, child: Child { id, name: self.name, index, speed_bps, protocols } }
    }
}

/// Other than every index.
fn name_key(name: &str) -> u64 {
    Fnv1a64::of(name.as_bytes()) | 1 << 63
}

impl<M: Memory> Found<M> {
    fn push(&mut self, index: u32, speed_bps: u64, name: &str) -> Result<(), Fault> {
        if self.of_index(index).is_some() {
            return Ok(());
        }
        let mut head = [0; ROW_HEAD];
        let len = u8::try_from(name.len()).unwrap_or(u8::MAX);
        let fields = index.to_le_bytes().into_iter().chain(speed_bps.to_le_bytes()).chain([0, len]);
        for (to, from) in head.iter_mut().zip(fields) {
            *to = from;
        }
        let at = self.bytes.as_slice().len();
        let put = self.bytes.append(&head).and_then(|()| self.bytes.append(name.as_bytes()));
        put.map_err(|_| Fault::of(Problem::NoRoom { limit: M::Bytes::LIMIT }))?;
        self.places.put(index.into(), at);
        let key = name_key(name);
        let is_first = self.places.get(key).is_none_or(|place| place.is_none());
        self.places.put(key, if is_first { at } else { SEVERAL });
        Ok(())
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

    fn of_index(&self, index: u32) -> Option<Interface<'_>> {
        match self.places.get(index.into()) {
            Some(place) => self.at(place?),
            None => self.iter().find(|interface| interface.index == index),
        }
    }

    /// Any interface of this name.
    fn of_name(&self, name: &str) -> Option<Interface<'_>> {
        match self.places.get(name_key(name)) {
            Some(place) if place != Some(SEVERAL) => {
                self.at(place?).filter(|interface| interface.name == name)
            }
            _ => self.iter().find(|interface| interface.name == name),
        }
    }

    /// The one interface of this name that no entity has: `None` if there are several.
    fn unclaimed(&self, name: &str) -> Option<usize> {
        match self.places.get(name_key(name)) {
            Some(place) if place != Some(SEVERAL) => {
                self.at(place?).filter(|i| i.name == name && !i.is_claimed).map(|i| i.at)
            }
            _ => {
                let mut all = self.iter().filter(|i| i.name == name && !i.is_claimed);
                let first = all.next()?;
                all.next().is_none().then_some(first.at)
            }
        }
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

/// What is to be done with an entity.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    /// It is the interface's that is here.
    Put(usize),
    /// It may become one of the name that the interface has that is here.
    Adopt(usize),
    /// Its interface is gone.
    Delete,
}

/// Changes to be made, one behind the other: the entity, where its interface is, the length of its protocols, and those.
#[derive(Default)]
struct Changes<B> {
    bytes: B,
}

const CHANGE_HEAD: usize = 8 + 4 + 4;
/// Stands for an interface that is gone.
const GONE: u32 = u32::MAX;
/// Marks what may become an interface's.
const ADOPT: u32 = 1 << 31;

impl<B: Bytes> Changes<B> {
    /// Whether there was room.
    fn push(&mut self, entity: u64, change: Change, protocols: &str) -> bool {
        let mut head = [0; CHANGE_HEAD];
        let place = |at: usize| u32::try_from(at).ok().filter(|at| *at < ADOPT - 1);
        let code = match change {
            Change::Put(at) => place(at),
            Change::Adopt(at) => place(at).map(|at| at | ADOPT),
            Change::Delete => Some(GONE),
        };
        let Some(code) = code else { return false };
        let fields = entity.to_le_bytes().into_iter().chain(code.to_le_bytes());
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

    /// The one at this place: the entity, what is to be done, its protocols; and the place of the next.
    fn at(&self, at: usize) -> Option<(u64, Change, &str, usize)> {
        let (head, after) = self.bytes.as_slice().get(at..)?.split_first_chunk::<CHANGE_HEAD>()?;
        let (entity, head) = head.split_first_chunk::<8>()?;
        let (code, head) = head.split_first_chunk::<4>()?;
        let len = u32::from_le_bytes(*head.first_chunk()?) as usize;
        let change = match u32::from_le_bytes(*code) {
            GONE => Change::Delete,
            code if code & ADOPT != 0 => Change::Adopt((code & !ADOPT) as usize),
            code => Change::Put(code as usize),
        };
        let protocols = str::from_utf8(after.get(..len)?).ok()?;
        Some((u64::from_le_bytes(*entity), change, protocols, at + CHANGE_HEAD + len))
    }
}

/// Entities whose interfaces were not told of, one behind the other: the entity, and in how many reads in a row, with marks.
#[derive(Default)]
struct Absent<B> {
    bytes: B,
    /// There may be more than it has room for, or the device may have more than it told.
    is_open: bool,
}

/// Of one.
const ABSENT: usize = 8 + 1;
/// Of a state, which has 32 bytes.
const ABSENT_OF_STATE: usize = 3 * ABSENT;
const READS: u8 = 0x0f;
/// It is absent in this read, too.
const MET: u8 = 0x80;
/// Its deletion was asked for.
const SETTLED: u8 = 0x40;

/// The job's state of the `n`-th three entities.
fn absent_name(n: usize) -> heapless::String<24> {
    let mut name = heapless::String::new();
    let _ = write!(name, "gone.{n}");
    name
}

impl<B: Bytes> Absent<B> {
    fn of<C: Context>(cx: &mut C) -> Self {
        let mut absent = Absent { bytes: B::default(), is_open: false };
        let mut state = [0; ABSENT_OF_STATE];
        for n in 0..B::LIMIT / ABSENT_OF_STATE {
            let Some(len) = cx.get_state(&absent_name(n), &mut state).filter(|len| *len >= ABSENT) else {
                break;
            };
            let _ = absent.bytes.append(state.get(..len).unwrap_or_default());
        }
        absent
    }

    /// Where it is counted.
    fn place(&self, entity: u64) -> Option<usize> {
        let is_it = |one: &[u8]| one.first_chunk() == Some(&entity.to_le_bytes());
        self.bytes.as_slice().chunks_exact(ABSENT).position(is_it)
    }

    fn marks(&mut self, entity: u64) -> Option<&mut u8> {
        let place = self.place(entity)?;
        self.bytes.as_mut_slice().get_mut(place * ABSENT + 8)
    }

    /// It is absent in this read: whether that is once too often.
    fn meet(&mut self, entity: u64) -> bool {
        if let Some(marks) = self.marks(entity) {
            *marks |= MET;
            return *marks & SETTLED == 0 && (*marks & READS) + 1 >= GONE_READS;
        }
        let mut one = [MET; ABSENT];
        for (to, from) in one.iter_mut().zip(entity.to_le_bytes()) {
            *to = from;
        }
        self.is_open |= self.bytes.append(&one).is_err();
        false
    }

    fn settle(&mut self, entity: u64) {
        if let Some(marks) = self.marks(entity) {
            *marks |= SETTLED;
        }
    }

    /// Keeps those that are absent still; whether there are any.
    fn keep<C: Context>(self, cx: &mut C) -> bool {
        let mut state = [0; ABSENT_OF_STATE];
        let mut any = self.is_open;
        let mut n = 0;
        let mut len = 0;
        let is_left = |one: &&[u8]| one.last().is_some_and(|marks| marks & (MET | SETTLED) == MET);
        for one in self.bytes.as_slice().chunks_exact(ABSENT).filter(is_left) {
            any = true;
            for (to, from) in state.iter_mut().skip(len).zip(one) {
                *to = *from;
            }
            len += ABSENT;
            if let Some(marks) = state.get_mut(len - 1) {
                *marks = ((*marks & READS) + 1).min(GONE_READS);
            }
            if len == ABSENT_OF_STATE {
                // What has no room is counted from one again.
                let _ = cx.set_state(&absent_name(n), &state);
                (n, len) = (n + 1, 0);
            }
        }
        if len > 0 {
            let _ = cx.set_state(&absent_name(n), state.get(..len).unwrap_or_default());
            n += 1;
        }
        // The ends of what there was before.
        while cx.get_state(&absent_name(n), &mut state).is_some_and(|len| len >= ABSENT) {
            let _ = cx.set_state(&absent_name(n), &[0]);
            n += 1;
        }
        any
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
fn go_on(error: BackendError, refused: &mut Option<BackendError>) -> Result<(), Fault> {
    if !matches!(error, BackendError::Status(400 | 409 | 413 | 422) | BackendError::TooLong { .. }) {
        return Err(backend(error));
    }
    refused.get_or_insert(error);
    Ok(())
}

fn backend(error: BackendError) -> Fault {
    Fault::of(Problem::Backend(error))
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
    ) -> Result<(), Fault> {
        if let Some(result) = self.is_denied(due, cx.now()) {
            return result;
        }
        let mut found = Found::<M>::default();
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
        let Some(_turn) = Turn::of(&self.memory, due) else { return Ok(()) };
        // What is known is not true any more from the first change on, whatever ends the run.
        if known != [0; 16] {
            let _ = cx.set_state(KNOWN, &[0; 16]);
        }
        let mut refused = None;
        let mut absent = if found.is_young { Absent::default() } else { Absent::<M::Few>::of(cx) };
        match self.make_equal(due, cx, &mut found, &mut absent, &mut refused).await {
            Ok(()) => self.allow(due),
            Err(error) if error.problem == Problem::Backend(BackendError::Status(403)) => {
                return self.deny(due, cx.now());
            }
            Err(error) => return Err(error),
        }
        let is_settled = if found.is_young { !absent.is_open } else { !absent.keep(cx) };
        if is_settled {
            let (hash, now) = (hash.to_le_bytes(), now.0.to_le_bytes());
            for (to, from) in known.iter_mut().zip(hash.into_iter().chain(now)) {
                *to = from;
            }
            // If it has no room, the entities are listed again next time. What was refused is tried again in an hour.
            let _ = cx.set_state(KNOWN, &known);
        }
        refused.map_or(Ok(()), |error| Err(backend(error)))
    }

    /// Reads all interfaces of the device.
    async fn read_interfaces(
        &self,
        poller: &mut Poller<'_, N, P>,
        found: &mut Found<M>,
    ) -> Result<(), Fault> {
        let oid = |arcs| Oid::<64>::from_arcs(arcs);
        let (Ok(descr), Ok(speed), Ok(high)) = (oid(DESCR), oid(SPEED), oid(HIGH_SPEED)) else {
            return Ok(());
        };
        let failed =
            |oid: &Oid, fault: PollFault| Fault { problem: Problem::Poll(fault), sensor: 0, oid: short(oid) };
        let no_room = || Fault::of(Problem::NoRoom { limit: M::Bytes::LIMIT });
        let mut walk = Walk::new(&descr).map_err(|error| failed(&descr, PollFault::LongName(error)))?;
        let mut speeds = Readings::<M::Bytes>::default();
        let rows_at_once = (M::Bytes::LIMIT / 32).clamp(1, MAX_NAMES);
        while let Some(rows) = poller.next_rows(&mut walk).await.map_err(|fault| failed(&descr, fault))? {
            found.is_young |= rows.when().uptime_cs.is_some_and(|uptime_cs| uptime_cs < BOOT_CS);
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
        due: &Due,
        cx: &mut C,
        found: &mut Found<M>,
        absent: &mut Absent<M::Few>,
        refused: &mut Option<BackendError>,
    ) -> Result<(), Fault> {
        let device = due.key.entity;
        let mut element = M::Bytes::default();
        while element.as_slice().len() < MAX_ENTITY && element.append(&[0; 64]).is_ok() {}
        let mut changes = Changes::<M::Bytes>::default();
        for _ in 0..MAX_PASSES {
            found.release_all();
            changes.bytes.truncate(0);
            let mut comparison = Comparison {
                found: &mut *found,
                changes: &mut changes,
                absent: &mut *absent,
                is_complete: true,
                may_create: true,
            };
            let unread = self.compare(due, cx, &mut comparison, element.as_mut_slice()).await?;
            let Comparison { is_complete, may_create, .. } = comparison;
            let mut at = 0;
            while let Some((entity, change, protocols, next)) = changes.at(at) {
                at = next;
                let place = match change {
                    Change::Put(place) => Some(place),
                    Change::Adopt(place) => {
                        let name = found.at(place).map_or("", |interface| interface.name);
                        let Some(place) = found.unclaimed(name) else { continue };
                        found.claim(place, true);
                        Some(place)
                    }
                    Change::Delete => None,
                };
                let change = Changing::of(&self.memory, due);
                let done = match place.and_then(|place| found.at(place)) {
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
                        let done = cx.update_entity(entity, &draft).await;
                        let protocols = protocols.unwrap_or("{}");
                        change.ended(
                            done,
                            |()| interface.note(device, entity, protocols),
                            Note::Deleted { device, id: entity },
                        )
                    }
                    None => {
                        absent.settle(entity);
                        let done = cx.delete_entity(entity).await;
                        let deleted = Note::Deleted { device, id: entity };
                        change.ended(done, |()| deleted, deleted)
                    }
                };
                match done {
                    // Somebody else has deleted it.
                    Ok(()) | Err(BackendError::Status(404)) => {}
                    Err(error) => go_on(error, refused)?,
                }
            }
            if let Some(error) = unread {
                // It may be one of those that seem to be missing.
                return Err(backend(error));
            }
            let mut at = 0;
            while may_create && let Some(interface) = found.at(at) {
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
                let change = Changing::of(&self.memory, due);
                let done = cx.create_entity(&draft).await;
                let done =
                    change.ended(done, |id| interface.note(device, id, "{}"), Note::Doubtful { device });
                if let Err(error) = done {
                    go_on(error, refused)?;
                }
            }
            if is_complete {
                return Ok(());
            }
            if changes.bytes.as_slice().is_empty() {
                break;
            }
        }
        Err(Fault::of(Problem::NoRoom { limit: M::Bytes::LIMIT }))
    }

    /// Goes through the device's entities once: why one could not be read.
    async fn compare<C: Context<Bot = Self>>(
        &self,
        due: &Due,
        cx: &mut C,
        comparison: &mut Comparison<'_, M>,
        element: &mut [u8],
    ) -> Result<Option<BackendError>, Fault> {
        let (account, device) = (due.key.account, due.key.entity);
        loop {
            match self.memory.share(account, device, cx.now()) {
                Share::Alone => {
                    return self
                        .list(cx, element, |parent, child| {
                            if parent == device {
                                comparison.meet(child);
                            }
                        })
                        .await;
                }
                Share::Wait => cx.sleep_ms(WAIT_MS).await,
                Share::Mine => {
                    let mut listing = Listing { memory: &self.memory, account, is_complete: false };
                    let listed = |device, child: &Child<'_>| {
                        self.memory.note(account, Note::Listed { device, child: *child });
                    };
                    let unread = match self.list(cx, element, listed).await? {
                        Some(BackendError::TooLong { limit }) => Some(limit),
                        _ => None,
                    };
                    listing.is_complete = true;
                    self.memory.note(account, Note::Complete { now: cx.now(), unread });
                }
                Share::Ready => {
                    let unread = self.memory.children(account, device, &mut |child| comparison.meet(child));
                    if let Some(unread) = unread {
                        return Ok(unread.map(|limit| BackendError::TooLong { limit }));
                    }
                }
            }
        }
    }

    /// Lists the interfaces' entities of the account: why one could not be read.
    async fn list<C: Context<Bot = Self>>(
        &self,
        cx: &mut C,
        element: &mut [u8],
        mut each: impl FnMut(u64, &Child<'_>),
    ) -> Result<Option<BackendError>, Fault> {
        let mut unread = None;
        cx.list_entities().await.map_err(backend)?;
        loop {
            match cx.next_entity(element).await {
                Ok(Some(len)) => with_child(element.get(..len).unwrap_or_default(), &mut each)?,
                Ok(None) => return Ok(unread),
                Err(error @ BackendError::TooLong { .. }) => unread = Some(error),
                Err(error) => return Err(backend(error)),
            }
        }
    }

    /// What a run has to say where the bot may not change entities; `None`: it may be tried.
    fn is_denied(&self, due: &Due, now: Millis) -> Option<Result<(), Fault>> {
        let mut result = None;
        self.memory.denials(&mut |denials| {
            if let Some(denial) = denials.of(due.key.account)
                && denial.until.is_some_and(|until| now < until)
            {
                let says = denial.said_by == due.key.entity;
                result = Some(if says { Err(Fault::of(Problem::MayNotChange)) } else { Ok(()) });
            }
        });
        result
    }

    fn deny(&self, due: &Due, now: Millis) -> Result<(), Fault> {
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
        if says { Err(Fault::of(Problem::MayNotChange)) } else { Ok(()) }
    }

    fn allow(&self, due: &Due) {
        self.memory.denials(&mut |denials| {
            if let Some(denial) = denials.of(due.key.account) {
                denial.until = None;
            }
        });
    }
}

/// What a list's entity is, if it is an interface's.
fn with_child(element: &[u8], look: impl FnOnce(u64, &Child<'_>)) -> Result<(), Fault> {
    let entity = ListedEntity::parse(element).map_err(|error| Fault::of(Problem::Entity(error)))?;
    let Some(parent) = entity.parent else { return Ok(()) };
    if !(entity.entity_type == *"interface") {
        return Ok(());
    }
    let (index, speed_bps) = read_details(entity.details);
    // A longer one is no interface's.
    let name = entity.name.to_string::<MAX_NAME>().unwrap_or_default();
    look(parent, &Child { id: entity.id, name: &name, index, speed_bps, protocols: entity.protocols });
    Ok(())
}

/// The turn of a device, until it is dropped.
struct Turn<'m, M: Memory> {
    memory: &'m M,
}

impl<'m, M: Memory> Turn<'m, M> {
    fn of(memory: &'m M, due: &Due) -> Option<Self> {
        memory.begin_turn(due.key.account, due.key.entity).then_some(Turn { memory })
    }
}

impl<M: Memory> Drop for Turn<'_, M> {
    fn drop(&mut self) {
        self.memory.end_turn();
    }
}

/// The listing for all devices of an account, which may be dropped before its end.
struct Listing<'m, M: Memory> {
    memory: &'m M,
    account: u64,
    is_complete: bool,
}

impl<M: Memory> Drop for Listing<'_, M> {
    fn drop(&mut self) {
        if !self.is_complete {
            self.memory.note(self.account, Note::Broken);
        }
    }
}

/// A change of an entity, of which nobody knows whether it was made if this is dropped before its end.
struct Changing<'m, M: Memory> {
    memory: &'m M,
    account: u64,
    device: u64,
    has_ended: bool,
}

impl<'m, M: Memory> Changing<'m, M> {
    const fn of(memory: &'m M, due: &Due) -> Self {
        Changing { memory, account: due.key.account, device: due.key.entity, has_ended: false }
    }

    /// Notes what was done, or that there is none.
    fn ended<'n, R>(
        mut self,
        done: Result<R, BackendError>,
        note: impl FnOnce(R) -> Note<'n>,
        none: Note<'n>,
    ) -> Result<(), BackendError> {
        use BackendError::{Status, TooLong};
        // What is refused for what it is changes nothing.
        self.has_ended = matches!(done, Ok(_) | Err(Status(400 | 404 | 413 | 422) | TooLong { .. }));
        match done {
            Ok(made) => {
                self.memory.note(self.account, note(made));
                Ok(())
            }
            Err(error) => {
                if error == Status(404) {
                    self.memory.note(self.account, none);
                }
                Err(error)
            }
        }
    }
}

impl<M: Memory> Drop for Changing<'_, M> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.memory.note(self.account, Note::Doubtful { device: self.device });
        }
    }
}

/// Going through the entities.
struct Comparison<'c, M: Memory> {
    found: &'c mut Found<M>,
    changes: &'c mut Changes<M::Bytes>,
    absent: &'c mut Absent<M::Few>,
    /// All changes had room.
    is_complete: bool,
    /// What no entity has is to be created.
    may_create: bool,
}

impl<M: Memory> Comparison<'_, M> {
    fn meet(&mut self, child: &Child<'_>) {
        let Some(index) = child.index else {
            if let Some(interface) = self.found.of_name(child.name)
                && !self.changes.push(child.id, Change::Adopt(interface.at), child.protocols)
            {
                (self.is_complete, self.may_create) = (false, false);
            }
            return;
        };
        let change = match self.found.of_index(index) {
            Some(interface) if !interface.is_claimed => {
                let is_equal = child.name == interface.name && child.speed_bps == Some(interface.speed_bps);
                let at = interface.at;
                self.found.claim(at, true);
                if is_equal {
                    return;
                }
                Change::Put(at)
            }
            // Gone, or the second entity of an interface.
            _ if self.found.is_young => {
                self.absent.is_open = true;
                return;
            }
            _ if self.absent.meet(child.id) => Change::Delete,
            _ => return,
        };
        self.is_complete &= self.changes.push(child.id, change, child.protocols);
    }
}

fn details_of(interface: &Interface<'_>) -> heapless::String<96> {
    let mut text = heapless::String::new();
    // Never longer.
    let _ =
        write!(text, "{{\"snmp_index\":\"{}\",\"speed_bps\":\"{}\"}}", interface.index, interface.speed_bps);
    text
}
