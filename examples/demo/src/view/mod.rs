//! The terminal view: what the bots do, drawn a few times a second.
//!
//! It has a thread of its own, so that a slow terminal slows no run: observers put what they see into a [`Model`], and
//! each frame asks the runners for the jobs that are to be seen, not for all of them.

mod draw;
mod model;
pub(crate) mod terminal;

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use grafolean_std::core::bot::Bot;
use grafolean_std::core::collector::Collector;
use grafolean_std::core::config::RefreshProgress;
use grafolean_std::core::jobs::{Due, JobKey};
use grafolean_std::core::journal::Event;
use grafolean_std::core::time::{Millis, Tick};
use grafolean_std::core::values::NumberText;
use grafolean_std::driver::{Heap, Observer, Report, RunEnd, Runner};
use grafolean_std::http::HttpError;
use ratatui::crossterm::event::{self, Event as Input, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::Rect;
use tokio::sync::watch;

use draw::{BotPicture, Next, Picture, RowPicture};
use model::{JobOf, Model};
use terminal::{Restore, Screen};

/// From frame to frame.
const FRAME: Duration = Duration::from_millis(200);

/// What the view and the observers share.
#[derive(Clone)]
pub(crate) struct Seen {
    model: Arc<Mutex<Model>>,
    /// Jobs may have come or gone.
    changed: Arc<AtomicBool>,
    began: Instant,
}

impl Seen {
    /// Nothing yet of bots of these names, whose numbers are their places.
    pub(crate) fn new(bots: &[&'static str], began: Instant) -> Self {
        Seen {
            model: Arc::new(Mutex::new(Model::new(bots))),
            changed: Arc::new(AtomicBool::new(true)),
            began,
        }
    }

    /// An observer of a bot.
    pub(crate) fn observer(&self, bot: usize) -> Feed {
        Feed { seen: self.clone(), bot }
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts what a bot does into the model.
pub(crate) struct Feed {
    seen: Seen,
    bot: usize,
}

impl Observer for Feed {
    fn event(&self, event: &Event, path: &str) {
        if self.seen.model().event(self.bot, event, path, self.seen.began.elapsed()) {
            self.seen.changed.store(true, Ordering::Relaxed);
        }
    }

    fn request_failed(&self, error: &HttpError) {
        self.seen.model().tell(self.bot, true, error.to_string(), self.seen.began.elapsed());
    }

    fn run_began(&self, due: &Due) {
        self.seen.model().run_began(self.bot, due, self.seen.began.elapsed());
    }

    fn value(&self, due: &Due, path: &str, number: &NumberText) {
        self.seen.model().value(self.bot, due, path, number.as_str());
    }

    fn run_ended(&self, due: &Due, end: &RunEnd, took: Duration, _values: u32) {
        self.seen.model().run_ended(self.bot, due, end, took, self.seen.began.elapsed());
    }
}

/// A bot that can be looked at while it runs.
pub(crate) trait Source: Send + Sync {
    /// All its jobs. O(jobs): only when some have come or gone.
    fn jobs(&self) -> Vec<JobKey>;
    /// How it stands, and when these jobs are due.
    fn look(&self, jobs: &[JobKey]) -> Look;
}

/// How a bot stands.
pub(crate) struct Look {
    now: Millis,
    progress: RefreshProgress,
    report: Report,
    /// Runs under way, and jobs that are due and wait.
    load: (usize, usize),
    /// Of each job whether it is there, and when it is due if it does not wait already.
    due: Vec<(bool, Option<Tick>)>,
}

impl<B> Source for Runner<B>
where
    B: Bot + Send + Sync + 'static,
    Collector<B, Heap<B>>: Send,
{
    fn jobs(&self) -> Vec<JobKey> {
        self.inspect(|c| c.jobs(|table| table.iter().map(|(_, key, _)| *key).collect()))
    }

    fn look(&self, jobs: &[JobKey]) -> Look {
        let report = self.report();
        self.inspect(|c| Look {
            now: c.now(),
            progress: c.refresh_progress(),
            report,
            load: c.load(),
            due: c.jobs(|table| {
                jobs.iter().map(|job| (table.get(job).is_some(), table.next_instant(job))).collect()
            }),
        })
    }
}

/// Names of jobs' entities.
pub(crate) type Names = Box<dyn Fn(&JobKey) -> Option<String> + Send>;

/// What is shown.
pub(crate) struct View {
    pub(crate) seen: Seen,
    /// The bots by their numbers.
    pub(crate) sources: Vec<Arc<dyn Source>>,
    /// The name of a job's entity.
    pub(crate) name: Names,
    /// The address of the stand-in's page.
    pub(crate) page: String,
    /// When it ends by itself.
    pub(crate) limit: Option<Duration>,
    /// Told when it is to end.
    pub(crate) stop: Arc<watch::Sender<bool>>,
}

/// A view on the screen.
pub(crate) struct Shown {
    thread: JoinHandle<io::Result<()>>,
    over: Arc<AtomicBool>,
    _restore: Restore,
}

impl Shown {
    /// Takes the view off the screen.
    ///
    /// # Errors
    /// Why it was not there to the end.
    pub(crate) fn end(self) -> io::Result<()> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the view panicked")))
    }
}

impl View {
    /// Takes the terminal.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn show(self) -> io::Result<Shown> {
        terminal::keep_what_panics_say();
        let screen = Screen::take()?;
        let over = Arc::new(AtomicBool::new(false));
        let rows = Rows { view: self, jobs: Vec::new(), top: 0, room: 0, due: HashMap::new() };
        let thread = std::thread::Builder::new().name("view".to_owned()).spawn({
            let over = over.clone();
            move || rows.run(screen, &over)
        })?;
        Ok(Shown { thread, over, _restore: Restore })
    }
}

/// Has the demo end when the view ends, however it does: nobody could end it by a key any more.
struct StopWithTheView(Arc<watch::Sender<bool>>);

impl Drop for StopWithTheView {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

/// The view with its place in the table.
struct Rows {
    view: View,
    /// All jobs, sorted.
    jobs: Vec<JobOf>,
    /// The first that is shown.
    top: usize,
    /// How many there was room for.
    room: usize,
    /// When those were due that were shown last.
    due: HashMap<JobOf, Tick>,
}

impl Rows {
    fn run(mut self, mut screen: Screen, over: &AtomicBool) -> io::Result<()> {
        let colours = terminal::wants_colours();
        let _stop = StopWithTheView(self.view.stop.clone());
        while self.frame(&mut screen, colours)? && !over.load(Ordering::Relaxed) {
            self.input()?;
        }
        Ok(())
    }

    fn frame(&mut self, screen: &mut Screen, colours: bool) -> io::Result<bool> {
        let picture = self.picture(screen.area()?);
        screen.draw(|area, buf| draw::draw(&picture, colours, area, buf))
    }

    /// Waits for the next frame's time or for keys, and does what they say.
    fn input(&mut self) -> io::Result<()> {
        let mut wait = FRAME;
        while event::poll(wait)? {
            if let Input::Key(key) = event::read()?
                && key.kind != KeyEventKind::Release
            {
                self.key(key);
            }
            // All that has come meanwhile, then a frame at once.
            wait = Duration::ZERO;
        }
        Ok(())
    }

    fn key(&mut self, key: KeyEvent) {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        let page = self.room.max(1);
        self.top = match key.code {
            KeyCode::Char('c') if control => return self.stop(),
            KeyCode::Char('q' | 'Q') | KeyCode::Esc => return self.stop(),
            KeyCode::Up => self.top.saturating_sub(1),
            KeyCode::Down => self.top.saturating_add(1),
            KeyCode::PageUp => self.top.saturating_sub(page),
            KeyCode::PageDown => self.top.saturating_add(page),
            KeyCode::Home => 0,
            KeyCode::End => usize::MAX,
            _ => return,
        };
    }

    /// Has it end; the second time at once.
    fn stop(&self) {
        if *self.view.stop.borrow() {
            terminal::give_back();
            std::process::exit(130);
        }
        self.view.stop.send_replace(true);
    }

    fn picture(&mut self, area: Rect) -> Picture {
        let View { seen, sources, name, page, limit, stop } = &self.view;
        if seen.changed.swap(false, Ordering::Relaxed) {
            let of = |(bot, source): (usize, &Arc<dyn Source>)| {
                source.jobs().into_iter().map(move |job| (bot, job))
            };
            self.jobs = sources.iter().enumerate().flat_map(of).collect();
            self.jobs.sort_unstable();
            seen.model().keep_only(&self.jobs);
        }
        let room = draw::rows(area, sources.len(), self.jobs.len());
        self.room = room;
        self.top = self.top.min(self.jobs.len().saturating_sub(room));
        let shown = self.jobs.get(self.top..).unwrap_or_default();
        let shown = shown.get(..room).unwrap_or(shown);
        let mut bots = Vec::new();
        let mut rows = Vec::new();
        let mut due = HashMap::new();
        for (bot, source) in sources.iter().enumerate() {
            let keys: Vec<JobKey> = shown.iter().filter(|(of, _)| *of == bot).map(|(_, key)| *key).collect();
            let look = source.look(&keys);
            let model = seen.model();
            for (key, (there, instant)) in keys.iter().zip(look.due) {
                let job = (bot, *key);
                let next = match (there, instant, self.due.get(&job)) {
                    (false, ..) => Next::Never,
                    (_, Some(instant), _) => {
                        due.insert(job, instant);
                        Next::In(instant.start().since(look.now))
                    }
                    (_, None, Some(was)) if was.start() <= look.now => {
                        due.insert(job, *was);
                        Next::Overdue(look.now.since(was.start()))
                    }
                    _ => Next::Now,
                };
                rows.push(RowPicture {
                    bot: model.bot_name(bot),
                    entity: key.entity,
                    name: job_name(key, name(key)),
                    next,
                    record: model.record(&job).cloned(),
                });
            }
            bots.push(BotPicture {
                name: model.bot_name(bot),
                now: look.now,
                progress: look.progress,
                last: model.refresh(bot).cloned(),
                report: look.report,
                running: look.load.0,
                waiting: look.load.1,
            });
        }
        self.due = due;
        let events =
            seen.model().latest(draw::events(area, sources.len(), self.jobs.len())).cloned().collect();
        Picture {
            elapsed: seen.began.elapsed(),
            limit: *limit,
            stopping: *stop.borrow(),
            page: page.clone(),
            bots,
            jobs: self.jobs.len(),
            top: self.top,
            rows,
            events,
        }
    }
}

/// A job as a person knows it: id and name of its entity, or what its key says.
fn job_name(key: &JobKey, entity: Option<String>) -> String {
    let mut parts: Vec<String> = Vec::new();
    match (key.entity, key.item) {
        (0, 0) => {}
        (0, item) => parts.push(format!("item {item}")),
        (entity, 0) => parts.push(entity.to_string()),
        (entity, item) => parts.push(format!("{entity}/{item}")),
    }
    if !key.name.is_empty() {
        parts.push(key.name.to_owned());
    }
    parts.extend(entity);
    if parts.is_empty() {
        parts.push(format!("account {}", key.account));
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use grafolean_std::core::jobs::JobCounters;
    use grafolean_std::core::journal::RefreshSummary;
    use grafolean_std::core::outbox::Ledger;
    use grafolean_std::core::table::Committed;
    use ratatui::buffer::Buffer;

    /// A bot of so many jobs; it notes which of them it was asked for.
    #[derive(Default)]
    struct Many {
        jobs: u64,
        asked: Mutex<Vec<Vec<JobKey>>>,
        listed: Mutex<u32>,
        /// Of the second job.
        waits: AtomicBool,
        now: Mutex<u64>,
    }

    impl Source for Many {
        fn jobs(&self) -> Vec<JobKey> {
            *self.listed.lock().unwrap() += 1;
            (1..=self.jobs).rev().map(|entity| JobKey::new(1, entity)).collect()
        }

        fn look(&self, jobs: &[JobKey]) -> Look {
            self.asked.lock().unwrap().push(jobs.to_vec());
            let waits = |job: &JobKey| job.entity == 2 && self.waits.load(Ordering::Relaxed);
            Look {
                now: Millis(*self.now.lock().unwrap()),
                progress: RefreshProgress::default(),
                report: Report {
                    ledger: Ledger::EMPTY,
                    runs: JobCounters::default(),
                    failed_runs: 0,
                    turns: 0,
                    written: 0,
                    file_bytes: 0,
                    oldest_s: None,
                    totals: None,
                },
                load: (0, 0),
                due: jobs.iter().map(|job| (true, (!waits(job)).then_some(Tick(10)))).collect(),
            }
        }
    }

    fn rows(source: &Arc<Many>) -> Rows {
        let view = View {
            seen: Seen::new(&["ping"], Instant::now()),
            sources: vec![source.clone()],
            name: Box::new(|job| Some(format!("Router {}", job.entity))),
            page: "http://127.0.0.1:1/".to_owned(),
            limit: None,
            stop: Arc::new(watch::Sender::new(false)),
        };
        Rows { view, jobs: Vec::new(), top: 0, room: 0, due: HashMap::new() }
    }

    fn press(rows: &mut Rows, code: KeyCode) {
        rows.key(KeyEvent::new(code, KeyModifiers::NONE));
    }

    const AREA: Rect = Rect::new(0, 0, 60, 15);

    fn shown(rows: &mut Rows) -> (usize, Vec<String>) {
        let picture = rows.picture(AREA);
        (picture.top, picture.rows.iter().map(|row| row.name.clone()).collect())
    }

    #[test]
    fn of_ten_thousand_jobs_a_frame_asks_only_for_those_it_shows() {
        let source = Arc::new(Many { jobs: 10_000, ..Many::default() });
        let mut rows = rows(&source);
        let (_, names) = shown(&mut rows);
        assert!(names.len() >= 5 && names.len() < 15);
        assert_eq!(names[0], "1 Router 1");
        let n = names.len();
        press(&mut rows, KeyCode::PageDown);
        press(&mut rows, KeyCode::Down);
        let (top, names) = shown(&mut rows);
        assert_eq!((top, names[0].as_str()), (n + 1, format!("{} Router {}", n + 2, n + 2).as_str()));
        press(&mut rows, KeyCode::End);
        let (top, names) = shown(&mut rows);
        assert_eq!((top, names.last().unwrap().as_str()), (10_000 - n, "10000 Router 10000"));
        press(&mut rows, KeyCode::Down);
        assert_eq!(shown(&mut rows).0, 10_000 - n);
        press(&mut rows, KeyCode::PageUp);
        press(&mut rows, KeyCode::Up);
        assert_eq!(shown(&mut rows).0, 10_000 - 2 * n - 1);
        press(&mut rows, KeyCode::Home);
        assert_eq!(shown(&mut rows).0, 0);
        assert!(source.asked.lock().unwrap().iter().all(|asked| asked.len() == n));
        assert_eq!(*source.listed.lock().unwrap(), 1, "all jobs are listed for each frame");
    }

    #[test]
    fn jobs_are_listed_again_only_when_a_refresh_has_changed_some() {
        let source = Arc::new(Many { jobs: 3, ..Many::default() });
        let mut rows = rows(&source);
        let feed = rows.view.seen.observer(0);
        let listed = |rows: &mut Rows| {
            rows.picture(AREA);
            *source.listed.lock().unwrap()
        };
        assert_eq!(listed(&mut rows), 1);
        feed.event(&Event::Refreshed(RefreshSummary::default()), "");
        assert_eq!(listed(&mut rows), 1);
        let committed = Committed { removed: 1, ..Committed::default() };
        feed.event(&Event::Refreshed(RefreshSummary { committed, ..RefreshSummary::default() }), "");
        assert_eq!(listed(&mut rows), 2);
    }

    #[test]
    fn a_job_that_waits_is_shown_with_how_long_it_has_been_due() {
        let source = Arc::new(Many { jobs: 2, ..Many::default() });
        let mut rows = rows(&source);
        let second = |rows: &mut Rows, now_ms: u64| {
            *source.now.lock().unwrap() = now_ms;
            rows.picture(AREA).rows[1].next
        };
        assert_eq!(second(&mut rows, 4_000), Next::In(6_000));
        source.waits.store(true, Ordering::Relaxed);
        assert_eq!(second(&mut rows, 12_000), Next::Overdue(2_000));
        assert_eq!(second(&mut rows, 13_000), Next::Overdue(3_000));
    }

    #[test]
    fn a_frame_of_a_view_without_jobs_says_so() {
        let source = Arc::new(Many::default());
        let picture = rows(&source).picture(AREA);
        let mut buf = Buffer::empty(AREA);
        draw::draw(&picture, true, AREA, &mut buf);
        let text: String = buf.content().iter().map(|cell| cell.symbol()).collect();
        assert!(text.contains("No jobs"), "{text}");
    }

    #[test]
    fn q_esc_and_ctrl_c_ask_for_the_end_and_other_keys_do_not() {
        let keys = [
            (KeyCode::Char('q'), KeyModifiers::NONE, true),
            (KeyCode::Esc, KeyModifiers::NONE, true),
            (KeyCode::Char('c'), KeyModifiers::CONTROL, true),
            (KeyCode::Char('c'), KeyModifiers::NONE, false),
            (KeyCode::Enter, KeyModifiers::NONE, false),
        ];
        for (code, modifiers, ends) in keys {
            let mut rows = rows(&Arc::new(Many::default()));
            rows.key(KeyEvent::new(code, modifiers));
            assert_eq!(*rows.view.stop.borrow(), ends, "{code:?}");
        }
    }

    #[test]
    fn a_job_is_named_by_its_entity_or_by_its_key() {
        let key = |entity, item, name| JobKey { account: 7, entity, item, name };
        let named = |key: JobKey, entity: Option<&str>| job_name(&key, entity.map(str::to_owned));
        assert_eq!(named(key(31, 0, ""), Some("Router")), "31 Router");
        assert_eq!(named(key(31, 5, "if"), None), "31/5 if");
        assert_eq!(named(key(0, 0, "host"), None), "host");
        assert_eq!(named(key(0, 5, ""), None), "item 5");
        assert_eq!(named(key(0, 0, ""), None), "account 7");
    }
}
