//! What it takes to wake a thread on another core, which happens at the hops of a commit: a core that has halted wakes up first, and on
//! some virtual machines that takes longer than everything that the hop is for.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Instant,
};

use anyhow::Context;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::limits::WAKE_SAMPLES;

/// From waking a thread to its running on another core while the machine is otherwise idle, in microseconds: median. None if this
/// process may use one core only.
pub(crate) fn p50_us() -> anyhow::Result<Option<f64>> {
    let allowed = sched_getaffinity(None).context("asking for the cores of this process")?;
    let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
    let (Some(one), Some(another)) = (cores.next(), cores.next()) else { return Ok(None) };
    let turn = AtomicU32::new(0);
    // In a thread of its own, since it stays on one core from here on.
    let asked = thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let this = thread::current();
            stay_on(another)?;
            // Whoever is spawned stays on the same core.
            let answering = scope.spawn(|| answer(&turn, this));
            let moved = stay_on(one);
            let times = ask(&turn, answering.thread());
            moved.map(|()| times)
        });
        asking.join()
    });
    let mut times =
        asked.ok().context("a thread that was to be woken has panicked")?.context("staying on one core")?;
    times.sort_by(f64::total_cmp);
    Ok(times.get(times.len() / 2).copied())
}

fn stay_on(core: usize) -> rustix::io::Result<()> {
    let mut only = CpuSet::new();
    only.set(core);
    sched_setaffinity(None, &only)
}

/// Half of the time there and back, for each sample.
fn ask(turn: &AtomicU32, other: &thread::Thread) -> Vec<f64> {
    let once = |sample| {
        let begin = Instant::now();
        turn.store(2 * sample + 1, Ordering::Release);
        other.unpark();
        await_turn(turn, 2 * sample + 2);
        begin.elapsed().as_secs_f64() * 1e6 / 2.0
    };
    (0..WAKE_SAMPLES).map(once).collect()
}

fn answer(turn: &AtomicU32, other: thread::Thread) {
    for sample in 0..WAKE_SAMPLES {
        await_turn(turn, 2 * sample + 1);
        turn.store(2 * sample + 2, Ordering::Release);
        other.unpark();
    }
}

fn await_turn(turn: &AtomicU32, of: u32) {
    while turn.load(Ordering::Acquire) != of {
        thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_on_another_core_is_woken_and_answers_every_time() {
        let time = p50_us().unwrap();
        assert!(time.is_none_or(|time| time > 0.0), "{time:?} us");
    }
}
