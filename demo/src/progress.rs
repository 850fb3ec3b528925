//! What is shown while it runs: a live line on a terminal, plain lines elsewhere.

use std::{
    io::{IsTerminal, stderr},
    sync::Mutex,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// Between two plain lines.
const PLAIN_INTERVAL: Duration = Duration::from_secs(3);

/// Shows progress on stderr.
pub(crate) struct Progress {
    bar: ProgressBar,
    plain: bool,
    begun: Instant,
    last: Mutex<Instant>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let plain = !stderr().is_terminal();
        let bar = if plain { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
        let style =
            ProgressStyle::with_template("{spinner} {elapsed:>4} {msg}").expect("the template is valid");
        bar.set_style(style);
        bar.enable_steady_tick(Duration::from_millis(100));
        let now = Instant::now();
        Self { bar, plain, begun: now, last: Mutex::new(now) }
    }

    /// Something is done: a line that stays.
    pub(crate) fn done(&self, text: &str) {
        let line = format!("[{:>5.1} s] {text}", self.begun.elapsed().as_secs_f64());
        if self.plain {
            eprintln!("{line}");
        } else {
            self.bar.println(line);
        }
    }

    /// Something goes on: a line that is replaced by the next.
    pub(crate) fn now(&self, text: String) {
        if !self.plain {
            return self.bar.set_message(text);
        }
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if last.elapsed() >= PLAIN_INTERVAL {
            *last = Instant::now();
            eprintln!("[{:>5.1} s] ... {text}", self.begun.elapsed().as_secs_f64());
        }
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
