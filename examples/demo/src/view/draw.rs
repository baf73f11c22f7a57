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

fn plan(area: Rect, bots: usize, jobs: usize) -> Plan {
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
    // What the jobs do not need is for events.
    let rows = (rest - events).min(u16::try_from(jobs).unwrap_or(u16::MAX));
    let events = if events > 0 { rest - rows } else { 0 };
    Plan { per_bot, rows, totals, events, headings }
}

/// How many of so many jobs there is room for on a screen of this size.
pub(crate) fn rows(area: Rect, bots: usize, jobs: usize) -> usize {
    plan(area, bots, jobs).rows.into()
}

/// How many events there is room for.
pub(crate) fn events(area: Rect, bots: usize, jobs: usize) -> usize {
    plan(area, bots, jobs).events.into()
}

/// Draws it.
pub(crate) fn draw(picture: &Picture, colours: bool, area: Rect, buf: &mut Buffer) {
    let mut pen = Pen { area, buf, y: 0, colours };
    let plan = plan(area, picture.bots.len(), picture.jobs);
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
    events_at_the_end(&mut pen, &picture.events, plan.events);
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
    let read = match bot.progress {
        // A custom bot reads no lists.
        RefreshProgress { entities: 0, credentials: 0, sensors: 0, .. } => String::new(),
        RefreshProgress { entities, credentials, sensors, .. } => {
            format!(", {entities} entities, {credentials} credentials, {sensors} sensors read")
        }
    };
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
            (_, false) => (format!("{next}; {requests}{read}"), PLAIN),
        }
    } else {
        let what = match (phase, accounts) {
            (RefreshPhase::Jobs, _) => "making jobs".to_owned(),
            (phase, Some(all)) => format!("reading {phase}, account {account_number} of {all}"),
            (phase, None) => format!("reading {phase}"),
        };
        (format!("{what}; {requests}{read}"), pen.good())
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
            (None, Next::Overdue(ms @ LATE_MS..)) => (format!("-{}", tenths(ms)), true),
            (None, Next::Now | Next::Overdue(_)) => ("now".to_owned(), false),
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
            None => {
                let (x, w) = self.values;
                pen.put(x, w, &values(row.entity, record, pen.is_wide(), w.into()), PLAIN)
            }
        };
        pen.skip();
    }
}

/// The latest values that fit into `width` characters as a whole, but at least one; `long`: with what their paths have
/// beyond their last segment.
fn values(entity: u64, record: &Record, long: bool, width: usize) -> String {
    let prefix = format!("entity.{entity}.");
    let short = |path: &str| -> String {
        let path = path.strip_prefix(&prefix).unwrap_or(path);
        if long { path.to_owned() } else { path.rsplit('.').next().unwrap_or(path).to_owned() }
    };
    let mut line = String::new();
    for (path, number) in &record.values {
        let value = format!("{}={}", short(path), plain(number));
        if !line.is_empty() {
            if line.chars().count() + 1 + value.chars().count() > width {
                break;
            }
            line.push(' ');
        }
        line.push_str(&value);
    }
    line
}

/// A number as people read it: what is sent may have an exponent, to be short.
fn plain(number: &str) -> String {
    match number.parse::<f64>() {
        Ok(value) if number.contains('e') && (1e-9..1e15).contains(&value.abs()) => value.to_string(),
        _ => number.to_owned(),
    }
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

/// The latest events that fit, long ones on several lines.
fn events_at_the_end(pen: &mut Pen<'_>, events: &[Line], room: u16) {
    const HEAD: u16 = 18;
    let mut lines: Vec<(Option<&Line>, String)> = Vec::new();
    for line in events.iter().rev() {
        let times = if line.times > 1 { format!("({} times) ", line.times) } else { String::new() };
        let text = wrapped(&format!("{times}{}", line.text), pen.area.width.saturating_sub(HEAD).into());
        if lines.len() + text.len() > room.into() && !lines.is_empty() {
            break;
        }
        let first = core::iter::once(Some(line)).chain(core::iter::repeat(None));
        lines.extend(first.zip(text).collect::<Vec<_>>().into_iter().rev());
    }
    // A single one that is too long loses its end.
    for (head, text) in lines.iter().rev().take(room.into()) {
        if let Some(line) = head {
            let (what, style) = if line.warning { ("warn", pen.warn()) } else { ("info", PLAIN) };
            pen.put(0, HEAD, &format!("{:>6} {:<5}", seconds(line.at), line.bot), PLAIN);
            pen.put(HEAD - 5, 4, what, style);
        }
        pen.put(HEAD, u16::MAX, text, PLAIN);
        pen.skip();
    }
}

/// `text` in lines of `width` characters at most, cut at blanks where there are some.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut len = 0;
    for word in text.split_inclusive(' ') {
        let chars = word.chars().count();
        if len > 0 && len + word.trim_end().chars().count() > width {
            lines.push(core::mem::take(&mut line));
            len = 0;
        }
        line.push_str(word);
        len += chars;
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::model::LastRun;
    use crate::view::model::tests::due;
    use grafolean_std::core::jobs::{JobCounters, JobKey};
    use grafolean_std::core::journal::RefreshSummary;
    use grafolean_std::core::outbox::Ledger;
    use grafolean_std::driver::RunEnd;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    const S: Duration = Duration::from_secs(1);

    fn report() -> Report {
        let mut ledger = Ledger { collected: 157, delivered: 140, queued: 14, ..Ledger::EMPTY };
        ledger.dropped[0] = 3;
        let runs = JobCounters { runs: 21, coalesced: 2, ..JobCounters::default() };
        Report {
            ledger,
            runs,
            failed_runs: 4,
            turns: 0,
            written: 0,
            file_bytes: 0,
            oldest_s: None,
            totals: None,
        }
    }

    fn bot(name: &'static str) -> BotPicture {
        let mut progress = RefreshProgress::default();
        progress.next = Some(Millis(17_250));
        progress.requests_done = 4;
        progress.requests_expected = Some(4);
        BotPicture {
            name,
            now: Millis(10_000),
            progress,
            last: None,
            report: report(),
            running: 1,
            waiting: 2,
        }
    }

    fn row(entity: u64, name: &str, record: Option<Record>) -> RowPicture {
        RowPicture { bot: "ping", entity, name: format!("{entity} {name}"), next: Next::In(4_200), record }
    }

    fn picture(rows: Vec<RowPicture>) -> Picture {
        Picture {
            elapsed: 60 * S,
            limit: Some(90 * S),
            stopping: false,
            page: "http://127.0.0.1:38451/".to_owned(),
            bots: vec![bot("ping"), bot("host")],
            jobs: rows.len(),
            top: 0,
            rows,
            events: Vec::new(),
        }
    }

    fn ended(late_ms: u64, fault: Option<&str>) -> Record {
        let last = LastRun { ended: 57 * S, took: 608 * S / 1000, fault: fault.map(str::to_owned) };
        let values = [("entity.31.ping.success", "1"), ("entity.31.ping.p0.rtt", "48e-6")];
        let values = values.map(|(path, number)| (path.to_owned(), number.to_owned())).into();
        Record { late_ms, last: Some(last), failed: u64::from(fault.is_some()), values, ..Record::default() }
    }

    fn buffer(picture: &Picture, colours: bool, width: u16, height: u16) -> Buffer {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(picture, colours, frame.area(), frame.buffer_mut())).unwrap();
        terminal.backend().buffer().clone()
    }

    fn lines(picture: &Picture, width: u16, height: u16) -> Vec<String> {
        let buffer = buffer(picture, true, width, height);
        let symbols: Vec<&str> = buffer.content().iter().map(|cell| cell.symbol()).collect();
        symbols.chunks(width.into()).map(|line| line.concat().trim_end().to_owned()).collect()
    }

    fn line<'a>(lines: &'a [String], part: &str) -> &'a str {
        lines.iter().find(|line| line.contains(part)).unwrap_or_else(|| panic!("{part}: {lines:#?}"))
    }

    /// The words of a line's fixed columns.
    fn words(line: &str) -> Vec<&str> {
        line.split_whitespace().collect()
    }

    const SIZES: [(u16, u16); 4] = [(60, 15), (80, 24), (120, 30), (250, 80)];

    #[test]
    fn a_refresh_under_way_shows_its_list_its_account_its_elements_and_its_requests() {
        let mut picture = picture(Vec::new());
        let progress = &mut picture.bots[0].progress;
        progress.phase = RefreshPhase::Credentials;
        (progress.account_number, progress.accounts) = (2, Some(3));
        (progress.entities, progress.credentials, progress.sensors) = (412, 7, 45);
        (progress.requests_done, progress.requests_expected) = (5, Some(10));
        progress.next = None;
        let text = "reading credentials, account 2 of 3; [######------] 5 of 10 requests, 412 entities, 7 credentials, 45 sensors read";
        for (width, height) in SIZES {
            let lines = lines(&picture, width, height);
            let seen = line(&lines, "ping  reading");
            assert_eq!(
                seen,
                format!("ping  {text}").chars().take(width.into()).collect::<String>().trim_end()
            );
        }
        picture.bots[0].progress.requests_expected = None;
        picture.bots[0].progress.phase = RefreshPhase::Accounts;
        picture.bots[0].progress.accounts = None;
        assert!(line(&lines(&picture, 120, 30), "ping  ").starts_with("ping  reading accounts; 5 requests"));
    }

    #[test]
    fn a_refresh_that_has_ended_shows_what_came_of_it_and_when_the_next_one_begins() {
        let mut picture = picture(Vec::new());
        let summary =
            RefreshSummary { jobs: 300, faults: 2, took_ms: 44, requests: 4, ..RefreshSummary::default() };
        picture.bots[0].last = Some(LastRefresh::Done(summary));
        picture.bots[1].last = Some(LastRefresh::Failed("no connection to the backend".to_owned()));
        let small = lines(&picture, 60, 15);
        assert_eq!(line(&small, "ping  next"), "ping  next refresh in 7.2 s; 300 jobs, 2 faults, 44 ms");
        assert!(line(&small, "host  next").contains("next refresh in 7.2 s; failed: no connection"));
        let large = lines(&picture, 160, 40);
        assert_eq!(line(&large, "ping  next"), "ping  next refresh in 7.2 s; [############] 4 of 4 requests");
        assert!(line(&large, "last: 300 jobs").contains("4 requests, 2 faults, 44 ms"));
        assert!(line(&large, "last failed").ends_with("no connection to the backend"));
    }

    #[test]
    fn a_job_shows_when_it_is_due_when_it_ran_how_long_and_how_late_and_its_last_values() {
        let picture = picture(vec![row(31, "Loopback", Some(ended(3, None)))]);
        for (width, height) in SIZES {
            let lines = lines(&picture, width, height);
            let line = line(&lines, "31 Loopback");
            let at = line.find("4.2").unwrap();
            assert_eq!(words(&line[at..])[..4], ["4.2", "3.0", "608", "3"], "{line}");
            assert!(line.contains("success=1") && line.starts_with("  "), "{line}");
        }
        assert!(line(&lines(&picture, 120, 30), "31 ").ends_with("ping.success=1 ping.p0.rtt=0.000048"));
    }

    #[test]
    fn a_running_a_late_a_waiting_and_a_failed_job_are_marked_by_characters_and_by_colour() {
        let running = Record { running_since: Some(59 * S), ..ended(7, None) };
        let mut waiting = row(34, "Waiting", None);
        waiting.next = Next::Overdue(3_400);
        let picture = picture(vec![
            row(31, "Running", Some(running)),
            row(32, "Late", Some(ended(2_345, None))),
            row(33, "Failed", Some(ended(0, Some("3 of 3 packets were not sent: no route")))),
            waiting,
        ]);
        for (width, height) in SIZES {
            let lines = lines(&picture, width, height);
            let running = line(&lines, "31 Running");
            assert!(running.starts_with("> ") && running.contains(" runs "), "{running}");
            // So far.
            assert!(words(running).contains(&"1000"), "{running}");
            assert!(words(line(&lines, "32 Late")).contains(&"2345"));
            let failed = line(&lines, "33 Failed");
            assert!(failed.starts_with("! ") && failed.contains("3 of 3 pack"), "{failed}");
            assert!(line(&lines, "34 Waiting").contains(" -3.4"));
        }
        let coloured = buffer(&picture, true, 120, 30);
        let colours = |colour| coloured.content().iter().any(|cell| cell.fg == colour);
        assert!(colours(Color::Green) && colours(Color::Magenta) && colours(Color::Red));
        let plain = buffer(&picture, false, 120, 30);
        assert!(plain.content().iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
    }

    #[test]
    fn totals_say_where_values_are_and_what_happened_to_runs() {
        for (width, height) in SIZES {
            let lines = lines(&picture(Vec::new()), width, height);
            let heading = lines.iter().position(|l| l.starts_with("total")).unwrap();
            let names = ["total", "collected", "delivered", "queued", "dropped", "runs", "coalesced"];
            assert_eq!(words(&lines[heading])[..7], names);
            for (line, bot) in lines[heading + 1..].iter().zip(["ping", "host"]) {
                assert_eq!(words(line)[..7], [bot, "157", "140", "14", "3", "21", "2"]);
            }
            if width >= WIDE {
                assert_eq!(words(&lines[heading])[7..], ["failed", "running", "waiting"]);
                assert_eq!(words(&lines[heading + 1])[7..], ["4", "1", "2"]);
            }
        }
    }

    #[test]
    fn the_page_the_time_and_how_to_end_it_are_on_the_first_line_of_every_screen() {
        let mut picture = picture(Vec::new());
        for (width, height) in SIZES {
            let lines = lines(&picture, width, height);
            for part in ["60.0 s of 90 s", "http://127.0.0.1:38451/", "q ends"] {
                assert!(lines[0].contains(part), "{}", lines[0]);
            }
        }
        picture.stopping = true;
        assert!(lines(&picture, 80, 24)[0].contains("stopping"));
    }

    #[test]
    fn no_jobs_and_ten_thousand_jobs_fit_any_screen_even_one_of_nothing() {
        let all: Vec<RowPicture> = (1..=200).map(|n| row(n, "Router", None)).collect();
        for jobs in [0usize, 1, 10_000] {
            for (width, height) in [(0, 0), (1, 1), (5, 3), (20, 8), (60, 9), (60, 15), (500, 200)] {
                let area = Rect::new(0, 0, width, height);
                let mut picture = picture(all.iter().take(jobs.min(rows(area, 2, jobs))).cloned().collect());
                picture.jobs = jobs;
                picture.events =
                    vec![Line { at: S, bot: "ping", warning: true, text: "a ".repeat(300), times: 2 }; 20];
                let lines = lines(&picture, width.max(1), height.max(1));
                if (width, height) == (60, 15) {
                    let heading = match jobs {
                        0 => "No jobs",
                        1 => "Jobs 1-1 of 1",
                        _ => "Jobs 1-5 of 10000  (arrows, PgUp, PgDn, Home, End)",
                    };
                    assert_eq!(line(&lines, "obs"), heading);
                    let shown = lines.iter().filter(|l| l.contains(" Router")).count();
                    assert_eq!(shown, jobs.min(5));
                }
            }
        }
    }

    #[test]
    fn events_are_shown_whole_where_there_is_room_the_latest_last() {
        let mut picture = picture(Vec::new());
        let text = "account 1, entity 35, sensor 21: interval -5 s is not within 1..=2147483647 s; the sensor is left out";
        let event =
            |text: &str, times| Line { at: S, bot: "ping", warning: true, text: text.to_owned(), times };
        picture.events = (0..50).map(|n| event(&format!("event {n}"), 1)).collect();
        picture.events.push(event("backend can't be reached", 3));
        picture.events.push(event(text, 1));
        for (width, height) in [(80, 30), (120, 30), (250, 80)] {
            let lines = lines(&picture, width, height);
            let from = lines.iter().position(|l| l.contains("account 1")).unwrap();
            let seen: Vec<&str> = lines[from..].iter().map(|l| l.get(18..).unwrap_or("")).collect();
            assert_eq!(seen.join(" ").trim_end(), text, "{lines:#?}");
            assert!(lines[from].starts_with("   1.0 ping  warn account 1"), "{}", lines[from]);
            assert_eq!(lines[from - 1], "   1.0 ping  warn (3 times) backend can't be reached");
            assert!(line(&lines, "event 49").starts_with("   1.0"));
        }
    }

    #[test]
    fn names_and_reasons_of_others_can_not_steer_the_terminal() {
        let fault = "\u{1b}[2J\u{7}\nno route";
        let picture = picture(vec![row(31, "\u{1b}]0;title\u{7}Črnuče 東京", Some(ended(0, Some(fault))))]);
        let buffer = buffer(&picture, true, 120, 30);
        assert!(buffer.content().iter().all(|cell| !cell.symbol().contains(char::is_control)));
        assert!(
            lines(&picture, 120, 30).iter().any(|line| line.contains("Črnuče") && line.contains("no route"))
        );
    }

    #[test]
    fn what_observers_tell_ends_up_on_the_screen() {
        let mut model = crate::view::model::Model::new(&["ping"]);
        let run = due(31, 12);
        model.run_began(0, &run, S);
        model.value(0, &run, "entity.31.ping.success", "0.5");
        let failed = RunEnd::Failed("1 of 2 packets were not sent: no route to the host".to_owned());
        model.run_ended(0, &run, &failed, S, 2 * S);
        let record = model.record(&(0, JobKey::new(1, 31))).cloned();
        let mut picture = picture(vec![row(31, "Router", record)]);
        picture.events = model.latest(9).cloned().collect();
        let lines = lines(&picture, 120, 30);
        assert!(line(&lines, "! ").contains("1 of 2 packets were not sent"));
        assert!(line(&lines, "warn").contains("entity 31: 1 of 2 packets were not sent"));
    }
}
