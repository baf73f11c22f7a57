//! Scripted devices: what they answer, after how long, and what they were asked.

use core::fmt;
use core::future::pending;
use core::panic::Location;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock;

/// A device under script: it is asked a `Q` and answers an `A`, each answer after a delay in simulated time. Clones are the same
/// device: one goes into the bot's driver, one stays in the test.
///
/// ```
/// use grafolean_test::Script;
/// /// What the bot needs of its devices.
/// trait Bus {
///     async fn read(&self, register: u16) -> Result<i32, &'static str>;
/// }
/// impl Bus for Script<u16, Result<i32, &'static str>> {
///     async fn read(&self, register: u16) -> Result<i32, &'static str> {
///         self.ask(register).await
///     }
/// }
/// let bus = Script::new();
/// bus.then(20, Ok(215)).then(500, Err("checksum")).then_hang(); // one after the other, then:
/// bus.otherwise(|register| (20, Ok(i32::from(*register))));
/// # fn is_bus(_: &impl Bus) {}
/// # is_bus(&bus);
/// ```
///
/// A driver trait whose calls do not wait uses [`Script::ask_now`].
pub struct Script<Q, A>(Arc<Mutex<State<Q, A>>>);

type Otherwise<Q, A> = Box<dyn FnMut(&Q) -> (u32, A) + Send>;

struct State<Q, A> {
    steps: VecDeque<Step<A>>,
    otherwise: Option<Otherwise<Q, A>>,
    asked: Vec<(u64, Q)>,
    /// Where the test has made it.
    made: &'static Location<'static>,
}

enum Step<A> {
    Answer(u32, A),
    Hang,
}

impl<Q, A> Script<Q, A> {
    /// A device that has nothing to say yet. Messages about it name the line of this call.
    #[must_use]
    #[track_caller]
    pub fn new() -> Self {
        let made = Location::caller();
        Script(Arc::new(Mutex::new(State {
            steps: VecDeque::new(),
            otherwise: None,
            asked: Vec::new(),
            made,
        })))
    }

    /// A device that gives the same answer each time, after this many milliseconds.
    #[must_use]
    #[track_caller]
    pub fn always(delay_ms: u32, answer: A) -> Self
    where
        A: Clone + Send + 'static,
    {
        let script = Self::new();
        script.otherwise(move |_| (delay_ms, answer.clone()));
        script
    }

    fn state(&self) -> MutexGuard<'_, State<Q, A>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its next answer, after this many milliseconds. Answers queue up.
    pub fn then(&self, delay_ms: u32, answer: A) -> &Self {
        self.state().steps.push_back(Step::Answer(delay_ms, answer));
        self
    }

    /// It never answers its next question: only a time-out of the bot, or the run's deadline, ends that.
    pub fn then_hang(&self) -> &Self {
        self.state().steps.push_back(Step::Hang);
        self
    }

    /// When nothing is queued, it answers by this: the delay in milliseconds, and the answer.
    pub fn otherwise(&self, answer: impl FnMut(&Q) -> (u32, A) + Send + 'static) -> &Self {
        self.state().otherwise = Some(Box::new(answer));
        self
    }

    fn step(&self, question: Q) -> Step<A> {
        clock::count_call();
        let at_ms = clock::current().map_or(0, |clock| clock.now_ms());
        let (mut step, otherwise) = {
            let mut state = self.state();
            let queued = state.steps.pop_front();
            let otherwise = if queued.is_none() { state.otherwise.take() } else { None };
            (queued, otherwise)
        };
        // Called while nothing is locked: it may look at the script itself.
        if let Some(mut answer) = otherwise {
            let (delay_ms, answered) = answer(&question);
            step = Some(Step::Answer(delay_ms, answered));
            self.state().otherwise.get_or_insert(answer);
        }
        let (times, made) = {
            let mut state = self.state();
            state.asked.push((at_ms, question));
            (state.asked.len(), state.made)
        };
        match step {
            Some(step) => step,
            None => {
                panic!("the device of {made} was asked {times} times, its script has {} answers", times - 1)
            }
        }
    }

    /// Asks it, and waits for the answer.
    ///
    /// # Panics
    /// If it has nothing to say (neither a queued answer nor [`Script::otherwise`]), or outside of a lab's run.
    pub async fn ask(&self, question: Q) -> A {
        let Some(clock) = clock::current() else {
            panic!(
                "the device of {} was asked outside of a lab's run, where no time passes",
                self.state().made
            )
        };
        match self.step(question) {
            Step::Answer(delay_ms, answer) => {
                clock.sleep_ms(delay_ms).await;
                answer
            }
            Step::Hang => pending().await,
        }
    }

    /// Asks it in a call that does not wait; delays are not looked at.
    ///
    /// # Panics
    /// If it has nothing to say, or would hang.
    pub fn ask_now(&self, question: Q) -> A {
        match self.step(question) {
            Step::Answer(_, answer) => answer,
            Step::Hang => {
                let made = self.state().made;
                panic!("the device of {made} hangs by its script, in a call that cannot wait")
            }
        }
    }

    /// What it was asked, and when, in milliseconds since the lab's start (0 outside of a lab's run).
    #[must_use]
    pub fn asked(&self) -> Vec<(u64, Q)>
    where
        Q: Clone,
    {
        self.state().asked.clone()
    }

    /// All that was queued has been asked for.
    ///
    /// # Panics
    /// If not.
    #[track_caller]
    pub fn assert_used_up(&self) {
        let (left, times, made) = {
            let state = self.state();
            (state.steps.len(), state.asked.len(), state.made)
        };
        if left > 0 {
            panic!(
                "the device of {made} was asked {times} times, {left} answers of its script were not asked for"
            )
        }
    }

    /// How often it was asked.
    #[must_use]
    pub fn times_asked(&self) -> usize {
        self.state().asked.len()
    }
}

impl<Q, A> Clone for Script<Q, A> {
    fn clone(&self) -> Self {
        Script(Arc::clone(&self.0))
    }
}

impl<Q, A> Default for Script<Q, A> {
    #[track_caller]
    fn default() -> Self {
        Self::new()
    }
}

impl<Q, A> fmt::Debug for Script<Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Script")
            .field("queued", &state.steps.len())
            .field("asked", &state.asked.len())
            .finish_non_exhaustive()
    }
}
