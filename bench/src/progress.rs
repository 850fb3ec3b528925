//! What is shown while it runs: a bar on a terminal, plain lines elsewhere. Results go to stdout, progress to stderr.

use std::{
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;

/// Shows how far a benchmark has come.
pub(crate) struct Progress {
    bar: ProgressBar,
    plain: bool,
    begun: Instant,
    /// When the last step was done.
    last: Mutex<Instant>,
}

impl Progress {
    /// `steps` lie ahead.
    pub(crate) fn new(steps: usize) -> Self {
        let plain = !stderr().is_terminal();
        let bar = if plain { ProgressBar::hidden() } else { ProgressBar::new(steps as u64) };
        // A template that does not parse would show in the test below; the default style serves as well.
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        let begun = Instant::now();
        Self { bar, plain, begun, last: Mutex::new(begun) }
    }

    /// What goes on now.
    pub(crate) fn now(&self, text: impl Into<String>) {
        self.bar.set_message(text.into());
    }

    /// One step is done: a line that stays, with the time since the beginning and that of the step.
    pub(crate) fn done(&self, text: &str) {
        self.bar.inc(1);
        let now = Instant::now();
        let took = now - std::mem::replace(&mut *self.last.lock(), now);
        let since = now - self.begun;
        let line = format!("[{:>6.1} s, {:>5.1} s] {text}", since.as_secs_f64(), took.as_secs_f64());
        if self.plain {
            eprintln!("{line}");
        } else {
            self.bar.println(line);
        }
    }

    /// No more steps.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

const TEMPLATE: &str = "{elapsed_precise} [{wide_bar}] {pos}/{len} (about {eta} left) {msg}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_valid() {
        ProgressStyle::with_template(TEMPLATE).unwrap();
    }
}
