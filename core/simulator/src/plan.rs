//! What one seed simulates: a deployment, its faults, and when they come.

use core::fmt;

use grafolean_embassy::flash::FlashSettings;
use grafolean_std::outbox::{Settings as StoreSettings, Sync, WritePolicy};

use crate::random::{Purpose, Random};

/// A kind of fault that a plan can have. A seed has a random subset of them: some bugs show only where others are absent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
#[non_exhaustive]
pub enum Fault {
    /// Connections are refused, or not made in time.
    NotSent,
    /// Connections break before the backend got the request.
    Dropped,
    /// The backend does what it is asked, its answer is lost.
    Lost,
    /// Half-open connections: the bot gives up, the backend gets the request much later.
    Late,
    /// Requests arrive twice.
    Duplicate,
    /// Answers come in drips.
    Drip,
    /// Answers break off.
    Cut,
    /// Answers of status 200 that are garbage.
    Garbage,
    /// 400 about no value, 401, 403, 404, 408.
    Status4xx,
    /// 413 at random.
    TooLarge,
    /// 429 and 503 with a wish when to come back.
    TooMany,
    /// 500, 502, 503, 504 and nothing done.
    Status5xx,
    /// 500 and 504 after all was done.
    DoneBut5xx,
    /// A front that takes bodies of a few kilobytes only.
    SmallFront,
    /// No connection at all for minutes or hours.
    Outage,
    /// Values that the backend refuses by 400.
    Invalid,
    /// Values that the backend answers by 500.
    Odd,
    /// The machine's wall clock jumps.
    ClockJump,
    /// The backend's clock jumps: boards learn theirs from it.
    BackendClock,
    /// The machine is suspended.
    Suspend,
    /// The process is killed or the board loses power, and starts again.
    Kill,
    /// The process stops as it should, and starts again.
    Restart,
    /// Devices, sensors and intervals change, also to nonsense.
    Config,
    /// PUT is not permitted for a while.
    NoPut,
    /// Runs that never end, or fail.
    BadRuns,
    /// Hundreds of values at once.
    Bursts,
    /// Values with a time of their own, hours from now.
    OwnTimes,
    /// The same path twice at the same millisecond.
    SamePath,
    /// Runs with requests of their own.
    OwnRequests,
    /// A busy machine: everything on it happens late.
    Busy,
    /// The machine loses power: what was not synced may be lost.
    PowerCut,
    /// The process is killed in the middle of a writing.
    DieWriting,
    /// The disk is full for a while.
    DiskFull,
    /// Reading, writing and syncing fail for a while.
    DiskErrors,
    /// A bit of a file flips.
    BitFlip,
    /// Accounts come late, go, and come back.
    Accounts,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 36] = [
        Fault::NotSent,
        Fault::Dropped,
        Fault::Lost,
        Fault::Late,
        Fault::Duplicate,
        Fault::Drip,
        Fault::Cut,
        Fault::Garbage,
        Fault::Status4xx,
        Fault::TooLarge,
        Fault::TooMany,
        Fault::Status5xx,
        Fault::DoneBut5xx,
        Fault::SmallFront,
        Fault::Outage,
        Fault::Invalid,
        Fault::Odd,
        Fault::ClockJump,
        Fault::BackendClock,
        Fault::Suspend,
        Fault::Kill,
        Fault::Restart,
        Fault::Config,
        Fault::NoPut,
        Fault::BadRuns,
        Fault::Bursts,
        Fault::OwnTimes,
        Fault::SamePath,
        Fault::OwnRequests,
        Fault::Busy,
        Fault::PowerCut,
        Fault::DieWriting,
        Fault::DiskFull,
        Fault::DiskErrors,
        Fault::BitFlip,
        Fault::Accounts,
    ];

    /// Those by which a value may end that thinning is to keep.
    const fn ends_values(self) -> bool {
        use Fault::{Accounts, PowerCut, TooLarge};
        use Fault::{BitFlip, ClockJump, DieWriting, DiskErrors, DiskFull, Invalid, NoPut, Odd, Status4xx};
        matches!(
            self,
            BitFlip
                | ClockJump
                | DieWriting
                | DiskErrors
                | DiskFull
                | Invalid
                | NoPut
                | Odd
                | Status4xx
                | Accounts
                | PowerCut
                | TooLarge
        )
    }

    /// Those that happen to single requests.
    pub(crate) const OF_REQUESTS: [Fault; 13] = [
        Fault::NotSent,
        Fault::Dropped,
        Fault::Lost,
        Fault::Late,
        Fault::Duplicate,
        Fault::Drip,
        Fault::Cut,
        Fault::Garbage,
        Fault::Status4xx,
        Fault::TooLarge,
        Fault::TooMany,
        Fault::Status5xx,
        Fault::DoneBut5xx,
    ];

    /// The fault of this name, as `Debug` writes it, in any case.
    #[must_use]
    pub fn named(name: &str) -> Option<Fault> {
        Self::ALL.into_iter().find(|fault| format!("{fault:?}").eq_ignore_ascii_case(name))
    }
}

/// A set of faults.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults(u64);

impl Faults {
    /// Whether it has this one.
    #[must_use]
    pub const fn has(self, fault: Fault) -> bool {
        self.0 & (1 << fault as u8) != 0
    }

    /// The set with this one.
    #[must_use]
    pub const fn with(self, fault: Fault) -> Self {
        Faults(self.0 | 1 << fault as u8)
    }

    /// The set without this one.
    #[must_use]
    pub const fn without(self, fault: Fault) -> Self {
        Faults(self.0 & !(1 << fault as u8))
    }

    /// Its faults.
    pub fn iter(self) -> impl Iterator<Item = Fault> {
        Fault::ALL.into_iter().filter(move |fault| self.has(*fault))
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// What the bot runs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Target {
    /// A host: a growing memory, a system clock, monotonic time anchored to Unix time, three requests at once.
    Host,
    /// A board: a small memory, time from boot, the wall clock from answers, one request at a time.
    Board,
}

/// Something that happens to the deployment at a certain time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Act {
    /// No connection for so many milliseconds.
    Outage(u64),
    /// The machine's wall clock jumps by so many milliseconds.
    ClockJump(i64),
    /// The backend's clock jumps by so many milliseconds.
    BackendClock(i64),
    /// The machine is suspended for so many milliseconds.
    Suspend(u64),
    /// The process is killed, or the power is cut, for so many milliseconds.
    Kill(u64),
    /// The process is told to stop, gets ten seconds for it, and starts again after so many milliseconds.
    Restart(u64),
    /// The configuration changes; the number chooses how.
    Config(u64),
    /// PUT is not permitted for so many milliseconds.
    NoPut(u64),
    /// Power is lost for so many milliseconds.
    PowerCut(u64),
    /// The process dies in one of the next writings, and starts again after so many milliseconds.
    DieWriting(u64),
    /// The disk is full for so many milliseconds.
    DiskFull(u64),
    /// The disk fails for so many milliseconds.
    DiskErrors(u64),
    /// A bit flips, as this number chooses.
    BitFlip(u64),
    /// An account is removed, with its values, and made again after so many milliseconds.
    Account(u64),
}

impl Act {
    /// The fault that it is of.
    #[must_use]
    pub const fn fault(self) -> Fault {
        match self {
            Act::Outage(_) => Fault::Outage,
            Act::ClockJump(_) => Fault::ClockJump,
            Act::BackendClock(_) => Fault::BackendClock,
            Act::Suspend(_) => Fault::Suspend,
            Act::Kill(_) => Fault::Kill,
            Act::Restart(_) => Fault::Restart,
            Act::Config(_) => Fault::Config,
            Act::NoPut(_) => Fault::NoPut,
            Act::PowerCut(_) => Fault::PowerCut,
            Act::DieWriting(_) => Fault::DieWriting,
            Act::DiskFull(_) => Fault::DiskFull,
            Act::DiskErrors(_) => Fault::DiskErrors,
            Act::BitFlip(_) => Fault::BitFlip,
            Act::Account(_) => Fault::Accounts,
        }
    }
}

/// The flash of a board.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct FlashPlan {
    /// Its pages, of 1 kB.
    pub pages: u32,
    /// What is written when.
    pub settings: FlashSettings,
}

/// What is simulated. [`Plan::of`] makes the one of a seed; shrinking takes things away.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What all randomness comes from.
    pub seed: u64,
    /// What the bot runs on.
    pub target: Target,
    /// A bot that knows its own jobs, else one that gets them from the backend.
    pub custom: bool,
    /// A job for each sensor, else one for each device.
    pub job_per_sensor: bool,
    /// Accounts at first.
    pub accounts: u32,
    /// Devices of each account at first.
    pub devices: u32,
    /// Which intervals there are, in seconds.
    pub intervals_s: Vec<i32>,
    /// The faults that may happen.
    pub faults: Faults,
    /// So many of 1000 requests have a fault.
    pub faulty_per_mille: u32,
    /// Faults happen until then, in milliseconds since the start.
    pub chaos_ms: u64,
    /// What happens when, in milliseconds since the start.
    pub acts: Vec<(u64, Act)>,
    /// How long a request or its answer is on its way, in milliseconds.
    pub latency_ms: (u64, u64),
    /// From the start of a refresh to the start of the next.
    pub refresh_interval_s: u32,
    /// The longest wait after failures.
    pub backoff_max_ms: u32,
    /// Values in a request at most.
    pub max_values: u16,
    /// A value that waited longer is dropped.
    pub max_age_ms: u64,
    /// Only POST.
    pub post_only: bool,
    /// The memory for values that wait, in cells of 48 bytes.
    pub cells: usize,
    /// Outages are of values only: the configuration is had nevertheless, or a new life would measure nothing.
    pub outages_of_values: bool,
    /// The durable outbox, if there is one.
    pub store: Option<StoreSettings>,
    /// The longest that a sync takes, in milliseconds.
    pub sync_ms: u64,
    /// A board's durable outbox, if there is one.
    pub flash: Option<FlashPlan>,
    /// Everything on the machine may be so late.
    pub busy_ms: u64,
    /// The front's limit of bodies, in bytes.
    pub front_limit: usize,
    /// The most that a `Retry-After` asks for.
    pub retry_after_max_s: u64,
}

/// Cells of a board's memory.
pub(crate) const BOARD_CELLS: usize = 96;
/// Ages that no value reaches.
const WEEK_MS: u64 = 7 * 86_400_000;
/// Cells of a host's memory.
pub(crate) const HOST_CELLS: usize = 4096;

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Plan {
        let mut r = Random::of(seed, Purpose::Plan, 0);
        let target = if r.chance(350) { Target::Board } else { Target::Host };
        let board = target == Target::Board;
        let custom = r.chance(if board { 500 } else { 150 });
        let mut faults = Faults::default();
        // Swarm testing: many, few, or about half of them.
        let share = r.pick(&[100, 300, 500, 800]);
        for fault in Fault::ALL {
            if r.chance(share) {
                faults = faults.with(fault);
            }
        }
        let thins = !board && Random::of(seed, Purpose::Store, 2).chance(150);
        let accounts = if custom { 1 } else { r.between(1, 3) as u32 };
        let devices = if board { r.between(1, 3) } else { r.between(1, 8) } as u32;
        let pool: &[i32] = match r.between(0, 3) {
            0 => &[10, 15, 20, 30],
            1 => &[30, 60, 90, 120, 300],
            2 => &[60, 300, 600, 3600],
            _ => &[300, 900, 3600, 7200],
        };
        let shortest = u64::from(pool.iter().copied().min().unwrap_or(60).unsigned_abs());
        let jobs = u64::from(accounts * devices) * 2;
        // About so many runs are worth their time.
        let runs = r.scaled(300, 1500);
        let chaos_ms = (runs * shortest * 2 / jobs.max(1)).clamp(600, 4 * 86_400) * 1000;
        let flash = board.then(|| flash(seed, &mut faults)).flatten();
        if thins {
            for fault in Fault::ALL {
                if fault.ends_values() {
                    faults = faults.without(fault);
                }
            }
            faults = faults.with(Fault::Bursts).with(Fault::Outage).with(Fault::Kill);
        }
        let cuts = if thins { Vec::new() } else { store_cuts(seed, board, &mut faults) };
        let mut acts = acts(&mut r, faults, chaos_ms, board, flash.is_some());
        acts.extend(cuts.iter().map(|(at_per_mille, act)| (chaos_ms / 1000 * at_per_mille, *act)));
        if !cuts.is_empty() {
            acts.push((chaos_ms / 10, Act::Outage(chaos_ms / 10 * 8)));
        }
        if thins {
            // No value gets through for most of the time, and after each start all that waits is in files.
            acts.push((0, Act::Outage(chaos_ms / 10 * 9)));
            let mut r = Random::of(seed, Purpose::Store, 3);
            let kills = r.between(3, 12);
            acts.extend((0..kills).map(|_| (r.between(0, chaos_ms), Act::Kill(r.scaled(1, 20_000)))));
        }
        acts.sort_by_key(|(at_ms, _)| *at_ms);
        let slow = r.chance(200);
        let max_values = if board { r.pick(&[10, 50, 100]) } else { r.pick(&[7, 100, 1000]) };
        let front_limit = if faults.has(Fault::SmallFront) { r.between(700, 6000) as usize } else { 1 << 20 };
        let mut latency_ms = if slow { (100, 3000) } else { (1, r.between(1, 300)) };
        // What is measured must get through: about three values a run, each second, twice over.
        let per_request = u64::from(max_values).min(front_limit as u64 / 200).max(1);
        let most = if faults.has(Fault::Config) && !board { u64::from(accounts) * 12 * 2 } else { jobs };
        let room_ms = per_request * 1000 * shortest / (most.max(1) * 3 * u64::from(accounts)).max(1) / 8;
        latency_ms.1 = latency_ms.1.min(room_ms.max(2));
        latency_ms.0 = latency_ms.0.min(latency_ms.1);
        let max_age_ms = if r.chance(150) { r.scaled(60_000, 3_600_000) } else { WEEK_MS };
        let max_age_ms = if thins { WEEK_MS } else { max_age_ms };
        let mut store = (!board && r.chance(600)).then(|| StoreSettings {
            write: if r.chance(300) { WritePolicy::First } else { WritePolicy::Behind },
            sync: match r.between(0, 3) {
                0 => Sync::Never,
                1 => Sync::Always,
                _ => Sync::Every { ms: 1_000 },
            },
            max_bytes: if r.chance(200) { 64 << 10 } else { 256 << 20 },
            max_age_ms,
            ..StoreSettings::DEFAULT
        });
        let mut sync_ms: &[u64] = &[0, 20, 1_000, 1_000, 10_000];
        if !cuts.is_empty() {
            let mut kept = store.unwrap_or(StoreSettings { max_age_ms, ..StoreSettings::DEFAULT });
            kept.max_bytes = StoreSettings::DEFAULT.max_bytes;
            kept.sync = if kept.sync == Sync::Never { StoreSettings::DEFAULT.sync } else { kept.sync };
            store = Some(kept);
            sync_ms = &[20, 1_000, 1_000, 3_000];
        }
        if thins {
            let kept = store.unwrap_or(StoreSettings::DEFAULT);
            let max_bytes = Random::of(seed, Purpose::Store, 4).pick(&[16 << 10, 32 << 10, 96 << 10]);
            store = Some(StoreSettings { max_bytes, max_age_ms: WEEK_MS, thin: true, ..kept });
        }
        Plan {
            seed,
            target,
            custom,
            job_per_sensor: r.chance(400),
            accounts,
            devices,
            intervals_s: pool.to_vec(),
            faults,
            faulty_per_mille: r.pick(&[20, 100, 300, 600]),
            chaos_ms,
            acts,
            latency_ms,
            refresh_interval_s: r.pick(&[60, 120, 600]),
            backoff_max_ms: r.pick(&[5_000, 30_000, 300_000]),
            max_values,
            max_age_ms,
            post_only: r.chance(60) && !thins,
            cells: if board { BOARD_CELLS } else { HOST_CELLS },
            outages_of_values: thins || !cuts.is_empty(),
            store,
            sync_ms: Random::of(seed, Purpose::Store, 0).pick(sync_ms),
            flash,
            busy_ms: if faults.has(Fault::Busy) { r.scaled(20, 2000) } else { 0 },
            front_limit,
            retry_after_max_s: r.scaled(1, 600),
        }
    }

    /// Whether values outlive the process.
    pub(crate) const fn is_stored(&self) -> bool {
        self.store.is_some() || self.flash.is_some()
    }

    /// Whether values are thinned where there are too many.
    pub(crate) fn thins(&self) -> bool {
        self.store.is_some_and(|store| store.thin)
    }

    /// Whether values that waited are to be there after a crash: the disk does what it is told.
    pub(crate) fn healthy_disk(&self) -> bool {
        let has = |fault| self.faults.has(fault);
        // A flash is filled by values alone.
        let full = has(Fault::DiskFull) && self.flash.is_none();
        (self.flash.is_some() || self.store.is_some_and(|store| store.max_bytes > 1 << 20))
            && !full
            && !has(Fault::DiskErrors)
            && !has(Fault::BitFlip)
    }

    /// The seconds of simulated time that it takes for certain.
    #[must_use]
    pub const fn chaos_s(&self) -> u64 {
        self.chaos_ms / 1000
    }
}

/// A stream of its own, so that the rest of the plan does not depend on it.
fn flash(seed: u64, faults: &mut Faults) -> Option<FlashPlan> {
    let mut r = Random::of(seed, Purpose::Flash, 0);
    if !r.chance(600) {
        return None;
    }
    let settings = FlashSettings {
        store_after_ms: r.pick(&[1_000, 10_000, 30_000, 30_000]),
        states_every_ms: r.pick(&[10_000, 600_000]),
    };
    // One that an outage fills, or one that none does.
    let small = r.chance(250);
    let pages = if small { r.pick(&[5, 6, 8]) } else { r.pick(&[24, 160, 160]) };
    if small {
        *faults = faults.with(Fault::Outage);
    }
    if r.chance(600) {
        // Nothing excuses a loss, and values wait when the board ends.
        *faults = faults.without(Fault::DiskErrors).without(Fault::BitFlip).with(Fault::Outage);
        *faults = faults.with(if r.chance(500) { Fault::Kill } else { Fault::PowerCut });
    }
    Some(FlashPlan { pages, settings })
}

/// In some plans a host loses power often, nothing excuses a loss, and values wait for long. Times are in thousandths of the chaos.
fn store_cuts(seed: u64, board: bool, faults: &mut Faults) -> Vec<(u64, Act)> {
    let mut r = Random::of(seed, Purpose::Store, 1);
    let many = !board && r.chance(250);
    if many {
        for fault in [Fault::DiskFull, Fault::DiskErrors, Fault::BitFlip] {
            *faults = faults.without(fault);
        }
        *faults = faults.with(Fault::PowerCut).with(Fault::Outage);
    }
    let cuts = if many { r.between(5, 30) } else { 0 };
    (0..cuts).map(|_| (r.between(0, 1000), Act::PowerCut(r.scaled(1, 20_000)))).collect()
}

fn acts(r: &mut Random, faults: Faults, chaos_ms: u64, board: bool, flash: bool) -> Vec<(u64, Act)> {
    let mut acts = Vec::new();
    let most = r.pick(&[1, 2, 4, 10]);
    for fault in Fault::ALL {
        if !faults.has(fault) {
            continue;
        }
        for _ in 0..r.between(1, most) {
            let at_ms = r.between(0, chaos_ms);
            let sign = if r.chance(500) { 1 } else { -1 };
            let act = match fault {
                Fault::Outage => Act::Outage(r.scaled(5_000, chaos_ms / 2)),
                Fault::ClockJump if !board => Act::ClockJump(sign * r.scaled(1, 90_000_000) as i64),
                Fault::BackendClock if board => Act::BackendClock(sign * r.scaled(500, 20_000_000) as i64),
                Fault::Suspend => Act::Suspend(r.scaled(500, (chaos_ms / 4).min(20_000_000))),
                Fault::Kill => Act::Kill(r.scaled(1, 600_000)),
                Fault::Restart => Act::Restart(r.scaled(1, 60_000)),
                Fault::Config => Act::Config(r.next() >> 1),
                Fault::NoPut => Act::NoPut(r.scaled(10_000, chaos_ms / 2)),
                Fault::PowerCut if !board || flash => Act::PowerCut(r.scaled(1, 600_000)),
                Fault::DieWriting if !board || flash => Act::DieWriting(r.scaled(1, 60_000)),
                Fault::DiskFull if !board => Act::DiskFull(r.scaled(5_000, chaos_ms / 4)),
                Fault::DiskErrors if !board || flash => Act::DiskErrors(r.scaled(5_000, chaos_ms / 4)),
                Fault::BitFlip if !board || flash => Act::BitFlip(r.next() >> 1),
                Fault::Accounts => Act::Account(r.scaled(30_000, chaos_ms / 2)),
                _ => break,
            };
            // One that is not there at first comes new.
            let new = fault == Fault::Accounts && r.chance(300);
            acts.push((if new { 0 } else { at_ms }, act));
        }
    }
    acts.sort_by_key(|(at_ms, _)| *at_ms);
    acts
}
