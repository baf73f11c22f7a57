//! The terminal: taken for the view and given back in every case, by whichever thread gets there first.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size,
};
use ratatui::layout::Rect;

/// How long somebody who gives the terminal back waits for a frame that is being written.
const PATIENCE: Duration = Duration::from_millis(500);

/// Whether the view is on the screen. Whoever writes to it holds this.
static ON: Mutex<bool> = Mutex::new(false);

/// What panics said while the view was on the screen.
static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the view can be shown: input and output are a terminal that can more than lines.
pub(crate) fn is_able() -> bool {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    // One that does not know its size has none.
    let sized = || size().is_ok_and(|(width, height)| width > 0 && height > 0);
    !dumb && io::stdout().is_terminal() && io::stdin().is_terminal() && sized()
}

/// Whether colours are wanted: see <https://no-color.org>.
pub(crate) fn wants_colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Gives the terminal back, if the view has it, and says what panics have said meanwhile. Harmless if called twice.
pub(crate) fn give_back() {
    let began = Instant::now();
    let mut on = loop {
        match ON.try_lock() {
            Ok(on) => break Some(on),
            Err(TryLockError::Poisoned(on)) => break Some(on.into_inner()),
            // A terminal that takes nothing would keep it for ever.
            Err(_) if began.elapsed() >= PATIENCE => break None,
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    if on.as_deref() != Some(&false) {
        let _ = disable_raw_mode();
        let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
    }
    if let Some(on) = &mut on {
        **on = false;
    }
    for text in lock(&SAID).drain(..) {
        let _ = writeln!(io::stderr(), "{text}");
    }
}

/// Gives the terminal back when it is dropped: at a return, an error and a panic.
#[derive(Debug)]
pub(crate) struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        give_back();
    }
}

/// Keeps what panics say until the terminal is given back: a run's panic ends only that run, and must not end the view.
pub(crate) fn keep_what_panics_say() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if cfg!(panic = "abort") {
            give_back();
        }
        let on = match ON.try_lock() {
            Ok(on) => *on,
            Err(TryLockError::Poisoned(on)) => *on.into_inner(),
            // By this very thread if drawing panics.
            Err(TryLockError::WouldBlock) => true,
        };
        if on { lock(&SAID).push(info.to_string()) } else { usual(info) }
    }));
}

/// The terminal while the view has it.
pub(crate) struct Screen {
    terminal: Terminal<CrosstermBackend<io::Stdout>>,
    // Dropped last.
    _restore: Restore,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// The system's; the terminal is as it was.
    pub(crate) fn take() -> io::Result<Self> {
        let mut on = lock(&ON);
        *on = true;
        let restore = Restore;
        let made = enable_raw_mode()
            // Cleared, since a terminal without a second screen still shows what was there.
            .and_then(|()| execute!(io::stdout(), EnterAlternateScreen, Clear(ClearType::All)))
            .and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
        // Giving the terminal back needs it.
        drop(on);
        Ok(Screen { terminal: made?, _restore: restore })
    }

    /// The size of the screen.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn area(&self) -> io::Result<Rect> {
        let size = self.terminal.size()?;
        Ok(Rect::new(0, 0, size.width, size.height))
    }

    /// Draws a frame; false if the terminal was given back meanwhile.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn draw(&mut self, draw: impl FnOnce(Rect, &mut Buffer)) -> io::Result<bool> {
        let on = lock(&ON);
        if *on {
            self.terminal.draw(|frame| draw(frame.area(), frame.buffer_mut()))?;
        }
        Ok(*on)
    }
}

#[cfg(test)]
#[path = "../../tests/support/mod.rs"]
mod support;

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs another test of this program, by its name within this module, in a terminal.
    fn in_a_terminal(test: &str) -> support::Ended {
        let program = std::env::current_exe().unwrap();
        let name = format!("view::terminal::tests::{test}");
        let args = [name.as_str(), "--exact", "--ignored", "--nocapture", "--test-threads=1"];
        support::Session::start(program, &args, &[("TERM", "xterm")], 24, 80).end()
    }

    fn draw(screen: &mut Screen, text: &'static str) {
        screen.draw(|_, buf| buf.set_string(0, 0, text, ratatui::style::Style::new())).unwrap();
    }

    #[test]
    #[ignore = "it is run by the test that follows, in a terminal"]
    fn panics_while_it_draws() {
        if !is_able() {
            return;
        }
        keep_what_panics_say();
        let mut screen = Screen::take().unwrap();
        draw(&mut screen, "on-the-screen");
        screen.draw(|_, _| panic!("said-by-the-panic")).unwrap();
    }

    #[test]
    fn a_panic_gives_the_terminal_back_and_is_then_told() {
        let ended = in_a_terminal("panics_while_it_draws");
        assert_eq!(ended.code, Some(101), "{}", ended.raw);
        assert!(ended.restored, "{}", ended.raw);
        let at = |text: &str| ended.raw.rfind(text).unwrap();
        assert!(at("on-the-screen") < at("\x1b[?1049l"), "{}", ended.raw);
        assert!(at("\x1b[?1049l") < ended.raw.find("said-by-the-panic").unwrap(), "{}", ended.raw);
        assert!(!ended.screen.contains("on-the-screen"));
    }

    #[test]
    #[ignore = "it is run by the test that follows, in a terminal"]
    fn catches_a_panic_beside_the_view() {
        if !is_able() {
            return;
        }
        keep_what_panics_say();
        let mut screen = Screen::take().unwrap();
        let other = std::thread::spawn(|| panic!("said-by-a-run"));
        assert!(other.join().is_err());
        draw(&mut screen, "still-on-the-screen");
        assert!(screen.draw(|_, _| {}).unwrap());
    }

    #[test]
    fn a_panic_that_ends_only_a_run_leaves_the_view_and_is_told_after_it() {
        let ended = in_a_terminal("catches_a_panic_beside_the_view");
        assert_eq!((ended.code, ended.restored), (Some(0), true), "{}", ended.raw);
        let at = |text: &str| ended.raw.find(text).unwrap();
        assert!(at("still-on-the-screen") < at("\x1b[?1049l"), "{}", ended.raw);
        assert!(at("\x1b[?1049l") < at("said-by-a-run"), "{}", ended.raw);
    }

    #[test]
    #[ignore = "it is run by the test that follows, in a terminal"]
    fn returns_an_error() {
        fn fails() -> io::Result<()> {
            let mut screen = Screen::take()?;
            draw(&mut screen, "on-the-screen");
            Err(io::Error::other("an error"))
        }
        if is_able() {
            assert!(fails().is_err());
        }
    }

    #[test]
    fn an_error_gives_the_terminal_back() {
        let ended = in_a_terminal("returns_an_error");
        assert_eq!((ended.code, ended.restored), (Some(0), true), "{}", ended.raw);
        assert!(ended.raw.contains("on-the-screen"), "{}", ended.raw);
    }

    #[test]
    #[ignore = "it is run by the test that follows, in a terminal"]
    fn gives_back_from_another_thread() {
        if !is_able() {
            return;
        }
        let mut screen = Screen::take().unwrap();
        draw(&mut screen, "on-the-screen");
        std::thread::spawn(give_back).join().unwrap();
        assert!(!screen.draw(|_, _| panic!("drawn on a terminal that was given back")).unwrap());
        std::process::exit(0);
    }

    #[test]
    fn nothing_is_drawn_any_more_when_another_thread_has_given_the_terminal_back() {
        let ended = in_a_terminal("gives_back_from_another_thread");
        assert_eq!((ended.code, ended.restored), (Some(0), true), "{}", ended.raw);
        assert!(ended.raw.contains("on-the-screen"), "{}", ended.raw);
    }
}
