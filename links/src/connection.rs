//! One connection over a link.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{net::TcpStream, time::timeout};

use crate::{
    direction::Direction,
    limits::CONNECT_TIMEOUT,
    pipe::{End, carry},
    timer::Timer,
};

/// The way from a caller to its target, and back.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub(crate) there: Arc<Direction>,
    pub(crate) back: Arc<Direction>,
    /// host:port.
    pub(crate) target: String,
}

impl Route {
    /// Serves a caller until its connection ends on both sides.
    pub(crate) async fn serve(&self, mut caller: TcpStream) {
        let begun = Instant::now();
        if self.there.resets() || self.back.resets() {
            return reset(&caller);
        }
        let target = tokio::select! {
            target = self.dial(begun) => target,
            () = self.reset() => return reset(&caller),
        };
        let mut target = match target {
            Ok(target) => target,
            Err(error) => {
                tracing::debug!(target = %self.target, %error, "the target of a link cannot be reached");
                return reset(&caller);
            }
        };
        let ended = tokio::select! {
            ended = self.talk(&mut caller, &mut target) => ended,
            () = self.reset() => Ok(End::Aborted),
        };
        if !matches!(ended, Ok(End::Finished)) {
            reset(&caller);
            reset(&target);
        }
    }

    /// The first half of the handshake: the caller's wish arrives.
    async fn dial(&self, begun: Instant) -> io::Result<TcpStream> {
        let mut timer = Timer::new()?;
        self.there.arrive(self.there.send(0, begun), &mut timer).await?;
        let dialed = match timeout(CONNECT_TIMEOUT, TcpStream::connect(&self.target)).await {
            Ok(dialed) => dialed,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        match dialed {
            Ok(target) => {
                target.set_nodelay(true)?;
                Ok(target)
            }
            Err(error) => {
                self.back.arrive(self.back.send(0, Instant::now()), &mut timer).await?;
                Err(error)
            }
        }
    }

    async fn talk(&self, caller: &mut TcpStream, target: &mut TcpStream) -> io::Result<End> {
        let now = Instant::now();
        let (there, back) = (self.there.quality(), self.back.quality());
        let (from_caller, to_caller) = caller.split();
        let (from_target, to_target) = target.split();
        // The second half of the handshake: the caller sends nothing before the target's consent has arrived.
        let consent = now + back.delay;
        let there_buffer = there.buffer(back.delay);
        let back_buffer = back.buffer(there.delay);
        let there = aborting(carry(&self.there, from_caller, to_target, consent, there_buffer));
        let back = aborting(carry(&self.back, from_target, to_caller, now, back_buffer));
        tokio::try_join!(there, back)?;
        Ok(End::Finished)
    }

    async fn reset(&self) {
        tokio::select! {
            () = self.there.reset() => {}
            () = self.back.reset() => {}
        }
    }
}

/// An aborted direction ends the other one as well.
async fn aborting(direction: impl Future<Output = io::Result<End>>) -> io::Result<()> {
    match direction.await? {
        End::Finished => Ok(()),
        End::Aborted => Err(io::ErrorKind::ConnectionReset.into()),
    }
}

fn reset(stream: &TcpStream) {
    // Fails only on a connection that is gone already.
    let _ = stream.set_zero_linger();
}

/// The delay of a round trip without bandwidth and jitter.
pub(crate) fn round_trip(there: &Direction, back: &Direction) -> Duration {
    there.quality().delay + back.quality().delay
}
