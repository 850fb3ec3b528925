//! What one direction of a link is like.

use std::{num::NonZeroU64, time::Duration};

use crate::limits::{BUFFER_BYTES_MAX, BUFFER_BYTES_MIN};

/// What one direction of a link is like. The default: no delay, no jitter, as fast as this machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quality {
    /// One-way delay.
    pub delay: Duration,
    /// Every piece of data takes up to so much longer, drawn evenly.
    pub jitter: Duration,
    /// Bytes per second that all connections share; unlimited without it.
    pub bandwidth: Option<NonZeroU64>,
}

impl Quality {
    /// A link with a one-way delay, without jitter or a limit of its bandwidth.
    pub fn delay(delay: Duration) -> Self {
        Self { delay, ..Self::default() }
    }

    /// How long `bytes` take to be put on the link.
    pub(crate) fn sending(&self, bytes: usize) -> Duration {
        match self.bandwidth {
            Some(rate) => Duration::from_secs_f64(bytes as f64 / rate.get() as f64),
            None => Duration::ZERO,
        }
    }

    /// Bytes of one connection that may be on their way, if answers come back after `back`.
    pub(crate) fn buffer(&self, back: Duration) -> usize {
        let Some(rate) = self.bandwidth else { return BUFFER_BYTES_MAX };
        let held = rate.get() as f64 * (self.delay + back).as_secs_f64();
        (2.0 * held).clamp(BUFFER_BYTES_MIN as f64, BUFFER_BYTES_MAX as f64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_holds_twice_what_is_on_its_way_within_bounds() {
        let rate = NonZeroU64::new(10_000_000);
        let quality = Quality { delay: Duration::from_millis(50), bandwidth: rate, ..Quality::default() };
        assert_eq!(quality.buffer(Duration::from_millis(50)), 2_000_000);
        assert_eq!(Quality::default().buffer(Duration::ZERO), BUFFER_BYTES_MAX);
        let slow = Quality { bandwidth: NonZeroU64::new(1), ..quality };
        assert_eq!(slow.buffer(Duration::ZERO), BUFFER_BYTES_MIN);
        assert_eq!(quality.sending(1_000_000), Duration::from_millis(100));
    }
}
