//! The view on a screen of any size: a function of what is to be seen, nothing else.
//!
//! Plain ASCII but for names and texts of others; colour only adds to what marks and words say.

use std::time::Duration;

use grafolean_std::core::config::{RefreshPhase, RefreshProgress};
use grafolean_std::core::time::Millis;
use grafolean_std::driver::Report;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use super::model::{LastRefresh, Line, Record};

/// A run that began this much after its instant is marked, in milliseconds.
const LATE_MS: u64 = 1000;
/// From this width on there is room for more columns and longer words.
const WIDE: u16 = 90;
/// From this height on there is room for headings and details.
const TALL: u16 = 22;

/// All that is to be seen at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Picture {
    /// Since the start.
    pub(crate) elapsed: Duration,
    /// When it is to end.
    pub(crate) limit: Option<Duration>,
    /// It is ending.
    pub(crate) stopping: bool,
    /// The address of the stand-in's page.
    pub(crate) page: String,
    pub(crate) bots: Vec<BotPicture>,
    /// All jobs.
    pub(crate) jobs: usize,
    /// The first of [`Picture::rows`], from 0.
    pub(crate) top: usize,
    /// The jobs that there is room for: see [`rows`].
    pub(crate) rows: Vec<RowPicture>,
    /// The latest events, the oldest first.
    pub(crate) events: Vec<Line>,
}

/// A bot's lines.
#[derive(Clone, Debug)]
pub(crate) struct BotPicture {
    pub(crate) name: &'static str,
    pub(crate) now: Millis,
    pub(crate) progress: RefreshProgress,
    pub(crate) last: Option<LastRefresh>,
    pub(crate) report: Report,
    /// Runs under way.
    pub(crate) running: usize,
    /// Jobs that are due and wait.
    pub(crate) waiting: usize,
}

/// A job's line.
#[derive(Clone, Debug)]
pub(crate) struct RowPicture {
    pub(crate) bot: &'static str,
    pub(crate) entity: u64,
    pub(crate) name: String,
    pub(crate) next: Next,
    pub(crate) record: Option<Record>,
}

/// When a job is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// In so many milliseconds.
    In(u64),
    /// So many milliseconds ago; it waits.
    Overdue(u64),
    /// It is due and waits, since when is not known.
    Now,
    /// It is there no more.
    Never,
}

/// How the lines of a screen are used, from above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    per_bot: u16,
    rows: u16,
    totals: bool,
    events: u16,
    headings: bool,
}

fn plan(area: Rect, bots: usize) -> Plan {
    let bots = u16::try_from(bots).unwrap_or(u16::MAX);
    let headings = area.height >= TALL;
    let per_bot = if headings { 2 } else { 1 };
    let totals = area.height >= 10;
    // The title, a heading and a header of the jobs.
    let fixed = 3 + bots.saturating_mul(per_bot) + if totals { bots.saturating_add(1) } else { 0 };
    let rest = area.height.saturating_sub(fixed).saturating_sub(if headings { 3 } else { 0 });
    let events = match rest {
        0..=4 => 0,
        5..=9 => 2.min(rest - 4),
        more => (more / 3).min(12),
    };
    Plan { per_bot, rows: rest - events, totals, events, headings }
}

/// How many jobs there is room for on a screen of this size.
pub(crate) fn rows(area: Rect, bots: usize) -> usize {
    plan(area, bots).rows.into()
}

/// How many events there is room for.
pub(crate) fn events(area: Rect, bots: usize) -> usize {
    plan(area, bots).events.into()
}

/// Draws it.
pub(crate) fn draw(picture: &Picture, colours: bool, area: Rect, buf: &mut Buffer) {
    let mut pen = Pen { area, buf, y: 0, colours };
    let plan = plan(area, picture.bots.len());
    title(&mut pen, picture);
    for bot in &picture.bots {
        refresh(&mut pen, bot, plan.per_bot > 1);
    }
    if plan.headings {
        pen.skip();
    }
    jobs(&mut pen, picture, plan.rows);
    if plan.totals {
        if plan.headings {
            pen.skip();
        }
        totals(&mut pen, &picture.bots);
    }
    if plan.headings {
        pen.heading("Events");
    }
    let from = picture.events.len().saturating_sub(plan.events.into());
    for line in picture.events.iter().skip(from) {
        event(&mut pen, line);
    }
}

/// Writes line by line; what does not fit is cut.
struct Pen<'a> {
    area: Rect,
    buf: &'a mut Buffer,
    y: u16,
    colours: bool,
}

impl Pen<'_> {
    fn colour(&self, colour: Color) -> Style {
        // ANSI's own colours, which each terminal makes readable on its background; none that is pale on white.
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    fn bad(&self) -> Style {
        self.colour(Color::Red).add_modifier(Modifier::BOLD)
    }

    fn warn(&self) -> Style {
        self.colour(Color::Magenta).add_modifier(Modifier::BOLD)
    }

    fn good(&self) -> Style {
        self.colour(Color::Green)
    }

    fn skip(&mut self) {
        self.y = self.y.saturating_add(1);
    }

    /// Writes `text` from column `x` on, in at most `width` columns of the present line: the column behind it.
    fn put(&mut self, x: u16, width: u16, text: &str, style: Style) -> u16 {
        let room = self.area.width.saturating_sub(x).min(width);
        if self.y >= self.area.height || room == 0 {
            return x;
        }
        let (left, top) = (self.area.x + x, self.area.y + self.y);
        self.buf.set_stringn(left, top, text, room.into(), style).0 - self.area.x
    }

    /// The same, but ending at column `x + width`. The text is ASCII; one that is too long loses its end.
    fn put_right(&mut self, x: u16, width: u16, text: &str, style: Style) {
        let len = u16::try_from(text.len()).unwrap_or(u16::MAX).min(width);
        self.put(x + width - len, len, text, style);
    }

    fn line(&mut self, parts: &[(&str, Style)]) {
        let mut x = 0;
        for (text, style) in parts {
            x = self.put(x, u16::MAX, text, *style);
        }
        self.skip();
    }

    fn heading(&mut self, text: &str) {
        self.line(&[(text, Style::new().add_modifier(Modifier::BOLD))]);
    }

    fn is_wide(&self) -> bool {
        self.area.width >= WIDE
    }
}

const PLAIN: Style = Style::new();
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const HEADER: Style = Style::new().add_modifier(Modifier::UNDERLINED);

fn seconds(duration: Duration) -> String {
    tenths(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// Milliseconds as seconds: tenths below 1000 s.
fn tenths(ms: u64) -> String {
    if ms < 1_000_000 { format!("{}.{}", ms / 1000, ms % 1000 / 100) } else { (ms / 1000).to_string() }
}

fn title(pen: &mut Pen<'_>, picture: &Picture) {
    let mut time = format!("{} s", seconds(picture.elapsed));
    if let Some(limit) = picture.limit {
        time.push_str(&format!(" of {} s", limit.as_secs_f64()));
    }
    let (name, live) = if pen.is_wide() { ("Grafolean demo", "live page") } else { ("demo", "page") };
    let end = if picture.stopping { "stopping, q: at once" } else { "q ends" };
    pen.line(&[
        (name, BOLD),
        (&format!("  {time}  {live} "), PLAIN),
        (&picture.page, BOLD),
        ("  ", PLAIN),
        (end, PLAIN),
    ]);
}

fn bar(done: u32, of: u32) -> String {
    const WIDTH: u64 = 12;
    let full = if of == 0 { 0 } else { WIDTH * u64::from(done.min(of)) / u64::from(of) };
    (0..WIDTH).map(|i| if i < full { '#' } else { '-' }).collect()
}

fn refresh(pen: &mut Pen<'_>, bot: &BotPicture, two_lines: bool) {
    let RefreshProgress { phase, account_number, accounts, requests_done, requests_expected, .. } =
        bot.progress;
    let requests = match requests_expected {
        Some(all) => format!("[{}] {requests_done} of {all} requests", bar(requests_done, all)),
        None => format!("{requests_done} requests"),
    };
    let read = format!(
        "{} entities, {} credentials, {} sensors read",
        bot.progress.entities, bot.progress.credentials, bot.progress.sensors
    );
    let name = format!("{:<5} ", bot.name);
    let short = !two_lines;
    let (text, style) = if phase == RefreshPhase::Idle {
        let next = match bot.progress.next {
            Some(next) => format!("next refresh in {} s", tenths(next.since(bot.now))),
            None => "no further refresh".to_owned(),
        };
        match (&bot.last, short) {
            (Some(LastRefresh::Done(s)), true) => {
                (format!("{next}; {} jobs, {} faults, {} ms", s.jobs, s.faults, s.took_ms), PLAIN)
            }
            (Some(LastRefresh::Failed(why)), true) => (format!("{next}; failed: {why}"), pen.bad()),
            (None, true) => (next, PLAIN),
            (_, false) => (format!("{next}; {requests}, {read}"), PLAIN),
        }
    } else {
        let what = match (phase, accounts) {
            (RefreshPhase::Jobs, _) => "making jobs".to_owned(),
            (phase, Some(all)) => format!("reading {phase}, account {account_number} of {all}"),
            (phase, None) => format!("reading {phase}"),
        };
        (format!("{what}; {requests}, {read}"), pen.good())
    };
    pen.line(&[(&name, BOLD), (&text, style)]);
    if short {
        return;
    }
    let (text, style) = match &bot.last {
        Some(LastRefresh::Done(summary)) => (format!("last: {summary}"), PLAIN),
        Some(LastRefresh::Failed(why)) => (format!("last failed, jobs stay as they were: {why}"), pen.bad()),
        None => ("no refresh has ended yet".to_owned(), PLAIN),
    };
    pen.line(&[("      ", PLAIN), (&text, style)]);
}

fn jobs(pen: &mut Pen<'_>, picture: &Picture, room: u16) {
    let shown = picture.rows.len().min(room.into());
    let mut heading = match (picture.jobs, shown) {
        (0, _) => "No jobs".to_owned(),
        (all, shown) => format!("Jobs {}-{} of {all}", picture.top + 1, picture.top + shown),
    };
    if shown < picture.jobs {
        heading.push_str("  (arrows, PgUp, PgDn, Home, End)");
    }
    pen.heading(&heading);
    let columns = Columns::of(pen.area.width);
    columns.header(pen);
    for row in picture.rows.iter().take(shown) {
        columns.row(pen, row, picture.elapsed);
    }
    pen.y += room - u16::try_from(shown).unwrap_or(room);
}

/// Where the columns begin, and how wide they are.
struct Columns {
    bot: Option<(u16, u16)>,
    job: (u16, u16),
    due: (u16, u16),
    ago: (u16, u16),
    took: (u16, u16),
    late: (u16, u16),
    failed: Option<(u16, u16)>,
    values: (u16, u16),
}

impl Columns {
    fn of(width: u16) -> Self {
        let mut x = 2;
        let mut next = |width: u16| {
            let at = (x, width);
            x += width + 1;
            at
        };
        let wide = width >= WIDE;
        let bot = wide.then(|| next(5));
        let job = next(if wide { (width / 4).min(32) } else { (width / 4).clamp(12, 22) });
        let (due, ago, took, late) = (next(6), next(6), next(7), next(7));
        let failed = wide.then(|| next(6));
        Columns { bot, job, due, ago, took, late, failed, values: next(u16::MAX / 2) }
    }

    fn header(&self, pen: &mut Pen<'_>) {
        let width = pen.area.width;
        pen.put(0, width, &" ".repeat(width.into()), HEADER);
        if let Some((x, w)) = self.bot {
            pen.put(x, w, "bot", HEADER);
        }
        pen.put(self.job.0, self.job.1, "job", HEADER);
        for ((x, w), text) in
            [(self.due, "due s"), (self.ago, "ago s"), (self.took, "took ms"), (self.late, "late ms")]
        {
            pen.put_right(x, w, text, HEADER);
        }
        if let Some((x, w)) = self.failed {
            pen.put_right(x, w, "failed", HEADER);
        }
        pen.put(self.values.0, self.values.1, "last values", HEADER);
        pen.skip();
    }

    fn row(&self, pen: &mut Pen<'_>, row: &RowPicture, elapsed: Duration) {
        let none = Record::default();
        let record = row.record.as_ref().unwrap_or(&none);
        let fault = record.last.as_ref().and_then(|last| last.fault.as_deref());
        let (mark, style) = match (record.running_since, fault) {
            (Some(_), _) => (">", pen.good().add_modifier(Modifier::BOLD)),
            (None, Some(_)) => ("!", pen.bad()),
            (None, None) => (" ", PLAIN),
        };
        pen.put(0, 1, mark, style);
        if let Some((x, w)) = self.bot {
            pen.put(x, w, row.bot, PLAIN);
        }
        pen.put(self.job.0, self.job.1, &row.name, if mark == " " { PLAIN } else { style });
        let (due, late) = match (record.running_since, row.next) {
            (Some(_), _) => ("runs".to_owned(), false),
            (None, Next::In(ms)) => (tenths(ms), false),
            (None, Next::Overdue(ms)) => (format!("-{}", tenths(ms)), ms >= LATE_MS),
            (None, Next::Now) => ("now".to_owned(), false),
            (None, Next::Never) => ("gone".to_owned(), false),
        };
        let style = if late { pen.warn() } else { PLAIN };
        pen.put_right(self.due.0, self.due.1, &due, style);
        if let Some(last) = &record.last {
            pen.put_right(self.ago.0, self.ago.1, &seconds(elapsed.saturating_sub(last.ended)), PLAIN);
        }
        let took = match (record.running_since, &record.last) {
            (Some(since), _) => Some(elapsed.saturating_sub(since)),
            (None, last) => last.as_ref().map(|last| last.took),
        };
        if let Some(took) = took {
            pen.put_right(self.took.0, self.took.1, &took.as_millis().to_string(), PLAIN);
        }
        if row.record.is_some() {
            let style = if record.late_ms >= LATE_MS { pen.warn() } else { PLAIN };
            pen.put_right(self.late.0, self.late.1, &record.late_ms.to_string(), style);
        }
        if let (Some((x, w)), 1..) = (self.failed, record.failed) {
            pen.put_right(x, w, &record.failed.to_string(), pen.bad());
        }
        match fault {
            Some(why) => pen.put(self.values.0, self.values.1, why, pen.bad()),
            None => pen.put(self.values.0, self.values.1, &values(row.entity, record, pen.is_wide()), PLAIN),
        };
        pen.skip();
    }
}

/// The latest values; `long`: with what their paths have beyond their last segment.
fn values(entity: u64, record: &Record, long: bool) -> String {
    let prefix = format!("entity.{entity}.");
    let short = |path: &str| -> String {
        let path = path.strip_prefix(&prefix).unwrap_or(path);
        if long { path.to_owned() } else { path.rsplit('.').next().unwrap_or(path).to_owned() }
    };
    let all: Vec<String> =
        record.values.iter().map(|(path, number)| format!("{}={number}", short(path))).collect();
    all.join(" ")
}

fn totals(pen: &mut Pen<'_>, bots: &[BotPicture]) {
    let wide = pen.is_wide();
    let columns = |bot: Option<&BotPicture>| {
        let of = |name: &'static str, number: fn(&BotPicture) -> u64| match bot {
            Some(bot) => (name.len().max(6), number(bot).to_string()),
            None => (name.len().max(6), name.to_owned()),
        };
        let mut all = vec![
            of("collected", |b| b.report.ledger.collected),
            of("delivered", |b| b.report.ledger.delivered),
            of("queued", |b| b.report.ledger.queued),
            of("dropped", |b| b.report.ledger.dropped_total()),
            of("runs", |b| b.report.runs.runs.into()),
            of("coalesced", |b| b.report.runs.coalesced.into()),
        ];
        if wide {
            all.push(of("failed", |b| b.report.failed_runs));
            all.push(of("running", |b| b.running as u64));
            all.push(of("waiting", |b| b.waiting as u64));
        }
        all
    };
    let heading = pen.area.width;
    pen.put(0, heading, &" ".repeat(heading.into()), HEADER);
    pen.put(0, 5, "total", HEADER);
    for (bot, style) in core::iter::once((None, HEADER)).chain(bots.iter().map(|b| (Some(b), PLAIN))) {
        if let Some(bot) = bot {
            pen.put(0, 5, bot.name, BOLD);
        }
        let mut x = 6;
        for (n, (width, text)) in columns(bot).into_iter().enumerate() {
            let width = u16::try_from(width).unwrap_or(u16::MAX);
            let dropped = n == 3 && bot.is_some_and(|b| b.report.ledger.dropped_total() > 0);
            pen.put_right(x, width, &text, if dropped { pen.bad() } else { style });
            x += width + if wide { 2 } else { 1 };
        }
        pen.skip();
    }
}

fn event(pen: &mut Pen<'_>, line: &Line) {
    let (what, style) = if line.warning { ("warn", pen.warn()) } else { ("info", PLAIN) };
    let head = format!("{:>6} {:<5} ", seconds(line.at), line.bot);
    let times = if line.times > 1 { format!("({} times) ", line.times) } else { String::new() };
    pen.line(&[(&head, PLAIN), (what, style), (" ", PLAIN), (&times, PLAIN), (&line.text, PLAIN)]);
}
