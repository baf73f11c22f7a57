//! The bot itself: which jobs it makes of an entity, and how a run reads, computes and hands over.

use core::fmt;
use core::fmt::Write as _;
use core::net::Ipv4Addr;

use grafolean_core::bot::{Bot, Context, EntityView, JobSink, NewJob, SensorRefusal};
use grafolean_core::hash::Fnv1a64;
use grafolean_core::interval::{Interval, Intervals};
use grafolean_core::jobs::Due;
use grafolean_core::state::MAX_STATE_BYTES;
use grafolean_snmp_codec::{Arcs, Oid, OidRef, OpaqueNumber, Value, Version};

use crate::details::{FetchMethod, SensorPlan, Settings, SnmpCredential, SnmpEntity, SnmpSensor};
use crate::expression::{Missing, Operand};
use crate::fault::{Fault, Problem, Report, SnmpError};
use crate::memory::{Bytes, Hashes, Memory};
use crate::network::Network;
#[cfg(feature = "v3")]
use crate::poll::PollFault;
use crate::poll::{Access, MAX_NAMES, PollSettings, Poller, ReadFault, Walk, When};
use crate::rates::{Counter, CounterState, Reading};
use crate::readings::{Cells, Gets, Readings, Sample};
use crate::template::Piece;

/// How often interfaces are looked at, in seconds.
pub const INTERFACES_INTERVAL_S: u32 = 300;

/// A run ends so long before its deadline, so that it is told what was wrong with it, in milliseconds.
const MARGIN_MS: u64 = 500;
/// How long a name may be looked for, in milliseconds.
const RESOLVE_MS: u32 = 5_000;

/// How long a run may take at least, in milliseconds: a name, an engine's discovery, two things without an answer, each of
/// which is asked for once more in another way.
const fn deadline_ms(settings: &PollSettings) -> u32 {
    let silence_ms = settings.silence_ms();
    let walk_ms = silence_ms.saturating_add(settings.timeout_ms);
    RESOLVE_MS.saturating_add(silence_ms).saturating_add(walk_ms.saturating_mul(2)).saturating_add(1_000)
}

/// What a job does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SnmpJob {
    /// Reads what the entity's sensors want.
    Values,
    /// Keeps the entities of the device's interfaces as the device tells them.
    Interfaces,
}

/// The SNMP bot: see the [crate's description](crate).
///
/// | parameter | is |
/// | --- | --- |
/// | `N` | the [`Network`] |
/// | `M` | the [`Memory`] |
/// | `NAME` | the longest host name, in bytes |
/// | `CREDENTIAL` | the most bytes of a credential's texts together |
/// | `SENSOR` | the most bytes of a sensor's texts together |
/// | `OIDS` | the most OIDs of a sensor |
/// | `OPS` | the most steps of an expression |
/// | `P` | the longest request, in bytes; answers are asked for that should not be longer |
#[derive(Debug)]
pub struct SnmpBot<
    N,
    M,
    const NAME: usize = 64,
    const CREDENTIAL: usize = 96,
    const SENSOR: usize = 192,
    const OIDS: usize = 4,
    const OPS: usize = 24,
    const P: usize = 484,
> {
    pub(crate) network: N,
    pub(crate) memory: M,
    settings: PollSettings,
    interfaces: bool,
}

/// The bot with the sizes of a host.
#[cfg(feature = "std")]
pub type HostSnmpBot<N> = SnmpBot<N, crate::memory::HostMemory, 253, 512, 2048, 32, 128, 1472>;

impl<
    N,
    M,
    const NAME: usize,
    const CREDENTIAL: usize,
    const SENSOR: usize,
    const OIDS: usize,
    const OPS: usize,
    const P: usize,
> SnmpBot<N, M, NAME, CREDENTIAL, SENSOR, OIDS, OPS, P>
{
    /// A bot over this network.
    pub const fn new(network: N, memory: M) -> Self {
        SnmpBot { network, memory, settings: PollSettings::DEFAULT, interfaces: true }
    }

    /// With other time-outs or limits.
    #[must_use]
    pub fn settings(self, settings: PollSettings) -> Self {
        SnmpBot { settings, ..self }
    }

    /// Whether it keeps entities for the devices' interfaces, as it does unless told otherwise.
    #[must_use]
    pub fn with_interfaces(self, interfaces: bool) -> Self {
        SnmpBot { interfaces, ..self }
    }

    #[cfg(feature = "v3")]
    pub(crate) const fn poll_settings(&self) -> PollSettings {
        self.settings
    }

    /// The network.
    pub const fn network(&self) -> &N {
        &self.network
    }
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
> Bot for SnmpBot<N, M, NAME, CREDENTIAL, SENSOR, OIDS, OPS, P>
{
    type Name = ();
    type Entity = SnmpEntity<NAME>;
    type Credential = SnmpCredential<CREDENTIAL>;
    type Sensor = SnmpSensor<SENSOR>;
    type Job = SnmpJob;
    type Error = SnmpError;

    fn protocol(&self) -> Option<&str> {
        Some("snmp")
    }

    /// One at the intervals of its sensors, and one for its interfaces.
    fn entity_jobs(&self, entity: &EntityView<'_, Self>, jobs: &mut dyn JobSink<SnmpJob>) {
        match (entity.details().agent(), entity.credential().settings()) {
            (Err(why), _) | (_, Err(why)) => return jobs.refuse(why),
            #[cfg(not(feature = "v3"))]
            (_, Ok(Settings::V3 { .. })) => {
                return jobs.refuse("credential: this bot was built without SNMPv3");
            }
            _ => {}
        }
        let intervals = entity.usable_intervals(jobs, |sensor| plan::<SENSOR, OPS, OIDS>(sensor).map(drop));
        let needed_ms = deadline_ms(&self.settings);
        let usual_ms = intervals.shortest().saturating_mul(1000);
        let job = NewJob::new(intervals, SnmpJob::Values);
        // At long intervals the usual one is longer.
        jobs.add(if usual_ms < needed_ms { job.deadline_ms(needed_ms) } else { job });
        if self.interfaces
            && let Ok(interval) = Interval::new(INTERFACES_INTERVAL_S.into())
        {
            jobs.add(NewJob::new(Intervals::one(interval), SnmpJob::Interfaces).named("interfaces"));
        }
    }

    #[cfg_attr(
        not(feature = "v3"),
        expect(clippy::never_loop, reason = "only what v3 tells asks for another round")
    )]
    async fn perform<C: Context<Bot = Self>>(
        &self,
        job: &SnmpJob,
        due: &Due,
        cx: &mut C,
    ) -> Result<(), SnmpError> {
        if *job == SnmpJob::Values && !is_affected(due, cx) {
            return Ok(());
        }
        // What is gone or was made unusable meanwhile loses its job at the end of the refresh that is under way.
        let Some(credential) = cx.credential() else { return Ok(()) };
        let Ok(settings) = credential.settings() else { return Ok(()) };
        let (target, device) = {
            let Some(entity) = cx.entity() else { return Ok(()) };
            let Ok((host, port)) = entity.agent() else { return Ok(()) };
            (self.network.resolve(host, port).await, hash_of(&format_args!("{host:?} {port}")))
        };
        let target = target.map_err(|fault| Fault::of(Problem::Poll(fault.into())))?;
        // Of the network's clock, which need not be the collector's.
        let left_ms = due.deadline.0.saturating_sub(cx.now().0).saturating_sub(MARGIN_MS);
        let until = self.network.now().saturating_add(left_ms);
        #[cfg(feature = "v3")]
        let mut is_again = false;
        loop {
            #[cfg(feature = "v3")]
            let user;
            let access = match settings {
                Settings::V1 { community } => {
                    Access::Community { version: Version::V1, community: community.as_bytes() }
                }
                Settings::V2c { community } => {
                    Access::Community { version: Version::V2c, community: community.as_bytes() }
                }
                #[cfg(feature = "v3")]
                Settings::V3 { user: name, .. } => {
                    user = crate::users::User::of(self, due, target, &settings, until).await?;
                    Access::User { name: name.as_bytes(), keys: &user.keys, engine: &user.engine }
                }
                #[cfg(not(feature = "v3"))]
                Settings::V3 { .. } => return Ok(()),
            };
            let mut poller = Poller::<N, P>::new(&self.network, target, access, self.settings).until(until);
            let result = match job {
                SnmpJob::Values => self.values(due, cx, &mut poller, device).await,
                SnmpJob::Interfaces => self.interfaces(due, cx, &mut poller).await.map_err(SnmpError::from),
            };
            #[cfg(feature = "v3")]
            if let Access::User { keys, engine, .. } = access {
                crate::users::keep(self, due, &settings, engine.get(), keys, result.as_ref().err());
                if !is_again && !poller.has_answered() && result.as_ref().is_err_and(is_other_engine) {
                    // What was known of it is forgotten, so it is discovered anew.
                    is_again = true;
                    continue;
                }
            }
            return result;
        }
    }
}

/// Whether the device has become another one.
#[cfg(feature = "v3")]
fn is_other_engine(error: &SnmpError) -> bool {
    use grafolean_snmp_codec::v3::ReportReason;
    matches!(error.problem(), Problem::Poll(PollFault::Reported(ReportReason::UnknownEngineId)))
}

/// The sensor's details, if this bot can do what they want.
fn plan<const SENSOR: usize, const OPS: usize, const OIDS: usize>(
    sensor: &SnmpSensor<SENSOR>,
) -> Result<SensorPlan<'_, OPS>, SensorRefusal> {
    let plan = sensor.plan::<OPS>()?;
    if plan.count() > OIDS {
        let limit = u16::try_from(OIDS).unwrap_or(u16::MAX);
        return Err(SensorRefusal::new(&"oids", "more than this bot has room for").with_limit(limit));
    }
    Ok(plan)
}

/// Whether an interval of one of the entity's sensors made this run due.
fn is_affected<C: Context>(due: &Due, cx: &mut C) -> bool {
    let mut n = 0;
    while let Some(sensor) = cx.sensor(n) {
        if sensor.interval.is_some_and(|interval| due.affects(interval)) {
            return true;
        }
        n += 1;
    }
    false
}

/// The job's state of which counters it has: a hash of them, and whether what is not among them was forgotten.
const COUNTERS: &str = "counters";

/// Forgets the readings of counters whose rows are gone: when a complete run has met others than the one before, in that run
/// and the next, because what is met once more only then is not known to be gone before. The first complete run has nothing to
/// forget: to look for it would cost each of thousands of devices a look at the states of all.
fn forget_gone_counters<C: Context>(cx: &mut C, met: u64) {
    let mut state = [0; 9];
    for (to, from) in state.iter_mut().zip(met.to_le_bytes()) {
        *to = from;
    }
    let mut kept = [0; 9];
    let is_known = cx.get_state(COUNTERS, &mut kept) == Some(9);
    let is_same = is_known && kept.first_chunk::<8>() == state.first_chunk::<8>();
    if is_same && kept.last() == Some(&1) || !is_known && met == 0 {
        return;
    }
    if let Some(last) = state.last_mut() {
        *last = u8::from(is_same || !is_known);
    }
    // Without room for it, it is done at each run.
    if cx.set_state(COUNTERS, &state).is_err() || is_known {
        cx.forget_untouched_states();
    }
}

/// What a row of a walk, or a sensor without one, is evaluated over.
struct Row<'r, const OIDS: usize> {
    /// What was read for each OID.
    samples: [Option<Sample<'r>>; OIDS],
    /// What has an operand already: a counter's rate may be asked for once a run only.
    operands: [Option<Operand>; OIDS],
    /// What the row's name has behind the column.
    suffix: Option<Arcs<'r>>,
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
    /// The values of all sensors that are due: first of those that GET only, as many at a time as there is room for, then of
    /// those that walk. What was read is handed over, whatever fails later.
    async fn values<C: Context<Bot = Self>>(
        &self,
        due: &Due,
        cx: &mut C,
        poller: &mut Poller<'_, N, P>,
        device: u64,
    ) -> Result<(), SnmpError> {
        let mut report = Report::default();
        let mut gets = Gets::<M::Bytes>::default();
        let mut cells = Readings::<M::Bytes>::default();
        let mut from = 0;
        let mut is_whole = true;
        let mut is_gone = false;
        // Those that GET only. The first turn reads what walks want as well, so that all is in one request if it has room.
        while !is_gone {
            let which = if from == 0 { Which::All } else { Which::Single };
            gets.clear();
            let (to, more) = collect::<_, _, NAME, CREDENTIAL, SENSOR, OIDS, OPS, P, C>(
                due,
                cx,
                from,
                which,
                &mut gets,
                &mut report,
            );
            is_gone = self.read(poller, &mut gets, &mut report).await.is_err();
            for n in from..to {
                let Some(sensor) = cx.sensor(n) else { break };
                if !sensor.interval.is_some_and(|interval| due.affects(interval)) {
                    is_whole = false;
                    continue;
                }
                let Ok(plan) = plan::<SENSOR, OPS, OIDS>(&sensor.details) else { continue };
                if plan.has_walk() {
                    continue;
                }
                let (samples, keys) = (samples(&plan, &gets), counter_keys(&plan, device));
                if is_read(&plan, &samples) {
                    let row = Row { samples, operands: [None; OIDS], suffix: None };
                    self.hand_over(due, cx, sensor.id, &plan, &keys, row, None, &mut report);
                }
            }
            if !more {
                break;
            }
            from = to;
        }
        // Those that walk.
        let mut is_read_already = from == 0;
        from = 0;
        while !is_gone {
            let (mut to, mut more) = (usize::MAX, false);
            if !is_read_already {
                gets.clear();
                (to, more) = collect::<_, _, NAME, CREDENTIAL, SENSOR, OIDS, OPS, P, C>(
                    due,
                    cx,
                    from,
                    Which::Walks,
                    &mut gets,
                    &mut report,
                );
                is_gone = self.read(poller, &mut gets, &mut report).await.is_err();
            }
            is_read_already = false;
            let mut n = from;
            while n < to && !is_gone {
                let Some(sensor) = cx.sensor(n) else { break };
                n += 1;
                let Ok(plan) = plan::<SENSOR, OPS, OIDS>(&sensor.details) else { continue };
                if plan.has_walk()
                    && sensor.interval.is_some_and(|interval| due.affects(interval))
                    && is_read(&plan, &samples::<_, OPS, OIDS>(&plan, &gets))
                {
                    let walked = self
                        .walk(due, cx, poller, device, sensor.id, &plan, &gets, &mut cells, &mut report)
                        .await;
                    is_gone = walked.is_err();
                }
            }
            if !more {
                break;
            }
            from = to;
        }
        if is_whole && !report.is_partial() {
            forget_gone_counters(cx, report.counters);
        }
        report.into_error().map_or(Ok(()), Err)
    }

    /// Reads what was collected.
    ///
    /// # Errors
    /// It is of no use to ask the agent for more; what is wrong is in the report.
    async fn read(
        &self,
        poller: &mut Poller<'_, N, P>,
        gets: &mut Gets<M::Bytes>,
        report: &mut Report,
    ) -> Result<(), ()> {
        if gets.is_empty() {
            return Ok(());
        }
        let result = poller.get(gets).await;
        if gets.read.overflowed {
            report.add(0, None, Problem::NoRoom { limit: M::Bytes::LIMIT });
        }
        let Err(fault) = result else { return Ok(()) };
        report.add(0, None, Problem::Poll(fault));
        // One that has not said a word yet is down.
        if poller.is_gone(fault) || fault.is_no_answer() && !poller.has_answered() { Err(()) } else { Ok(()) }
    }

    /// A value for each row of the sensor's first walk.
    ///
    /// # Errors
    /// It is of no use to ask the agent for more; what is wrong is in the report.
    #[allow(clippy::too_many_arguments)]
    async fn walk<C: Context<Bot = Self>>(
        &self,
        due: &Due,
        cx: &mut C,
        poller: &mut Poller<'_, N, P>,
        device: u64,
        sensor: u64,
        plan: &SensorPlan<'_, OPS>,
        gets: &Gets<M::Bytes>,
        cells: &mut Readings<M::Bytes>,
        report: &mut Report,
    ) -> Result<(), ()> {
        let is_walk = |(_, method): &(Oid, FetchMethod)| *method == FetchMethod::Walk;
        let Some((first, _)) = plan.oids().find(is_walk) else { return Ok(()) };
        let mut columns = heapless::Vec::<Oid, OIDS>::new();
        columns.extend(plan.oids().filter(is_walk).skip(1).map(|(oid, _)| oid).take(OIDS));
        let mut walk = match Walk::new(&first) {
            Ok(walk) => walk,
            Err(error) => {
                report.add(sensor, Some(&first), Problem::Poll(crate::poll::PollFault::LongName(error)));
                return Ok(());
            }
        };
        let keys = counter_keys(plan, device);
        // What is read once counts for each row.
        let mut fixed = [None; OIDS];
        for (k, sample) in samples::<_, OPS, OIDS>(plan, gets).into_iter().enumerate() {
            if let (Some(sample), Some(operand)) = (sample, fixed.get_mut(k))
                && plan.expression.uses(k + 1)
            {
                *operand = Some(self.operand(cx, sensor, (k, &keys), None, sample, report));
            }
        }
        let mut paths = may_repeat(plan).then(M::Hashes::default);
        let rows_at_once =
            (MAX_NAMES / columns.len().max(1)).clamp(1, (M::Bytes::LIMIT / 32 / columns.len().max(1)).max(1));
        loop {
            let rows = match poller.next_rows(&mut walk).await {
                Ok(Some(rows)) => rows,
                Ok(None) => break,
                Err(fault) => {
                    report.add(sensor, Some(&first), Problem::Poll(fault));
                    return if poller.is_gone(fault) { Err(()) } else { Ok(()) };
                }
            };
            let mut left = rows.iter();
            loop {
                let here = left.clone();
                let count = left.by_ref().take(rows_at_once).count();
                if count == 0 {
                    break;
                }
                let mut fault = None;
                if !columns.is_empty() {
                    cells.clear();
                    let names = here.clone().map(|row| row.oid);
                    let mut wanted = Cells {
                        rows: names,
                        walked: walk.column(),
                        columns: &columns,
                        count,
                        read: &mut *cells,
                    };
                    fault = poller.get(&mut wanted).await.err();
                    if let Some(fault) = fault {
                        report.add(sensor, columns.first(), Problem::Poll(fault));
                    }
                    if cells.overflowed {
                        report.add(sensor, columns.first(), Problem::NoRoom { limit: M::Bytes::LIMIT });
                    }
                }
                for (nth, row) in here.take(count).enumerate() {
                    let mut samples = samples::<_, OPS, OIDS>(plan, gets);
                    let mut other = 0;
                    let mut is_first = true;
                    for (method, sample) in plan.methods().zip(&mut samples) {
                        if method != FetchMethod::Walk {
                            continue;
                        }
                        *sample = if is_first {
                            Some(Sample { read: Ok(row.value), when: rows.when() })
                        } else {
                            other += 1;
                            cells.get(nth * columns.len() + other - 1)
                        };
                        is_first = false;
                    }
                    if !is_read(plan, &samples) {
                        continue;
                    }
                    let suffix = row.oid.suffix_of(walk.column());
                    let row = Row { samples, operands: fixed, suffix };
                    self.hand_over(due, cx, sensor, plan, &keys, row, paths.as_mut(), report);
                }
                if let Some(fault) = fault {
                    return if poller.is_gone(fault) { Err(()) } else { Ok(()) };
                }
            }
        }
        if walk.rows() == 0 {
            report.add(sensor, Some(&first), Problem::NoRows);
        }
        Ok(())
    }

    /// Evaluates a row and hands its value over.
    #[allow(clippy::too_many_arguments)]
    fn hand_over<C: Context<Bot = Self>>(
        &self,
        due: &Due,
        cx: &mut C,
        sensor: u64,
        plan: &SensorPlan<'_, OPS>,
        keys: &[u64; OIDS],
        row: Row<'_, OIDS>,
        paths: Option<&mut M::Hashes>,
        report: &mut Report,
    ) {
        let Row { samples, operands: known, suffix } = row;
        let oid = |n: usize| plan.oids().nth(n).map(|(oid, _)| oid);
        let row_hash = suffix
            .clone()
            .map(|suffix| suffix.fold(Fnv1a64::new(), |hash, arc| hash.u64(arc.into())).finish());
        let mut operands = [Operand::Absent; OIDS];
        for (k, (operand, sample)) in operands.iter_mut().zip(&samples).enumerate() {
            *operand = match (known.get(k), sample) {
                (Some(Some(known)), _) => *known,
                (_, Some(sample)) if plan.expression.uses(k + 1) => {
                    // What is read once has its state under no row.
                    self.operand(cx, sensor, (k, keys), row_hash, *sample, report)
                }
                _ => Operand::Absent,
            };
        }
        let count = plan.count();
        let number = match plan.expression.evaluate(operands.get(..count).unwrap_or_default()) {
            Ok(number) => number,
            Err(Missing::NoRate { .. }) => return,
            Err(Missing::Absent { operand }) => {
                let k = usize::from(operand).saturating_sub(1);
                let is_walk = plan.methods().nth(k) == Some(FetchMethod::Walk);
                match samples.get(k).copied().flatten().map(|sample| sample.read) {
                    // A row that one of the tables lacks has no value.
                    Some(Err(ReadFault::Absent)) if is_walk => {}
                    Some(Err(fault)) => report.add(sensor, oid(k).as_ref(), Problem::Read(fault)),
                    // No room, which was told.
                    _ => {}
                }
                return;
            }
            Err(missing) => {
                return report.add(sensor, oid(operand_of(missing)).as_ref(), Problem::Missing(missing));
            }
        };
        let shown = samples.map(|sample| Shown::of(sample.and_then(|sample| sample.read.ok())));
        let mut pieces = [Piece::Text(&[]); OIDS];
        for (piece, shown) in pieces.iter_mut().zip(&shown) {
            *piece = shown.piece();
        }
        let suffix = suffix.into_iter().flatten();
        let path = plan.output_path.path(pieces.get(..count).unwrap_or_default(), suffix);
        if let Some(paths) = paths {
            match paths.insert(hash_of(&path)) {
                Ok(true) => {}
                Ok(false) => return report.add(sensor, None, Problem::SamePath),
                Err(_) => return report.add(sensor, None, Problem::TooManyPaths { limit: M::Hashes::LIMIT }),
            }
        }
        let id = due.key.entity;
        if let Err(error) = cx.value(format_args!("entity.{id}.snmp.{path}"), number) {
            report.add(sensor, None, Problem::HandOver(error));
        }
    }

    /// What a sample is in an expression; of a counter its rate.
    fn operand<C: Context<Bot = Self>>(
        &self,
        cx: &mut C,
        sensor: u64,
        (k, keys): (usize, &[u64; OIDS]),
        row: Option<u64>,
        sample: Sample<'_>,
        report: &mut Report,
    ) -> Operand {
        let name = || {
            let hash = Fnv1a64::new().u64(keys.get(k).copied().unwrap_or_default());
            let hash = row.map_or(hash, |row| hash.u64(row)).finish();
            let mut name = heapless::String::<64>::new();
            // Never longer: 20, 2 and 16 digits.
            let _ = write!(name, "{sensor}.{k}.{hash:x}");
            name
        };
        let mut kept = [0; MAX_STATE_BYTES];
        let value = match sample.read {
            Ok(value) => value,
            Err(ReadFault::Absent) => return Operand::Absent,
            Err(_) => {
                // It is there, so its reading must not be forgotten, if it is a counter's.
                let name = name();
                if cx.get_state(&name, &mut kept).is_some() {
                    report.counters ^= Fnv1a64::of(name.as_bytes());
                }
                return Operand::Absent;
            }
        };
        let number = |number: f64| if number.is_finite() { Operand::Number(number) } else { Operand::Text };
        let counter = match value {
            Value::Integer(n) => return number(n.into()),
            Value::Unsigned32(n) | Value::TimeTicks(n) => return number(n.into()),
            Value::OctetString(text) => return Operand::from_text(text),
            Value::Counter32(n) => Counter::Bits32(n),
            Value::Counter64(n) => Counter::Bits64(n),
            Value::Opaque(_) => match value.opaque_number() {
                Some(OpaqueNumber::Float(n)) => return number(n.into()),
                Some(OpaqueNumber::Double(n)) => return number(n),
                Some(OpaqueNumber::Int64(n)) => return number(n as f64),
                Some(OpaqueNumber::Unsigned64(n)) => return number(n as f64),
                Some(OpaqueNumber::Counter64(n)) => Counter::Bits64(n),
                _ => return Operand::Text,
            },
            Value::ObjectIdentifier(_) | Value::IpAddress(_) => return Operand::Text,
            _ => return Operand::Absent,
        };
        let When { uptime_cs, now } = sample.when;
        let reading = Reading { counter, uptime_cs, now, life: self.network.life() };
        let name = name();
        report.counters ^= Fnv1a64::of(name.as_bytes());
        let earlier = cx
            .get_state(&name, &mut kept)
            .and_then(|len| CounterState::unpack(kept.get(..len).unwrap_or_default()));
        let (outcome, state) = CounterState::advance(earlier, reading);
        if let Err(error) = cx.set_state(&name, &state.pack()) {
            report.add(sensor, None, Problem::State(error));
        }
        outcome.rate().map_or(Operand::NoRate, Operand::Number)
    }
}

/// Which sensors are meant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    All,
    /// Those without a walk.
    Single,
    Walks,
}

/// Adds what the sensors from `from` on GET, as far as there is room: up to which sensor, and whether there are more.
#[allow(clippy::type_complexity)]
fn collect<
    N: Network,
    M: Memory,
    const NAME: usize,
    const CREDENTIAL: usize,
    const SENSOR: usize,
    const OIDS: usize,
    const OPS: usize,
    const P: usize,
    C: Context<Bot = SnmpBot<N, M, NAME, CREDENTIAL, SENSOR, OIDS, OPS, P>>,
>(
    due: &Due,
    cx: &mut C,
    from: usize,
    which: Which,
    gets: &mut Gets<M::Bytes>,
    report: &mut Report,
) -> (usize, bool) {
    let mut n = from;
    while let Some(sensor) = cx.sensor(n) {
        if sensor.interval.is_some_and(|interval| due.affects(interval))
            && let Ok(plan) = plan::<SENSOR, OPS, OIDS>(&sensor.details)
            && (which == Which::All || plan.has_walk() == (which == Which::Walks))
        {
            let names = plan.oids().filter(|(_, method)| *method == FetchMethod::Get).map(|(oid, _)| oid);
            if gets.add(names).is_err() {
                if !gets.is_empty() {
                    return (n, true);
                }
                report.add(sensor.id, None, Problem::NoRoom { limit: M::Bytes::LIMIT });
            }
        }
        n += 1;
    }
    (n, false)
}

/// Whether there is a sample for each OID, where walked ones need none yet if none of them has one: what had no room or came
/// not at all was told, and must not look like what the device lacks.
fn is_read<const OPS: usize, const OIDS: usize>(
    plan: &SensorPlan<'_, OPS>,
    samples: &[Option<Sample<'_>>; OIDS],
) -> bool {
    let is_row = plan.methods().zip(samples).any(|(method, s)| method == FetchMethod::Walk && s.is_some());
    plan.methods().zip(samples).all(|(method, s)| s.is_some() || method == FetchMethod::Walk && !is_row)
}

/// What the names of the states of counters are made of: each OID at this device, so that a reading of another one is not
/// compared with it.
fn counter_keys<const OPS: usize, const OIDS: usize>(plan: &SensorPlan<'_, OPS>, device: u64) -> [u64; OIDS] {
    let mut keys = [0; OIDS];
    for ((oid, _), key) in plan.oids().zip(&mut keys) {
        *key = Fnv1a64::new().u64(device).bytes(oid.as_ber()).finish();
    }
    keys
}

/// What was read of what the sensor GETs.
fn samples<'g, B: Bytes, const OPS: usize, const OIDS: usize>(
    plan: &SensorPlan<'_, OPS>,
    gets: &'g Gets<B>,
) -> [Option<Sample<'g>>; OIDS] {
    let mut samples = [None; OIDS];
    for ((oid, method), sample) in plan.oids().zip(&mut samples) {
        if method == FetchMethod::Get {
            *sample = gets.sample(&oid);
        }
    }
    samples
}

/// Whether two rows of a walk may get the same path: not if it holds all of the suffix.
fn may_repeat<const OPS: usize>(plan: &SensorPlan<'_, OPS>) -> bool {
    let path = |suffix: [u32; 2]| hash_of(&plan.output_path.path(&[], suffix.into_iter()));
    path([1, 3]) == path([2, 3])
}

/// The hash of a path.
fn hash_of(path: &impl fmt::Display) -> u64 {
    struct Hasher(Fnv1a64);
    impl fmt::Write for Hasher {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0 = self.0.bytes(text.as_bytes());
            Ok(())
        }
    }
    let mut hasher = Hasher(Fnv1a64::new());
    let _ = write!(hasher, "{path}");
    hasher.0.finish()
}

/// The position of the operand that it is about; that of the first one if it is about none.
const fn operand_of(missing: Missing) -> usize {
    match missing {
        Missing::Text { operand } | Missing::Absent { operand } | Missing::NoRate { operand } => {
            (operand as usize).saturating_sub(1)
        }
        _ => 0,
    }
}

/// A value as it is written into a path.
enum Shown<'v> {
    Text(&'v [u8]),
    Number(i128),
    Ip(Ipv4Addr),
    Oid(OidRef<'v>),
    Float(f64),
}

impl<'v> Shown<'v> {
    fn of(value: Option<Value<'v>>) -> Self {
        let Some(value) = value else { return Shown::Text(&[]) };
        match value {
            Value::Integer(n) => Shown::Number(n.into()),
            Value::Unsigned32(n) | Value::TimeTicks(n) | Value::Counter32(n) => Shown::Number(n.into()),
            Value::Counter64(n) => Shown::Number(n.into()),
            Value::OctetString(text) => Shown::Text(text),
            Value::IpAddress(ip) => Shown::Ip(ip.into()),
            Value::ObjectIdentifier(oid) => Shown::Oid(oid),
            Value::Opaque(bytes) => match value.opaque_number() {
                Some(OpaqueNumber::Float(n)) => Shown::Float(n.into()),
                Some(OpaqueNumber::Double(n)) => Shown::Float(n),
                Some(OpaqueNumber::Int64(n)) => Shown::Number(n.into()),
                Some(OpaqueNumber::Unsigned64(n) | OpaqueNumber::Counter64(n)) => Shown::Number(n.into()),
                _ => Shown::Text(bytes),
            },
            _ => Shown::Text(&[]),
        }
    }

    fn piece(&self) -> Piece<'_> {
        match self {
            Shown::Text(text) => Piece::Text(text),
            Shown::Number(number) => Piece::Number(*number),
            Shown::Ip(ip) => Piece::Shown(ip),
            Shown::Oid(oid) => Piece::Shown(oid),
            Shown::Float(number) => Piece::Shown(number),
        }
    }
}
