//! The timer core next to five others: time and memory for each firing, and what edits cost.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hint::black_box;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use grafolean_core::jobs::{JobSlot, Progress};
use grafolean_core::schedule::{Entry, EntryFormat, Extra, Schedule, SmallEntry};
use grafolean_core::time::{Millis, Tick};
use hierarchical_hash_wheel_timer::wheels::quad_wheel::QuadWheelWithOverflow;

use super::{Bounds, CpuTime, Effort, heap, shortest};
use crate::random::Random;
use crate::table::{Table, figure, ns, times};
use crate::timer::{Jobs, MIXED, SLOW, Sink, Spec, T0, Timer, by_division, distinct_specs, job, specs};

/// What peers keep of each job, so that they too need no division when it fires: each interval's next instant. Half a
/// line of cache.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
struct PeerJob {
    intervals: [u32; 4],
    next: [u32; 4],
}

impl PeerJob {
    fn new(spec: &Spec) -> Self {
        let mut next = [u32::MAX; 4];
        for (next, &interval) in next.iter_mut().zip(&spec.intervals) {
            if interval != 0 {
                *next = spec.start + (T0 + 1 - spec.start).div_ceil(interval) * interval;
            }
        }
        PeerJob { intervals: spec.intervals, next }
    }

    #[inline(always)]
    fn next(&self) -> u32 {
        let n = &self.next;
        n[0].min(n[1]).min(n[2].min(n[3]))
    }

    /// Which intervals are due at `t`; they go on to their next instants.
    #[inline(always)]
    fn fire(&mut self, t: u32) -> u32 {
        let mut mask = 0;
        for k in 0..4 {
            let due = u32::from(self.next[k] == t);
            mask |= due << k;
            self.next[k] = self.next[k].wrapping_add(self.intervals[k] & 0u32.wrapping_sub(due));
        }
        mask
    }
}

fn peer_jobs(specs: &[Spec]) -> Vec<PeerJob> {
    specs.iter().map(PeerJob::new).collect()
}

/// What a timer took.
struct Took {
    sink: Sink,
    time: Duration,
    /// Bytes that it has at the end.
    bytes: usize,
    /// Allocations while it ran.
    allocations: usize,
}

fn measure<S>(setup: impl FnOnce() -> S, run: impl FnOnce(&mut S, &mut Sink)) -> Took {
    let before = heap();
    let mut state = setup();
    let running = heap();
    let mut sink = Sink::default();
    let begin = CpuTime::now();
    run(&mut state, &mut sink);
    let time = begin.elapsed();
    let after = heap();
    black_box(&state);
    Took {
        sink,
        time,
        bytes: after.live.saturating_sub(before.live),
        allocations: after.allocations - running.allocations,
    }
}

fn ours<E: EntryFormat>(specs: &[Spec], seconds: u32) -> Took {
    measure(|| Timer::<E>::new(specs, 0), |timer, sink| timer.run(seconds, sink))
}

/// Not the timer core alone: each job has a key, waits in the ready queue, runs and ends.
fn ours_with_jobs<E: EntryFormat>(specs: &[Spec], seconds: u32) -> Took {
    measure(|| Jobs::<E>::new(specs, 1), |jobs, sink| jobs.run(seconds, sink))
}

fn binary_heap(specs: &[Spec], seconds: u32) -> Took {
    let packed = |when: u32, id: u32| Reverse(u64::from(when) << 32 | u64::from(id));
    measure(
        || {
            let jobs = peer_jobs(specs);
            let all: Vec<_> = (0..).zip(&jobs).map(|(id, job)| packed(job.next(), id)).collect();
            (jobs, BinaryHeap::from(all))
        },
        |(jobs, heap), sink| {
            for t in T0 + 1..=T0 + seconds {
                while let Some(mut first) = heap.peek_mut() {
                    if (first.0 >> 32) as u32 > t {
                        break;
                    }
                    let id = first.0 as u32;
                    let job = &mut jobs[id as usize];
                    sink.emit(id, t, job.fire(t));
                    *first = packed(job.next(), id);
                }
            }
        },
    )
}

fn heapless_heap<const N: usize>(specs: &[Spec], seconds: u32) -> Took {
    use heapless::binary_heap::{BinaryHeap, Min};
    measure(
        || {
            let jobs = peer_jobs(specs);
            let mut heap: Box<BinaryHeap<(u32, u32), Min, N>> = Box::new(BinaryHeap::new());
            for (id, job) in (0..).zip(&jobs) {
                heap.push((job.next(), id)).unwrap();
            }
            (jobs, heap)
        },
        |(jobs, heap), sink| {
            for t in T0 + 1..=T0 + seconds {
                while let Some(mut first) = heap.peek_mut() {
                    let (when, id) = *first;
                    if when > t {
                        break;
                    }
                    let job = &mut jobs[id as usize];
                    sink.emit(id, t, job.fire(t));
                    *first = (job.next(), id);
                }
            }
        },
    )
}

fn heapless(specs: &[Spec], seconds: u32) -> Took {
    match specs.len() {
        0..=1_024 => heapless_heap::<1_024>(specs, seconds),
        1_025..=16_384 => heapless_heap::<16_384>(specs, seconds),
        16_385..=131_072 => heapless_heap::<131_072>(specs, seconds),
        _ => heapless_heap::<1_048_576>(specs, seconds),
    }
}

fn delay_queue(specs: &[Spec], seconds: u32) -> Took {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    // Inside of one, so that it sees tokio's paused clock; its budget would make it stop now and then.
    runtime.block_on(tokio::task::unconstrained(async {
        let at = |base: tokio::time::Instant, t: u32| base + Duration::from_secs((t - T0).into());
        let before = heap();
        let base = tokio::time::Instant::now();
        let mut jobs = peer_jobs(specs);
        let mut queue = tokio_util::time::DelayQueue::<u32>::with_capacity(specs.len());
        for (id, job) in (0..).zip(&jobs) {
            queue.insert_at(id, at(base, job.next()));
        }
        let running = heap();
        let mut sink = Sink::default();
        let mut cx = Context::from_waker(Waker::noop());
        let begin = CpuTime::now();
        for t in T0 + 1..=T0 + seconds {
            tokio::time::advance(Duration::from_secs(1)).await;
            while let Poll::Ready(Some(expired)) = queue.poll_expired(&mut cx) {
                let id = expired.into_inner();
                let job = &mut jobs[id as usize];
                sink.emit(id, t, job.fire(t));
                queue.insert_at(id, at(base, job.next()));
            }
        }
        let time = begin.elapsed();
        let after = heap();
        let bytes = after.live.saturating_sub(before.live);
        Took { sink, time, bytes, allocations: after.allocations - running.allocations }
    }))
}

fn hash_wheel(specs: &[Spec], seconds: u32) -> Took {
    // One tick of the wheel is called a millisecond there.
    let wait = |ticks: u32| Duration::from_millis(ticks.into());
    measure(
        || {
            let jobs = peer_jobs(specs);
            let mut wheel = QuadWheelWithOverflow::<u32>::default();
            for (id, job) in (0..).zip(&jobs) {
                wheel.insert_with_delay(id, wait(job.next() - T0)).unwrap();
            }
            (jobs, wheel)
        },
        |(jobs, wheel), sink| {
            for t in T0 + 1..=T0 + seconds {
                for id in wheel.tick() {
                    let job = &mut jobs[id as usize];
                    sink.emit(id, t, job.fire(t));
                    wheel.insert_with_delay(id, wait(job.next() - t)).unwrap();
                }
            }
        },
    )
}

fn wheel_timer(specs: &[Spec], seconds: u32) -> Took {
    measure(
        || {
            let jobs = peer_jobs(specs);
            let mut wheel = wheel_timer::WheelTimer::<u32>::new(86_401);
            for (id, job) in (0..).zip(&jobs) {
                wheel.schedule((job.next() - T0) as usize, id);
            }
            wheel.tick();
            (jobs, wheel)
        },
        |(jobs, wheel), sink| {
            for t in T0 + 1..=T0 + seconds {
                for id in wheel.tick() {
                    let job = &mut jobs[id as usize];
                    sink.emit(id, t, job.fire(t));
                    wheel.schedule((job.next() - t - 1) as usize, id);
                }
            }
        },
    )
}

/// A timer's name, the most jobs it can have, and what it takes.
type Case = (&'static str, usize, fn(&[Spec], u32) -> Took);

const CASES: [Case; 9] = [
    ("**schedule**: one ring per interval", usize::MAX, ours::<Entry>),
    ("schedule, 16-bit ids, up to 16,384 jobs", SmallEntry::MAX_SLOTS as usize, ours::<SmallEntry>),
    ("jobs: keyed, queued, run and ended", usize::MAX, ours_with_jobs::<Entry>),
    ("jobs, 16-bit ids", SmallEntry::MAX_SLOTS as usize - 1, ours_with_jobs::<SmallEntry>),
    ("std BinaryHeap, PeekMut", usize::MAX, binary_heap),
    ("heapless BinaryHeap", usize::MAX, heapless),
    ("tokio-util DelayQueue", usize::MAX, delay_queue),
    ("hierarchical_hash_wheel_timer", usize::MAX, hash_wheel),
    ("wheel_timer, 86,401 slots", usize::MAX, wheel_timer),
];

/// Python's, of `refresh` and jobs without anything to do: one firing.
const PYTHON: &str = "Python library";

/// Each timer says the same as division does; or this panics.
fn check() {
    for choice in [&MIXED[..], &SLOW[..]] {
        let jobs = specs(1_000, choice);
        let wanted = by_division(&jobs, 4_000);
        for (name, _, case) in CASES {
            assert_eq!(case(&jobs, 4_000).sink, wanted, "{name}");
        }
    }
}

fn on_a_large_stack<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        // A heap of a million is made on the stack before it is put into its box.
        let builder = std::thread::Builder::new().stack_size(64 << 20);
        builder.spawn_scoped(scope, run).unwrap().join().unwrap()
    })
}

const fn sizes(effort: Effort) -> &'static [usize] {
    match effort {
        Effort::Quick => &[1_000, 100_000],
        Effort::Full => &[1_000, 10_000, 100_000, 1_000_000],
    }
}

/// So many seconds that there is about the same number of firings at each size.
fn seconds(jobs: &[Spec], effort: Effort) -> u32 {
    let per_second: f64 =
        jobs.iter().flat_map(|s| s.intervals).filter(|i| *i != 0).map(|i| 1.0 / f64::from(i)).sum();
    let firings = if effort == Effort::Quick { 1e6 } else { 5e6 };
    (firings / per_second) as u32 + 10
}

/// Bytes and allocations of each timer, for the program `memory`, which counts them.
pub fn memory(effort: Effort) {
    on_a_large_stack(|| {
        let jobs = specs(*sizes(effort).last().unwrap(), &MIXED);
        for (name, most, case) in CASES {
            let jobs = &jobs[..most.min(jobs.len())];
            let took = case(jobs, 20);
            let bytes = took.bytes as f64 / jobs.len() as f64;
            let allocations = match took.allocations {
                0 => "none".to_owned(),
                n => format!("{:.3}", n as f64 / took.sink.firings as f64),
            };
            println!("{name}\t{bytes:.1}\t{allocations}");
        }
    });
}

/// What the program `memory` says: by name, bytes a job and allocations a firing.
fn memory_of_each(effort: Effort) -> Vec<(String, String, String)> {
    let program = std::env::current_exe().unwrap().with_file_name("memory");
    let mut command = std::process::Command::new(program);
    if effort == Effort::Quick {
        command.arg("--quick");
    }
    let out = command.output().expect("the program `memory` is built beside this one");
    let text = String::from_utf8(out.stdout).unwrap();
    let line = |l: &str| {
        let mut parts = l.split('\t').map(str::to_owned);
        Some((parts.next()?, parts.next()?, parts.next()?))
    };
    text.lines().filter_map(line).collect()
}

fn firings(effort: Effort, bounds: &mut Bounds) {
    let memory = memory_of_each(effort);
    println!(
        "besides, of each job in the job table: slot (key, intervals, parameters) {} bytes, pending {}, first run {}, head of a chain {}\n",
        size_of::<JobSlot<u32>>(),
        size_of::<Progress>(),
        size_of::<Extra>(),
        size_of::<u32>()
    );
    for (title, choice) in [("jobs with 1 to 4 of 15 intervals", &MIXED[..]), ("slow intervals only", &SLOW)]
    {
        println!("ns per firing, {title}; in brackets: times as much as the first row\n");
        let sizes = sizes(effort);
        let mut headings = vec!["timer".to_owned()];
        headings.extend(sizes.iter().map(|n| format!("{n} jobs")));
        headings.extend(["bytes/job".to_owned(), "allocations/firing".to_owned()]);
        let mut table = Table::new(&headings.iter().map(String::as_str).collect::<Vec<_>>());
        let mut rows: Vec<Vec<f64>> = vec![Vec::new(); CASES.len()];
        for &n in sizes {
            let jobs = specs(n, choice);
            let seconds = seconds(&jobs, effort);
            let mut shortest = [f64::MAX; CASES.len()];
            let mut sinks = [Sink::default(); CASES.len()];
            // In turns, so that a slow minute of the machine hits all of them.
            for _ in 0..effort.repetitions() {
                for (i, (_, _, case)) in CASES.iter().enumerate().filter(|(_, case)| n <= case.1) {
                    let took = case(&jobs, seconds);
                    shortest[i] = shortest[i].min(ns(took.time, took.sink.firings));
                    sinks[i] = took.sink;
                }
            }
            for (i, (name, most, _)) in CASES.iter().enumerate() {
                if n <= *most {
                    assert_eq!(sinks[i], sinks[0], "{name}");
                }
                rows[i].push(shortest[i]);
            }
        }
        for (i, (name, ..)) in CASES.iter().enumerate() {
            let mut cells = vec![(*name).to_owned()];
            for (mine, first) in rows[i].iter().zip(&rows[0]) {
                cells.push(if *mine == f64::MAX {
                    "-".to_owned()
                } else if i == 0 {
                    figure(*mine)
                } else {
                    format!("{} ({})", figure(*mine), times(*mine, *first))
                });
            }
            let of_it = memory.iter().find(|m| m.0 == *name);
            let (bytes, allocations) =
                of_it.map_or(("-".into(), "-".into()), |(_, b, a)| (b.clone(), a.clone()));
            cells.extend([bytes, allocations]);
            table.row(cells);
        }
        let mut python = vec![PYTHON.to_owned(), "225,000-400,000".to_owned()];
        python.resize(headings.len(), "-".to_owned());
        table.row(python);
        table.print();
        println!(
            "compared: which jobs are due at each tick, and by which of their intervals; peers also work out when each is due next, since they must insert it again by that\n"
        );
        if choice == MIXED {
            bounds_of_firings(&rows, sizes, &memory, bounds);
        }
    }
}

fn bounds_of_firings(
    rows: &[Vec<f64>],
    sizes: &[usize],
    memory: &[(String, String, String)],
    bounds: &mut Bounds,
) {
    let range = format!("{} to {} jobs", sizes[0], sizes[sizes.len() - 1]);
    let schedule = &rows[0];
    for (peer, at_least) in [("std BinaryHeap, PeekMut", 10.0), ("tokio-util DelayQueue", 30.0)] {
        let of_it = &rows[CASES.iter().position(|c| c.0 == peer).unwrap()];
        let least = of_it.iter().zip(schedule).map(|(peer, mine)| peer / mine).fold(f64::MAX, f64::min);
        let bound = format!("timer: {at_least} times fewer ns per firing than {peer}");
        bounds.add(&bound, format!("{}x at least, {range}", figure(least)), least >= at_least);
    }
    let growth = schedule[schedule.len() - 1] / schedule[0];
    let measured = format!("{}x, {range}", figure(growth));
    bounds.add("timer: a firing takes at most 1.5x as long with more jobs", measured, growth <= 1.5);
    let of = |case: usize| memory.iter().find(|m| m.0 == CASES[case].0).unwrap();
    for (case, what, most) in [(0, "28 bytes a job", 28.0), (1, "20 bytes a job with 16-bit ids", 20.0)] {
        let bytes = &of(case).1;
        let met = bytes.parse::<f64>().unwrap() <= most;
        bounds.add(&format!("timer: at most {what}"), bytes.clone(), met);
    }
    let allocations: Vec<&str> = (0..4).map(|case| of(case).2.as_str()).collect();
    let met = allocations.iter().all(|a| *a == "none");
    let measured = allocations.join(", ");
    bounds.add("timer: no allocation between refreshes", measured, met);
}

/// Ticks without a firing, and ticks at which few of many distinct intervals fire.
fn ticks(effort: Effort, bounds: &mut Bounds) {
    println!("ticks\n");
    let mut table = Table::new(&["what", "ns per tick"]);
    let ticks = if effort == Effort::Quick { 200_000u32 } else { 2_000_000 };
    let day = |s: u32| Spec { start: T0, intervals: [s, 0, 0, 0] };

    let idle: Vec<Spec> = (0..15).map(|i| day(80_000_000 + i)).collect();
    let make = || Timer::<Entry>::new(&idle, 0);
    let run = |timer: &mut Timer| {
        let mut sink = Sink::default();
        (T0 + 1..T0 + ticks).for_each(|t| timer.tick(t, &mut sink));
        assert_eq!(black_box(sink).firings, 0);
    };
    table.row(vec!["nothing due".into(), figure(ns(shortest(effort, make, run), ticks.into()))]);

    let mut of_a_class = 0.0f64;
    for (name, others) in [("one of 15 distinct intervals due", 14), ("one of 10,000 due", 9_999)] {
        let mut jobs: Vec<Spec> = (0..others).map(|i| day(80_000_000 + i)).collect();
        jobs.push(day(1));
        let ticks = if others > 100 { ticks / 200 } else { ticks };
        let took = shortest(
            effort,
            || Timer::<Entry>::new(&jobs, 0),
            |timer| {
                let mut sink = Sink::default();
                (T0 + 1..=T0 + ticks).for_each(|t| timer.tick(t, &mut sink));
                assert_eq!(black_box(sink).firings, u64::from(ticks));
            },
        );
        table.row(vec![name.into(), figure(ns(took, ticks.into()))]);
        of_a_class = of_a_class.max(ns(took, ticks.into()) / f64::from(others + 1));
    }
    let measured = format!("{} ns", figure(of_a_class));
    bounds.add("timer: a tick takes a few ns (5) for each distinct interval", measured, of_a_class <= 5.0);
    let jobs = distinct_specs(100_000, 10_000);
    let mut fired = 0;
    let seconds = 1_000;
    let took = shortest(
        effort,
        || Timer::<Entry>::new(&jobs, 0),
        |timer| {
            let mut sink = Sink::default();
            timer.run(seconds, &mut sink);
            fired = sink.firings;
        },
    );
    let each = figure(ns(took, fired));
    let set_up = shortest(effort, || (), |()| _ = black_box(Timer::<Entry>::new(&jobs, 0)));
    let set_up = figure(set_up.as_secs_f64() * 1e3);
    let name = format!(
        "100,000 jobs of 10,000 distinct intervals in random order ({each} ns per firing; set up in {set_up} ms)"
    );
    table.row(vec![name, figure(ns(took, seconds.into()))]);
    table.print();
}

/// One job more or less, and refreshes.
fn edits(effort: Effort, bounds: &mut Bounds) {
    println!(
        "edits; schedule alone, then the table of keyed jobs (a refresh names all jobs, the first ones are changed; no JSON)\n"
    );
    let sizes = sizes(effort);
    let mut headings = vec!["µs".to_owned()];
    headings.extend(sizes.iter().map(|n| format!("{n} jobs")));
    let mut table = Table::new(&headings.iter().map(String::as_str).collect::<Vec<_>>());
    const EDITS: u32 = 20;
    let mut rows: Vec<Vec<String>> = [
        "schedule: insert one",
        "schedule: remove one",
        "jobs: refresh, nothing changed",
        "jobs: refresh, 1 % changed",
        "jobs: its commit alone",
        "jobs: 10,000 of all kinds changed, begin to commit",
    ]
    .map(|s| vec![s.to_owned()])
    .into();
    for &n in sizes {
        let all = specs(n + EDITS as usize, &MIXED);
        let (jobs, further) = all.split_at(n);
        let (mut insert, mut remove) = (Duration::MAX, Duration::MAX);
        let mut timer = Timer::<Entry>::new(jobs, 4 * EDITS as usize);
        for _ in 0..effort.repetitions() {
            let mut schedule: Schedule<'_> = timer.schedule();
            let begin = CpuTime::now();
            for (slot, spec) in (n as u32..).zip(further) {
                schedule.insert(slot, &spec.set(), Tick(spec.start.into())).unwrap();
            }
            insert = insert.min(begin.elapsed());
            let begin = CpuTime::now();
            for slot in n as u32..n as u32 + EDITS {
                schedule.remove(slot);
            }
            remove = remove.min(begin.elapsed());
        }
        let micros = |d: Duration, n: u32| figure(d.as_secs_f64() * 1e6 / f64::from(n));
        rows[0].push(micros(insert, EDITS));
        rows[1].push(micros(remove, EDITS));

        let changed = (n / 100).max(10_000.min(n));
        let mut table = Jobs::<Entry>::new(jobs, changed);
        let mut same = Duration::MAX;
        let mut one_percent = (Duration::MAX, Duration::MAX);
        let mut many = [Duration::MAX; 2];
        let mut picked: Vec<u32> = (0..n as u32).collect();
        Random::new(0x0123_4567_89ab_cdef).shuffle(&mut picked);
        picked.truncate(10_000);
        for _ in 0..effort.repetitions() {
            same = same.min(refresh(&mut table, jobs, 0, None).0);
            for to in [Some(7_777), None] {
                let took = refresh(&mut table, jobs, n / 100, to);
                one_percent = one_percent.min(took);
            }
            if n >= 100_000 {
                for (least, other) in many.iter_mut().zip([true, false]) {
                    *least = edit(&mut table, jobs, &picked, other).min(*least);
                }
            }
        }
        rows[2].push(micros(same, 1));
        rows[3].push(micros(one_percent.0, 1));
        rows[4].push(micros(one_percent.1, 1));
        // To other intervals or back, whichever takes longer.
        let many = many[0].max(many[1]);
        rows[5].push(if many == Duration::MAX { "-".to_owned() } else { micros(many, 1) });
        if n == 1_000_000 {
            let bound = "timer: 10,000 jobs changed among a million, begin to commit, under 0.2 s";
            bounds.add(bound, format!("{:.3} s", many.as_secs_f64()), many < Duration::from_millis(200));
        }
    }
    for row in rows {
        table.row(row);
    }
    table.print();
}

/// How long a refresh takes, and its commit: `changed` of `jobs` are given the interval `to`, or their own again.
fn refresh(jobs: &mut Jobs, specs: &[Spec], changed: usize, to: Option<u32>) -> (Duration, Duration) {
    let mut table = jobs.table();
    let now = Millis(u64::from(T0) * 1000);
    let begin = CpuTime::now();
    table.begin();
    for (id, spec) in (0..).zip(specs) {
        let mut spec = *spec;
        if let (Some(s), true) = (to, (id as usize) < changed) {
            spec.intervals = [s, 0, 0, 0];
        }
        table.upsert(job(id, &spec)).unwrap();
    }
    let staged = begin.elapsed();
    let done = table.commit(now, |_| false, |_| {});
    let all = begin.elapsed();
    assert_eq!((done.changed as usize, done.added, done.removed), (changed, 0, 0));
    (all, all - staged)
}

/// How long it takes to give those `picked` other intervals, of all that there are, or their own again, and to commit that.
fn edit(jobs: &mut Jobs, specs: &[Spec], picked: &[u32], other: bool) -> Duration {
    let mut table = jobs.table();
    let now = Millis(u64::from(T0) * 1000);
    let one = |k: usize| [MIXED[k % MIXED.len()], 0, 0, 0];
    let begin = CpuTime::now();
    table.begin();
    for (k, &id) in picked.iter().enumerate() {
        let mut spec = specs[id as usize];
        if other {
            spec.intervals = if spec.intervals == one(k) { one(k + 1) } else { one(k) };
        }
        table.upsert(job(id, &spec)).unwrap();
    }
    table.keep_where(|_| true);
    let done = table.commit(now, |_| false, |_| {});
    let took = begin.elapsed();
    assert_eq!((done.changed as usize, done.added, done.removed), (picked.len(), 0, 0));
    took
}

/// Prints all of it.
pub fn run(effort: Effort, bounds: &mut Bounds) {
    println!("## Timer core\n");
    on_a_large_stack(|| {
        check();
        firings(effort, bounds);
        ticks(effort, bounds);
        edits(effort, bounds);
    });
}
