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

    fn value(&self, due: &Due, path: &str, number: &str) {
        self.seen.model().value(self.bot, due, path, number);
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

/// What is shown.
pub(crate) struct View {
    pub(crate) seen: Seen,
    /// The bots by their numbers.
    pub(crate) sources: Vec<Arc<dyn Source>>,
    /// The name of a job's entity.
    pub(crate) name: Box<dyn Fn(&JobKey) -> Option<String> + Send>,
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
        let result = loop {
            match self.frame(&mut screen, colours) {
                Ok(true) if !over.load(Ordering::Relaxed) => {}
                Ok(_) => break Ok(()),
                Err(error) => break Err(error),
            }
            if let Err(error) = self.input() {
                break Err(error);
            }
        };
        drop(screen);
        // Without a view nobody could end it by a key.
        if !over.load(Ordering::Relaxed) {
            let _ = self.view.stop.send(true);
        }
        result
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
        let _ = self.view.stop.send(true);
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
        let room = draw::rows(area, sources.len());
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
        let events = seen.model().latest(draw::events(area, sources.len())).cloned().collect();
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
