//! A token bucket. Pure: the time is given.

use std::time::Duration;

/// How much of something may be used: so much a second on the average, and so much at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Units a second; at least 1.
    pub per_second: u64,
    /// Units at once, after a pause; at least 1.
    pub burst: u64,
}

/// What is left of a rate. Holds thousandths of units, so that no time is lost to rounding.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    milli: u64,
    at_ms: u64,
}

impl Bucket {
    /// A full one.
    pub fn full(rate: Rate, now_ms: u64) -> Self {
        Self { milli: rate.burst.saturating_mul(1000), at_ms: now_ms }
    }

    /// Whether it has been left alone for so long that it is full again, and need not be remembered.
    pub fn is_full(&self, rate: Rate, now_ms: u64) -> bool {
        let mut at = *self;
        at.refill(rate, now_ms);
        at.milli >= rate.burst.saturating_mul(1000)
    }

    /// How long to wait until `cost` units are there; nothing if they are. What costs more than a whole burst needs a full bucket.
    pub fn wait(&mut self, rate: Rate, cost: u64, now_ms: u64) -> Option<Duration> {
        self.refill(rate, now_ms);
        let needed = cost.min(rate.burst).saturating_mul(1000);
        let missing = needed.checked_sub(self.milli).filter(|missing| *missing > 0)?;
        Some(Duration::from_millis(missing.div_ceil(rate.per_second.max(1))))
    }

    /// Takes `cost` units, which are there: [`Bucket::wait`] said so.
    pub fn take(&mut self, rate: Rate, cost: u64) {
        self.milli = self.milli.saturating_sub(cost.min(rate.burst).saturating_mul(1000));
    }

    fn refill(&mut self, rate: Rate, now_ms: u64) {
        // A clock that jumped back gives nothing, and takes nothing.
        let passed = now_ms.saturating_sub(self.at_ms);
        self.at_ms = now_ms;
        let full = rate.burst.saturating_mul(1000);
        self.milli = self.milli.saturating_add(passed.saturating_mul(rate.per_second)).min(full);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_second: 10, burst: 20 };

    #[test]
    fn a_burst_at_once_then_the_rate() {
        let mut bucket = Bucket::full(RATE, 0);
        for _ in 0..20 {
            assert_eq!(bucket.wait(RATE, 1, 0), None);
            bucket.take(RATE, 1);
        }
        assert_eq!(bucket.wait(RATE, 1, 0), Some(Duration::from_millis(100)));
        assert_eq!(bucket.wait(RATE, 1, 99), Some(Duration::from_millis(1)));
        assert_eq!(bucket.wait(RATE, 1, 100), None);
    }

    #[test]
    fn over_a_minute_no_more_than_the_rate_and_one_burst_gets_through() {
        let mut bucket = Bucket::full(RATE, 0);
        let mut taken = 0;
        for now in 0..60_000 {
            while bucket.wait(RATE, 1, now).is_none() {
                bucket.take(RATE, 1);
                taken += 1;
            }
        }
        assert!((600 + 19..=600 + 20).contains(&taken), "{taken}");
    }

    #[test]
    fn what_costs_more_than_a_burst_gets_through_when_the_bucket_is_full() {
        let mut bucket = Bucket::full(RATE, 0);
        assert_eq!(bucket.wait(RATE, 1000, 0), None);
        bucket.take(RATE, 1000);
        assert_eq!(bucket.wait(RATE, 1000, 0), Some(Duration::from_secs(2)));
        assert!(!bucket.is_full(RATE, 1999));
        assert!(bucket.is_full(RATE, 2000));
    }

    #[test]
    fn a_clock_that_jumps_back_gives_nothing_and_one_that_jumps_ahead_no_more_than_a_burst() {
        let mut bucket = Bucket::full(RATE, 5000);
        bucket.take(RATE, 20);
        assert!(bucket.wait(RATE, 1, 0).is_some());
        assert_eq!(bucket.wait(RATE, 20, u64::MAX), None);
        bucket.take(RATE, 20);
        assert!(bucket.wait(RATE, 1, u64::MAX).is_some());
    }
}
