//! One direction of one connection: reads, keeps what is on its way, and writes when it arrives.

use std::{io, time::Instant};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::tcp::{ReadHalf, WriteHalf},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};

use crate::{
    direction::Direction,
    limits::{PIECE_BYTES, PIECES_MAX},
    timer::Timer,
};

/// How a direction of a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// In order: the sender has nothing more to say.
    Finished,
    /// The sender is gone.
    Aborted,
}

enum Piece {
    Bytes(Bytes, OwnedSemaphorePermit),
    End(End),
}

/// Carries everything that `from` sends over `direction` to `to`, of which at most `buffer` bytes are on their way at a time. Nothing
/// leaves before `ready`.
pub(crate) async fn carry(
    direction: &Direction,
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    ready: Instant,
    buffer: usize,
) -> io::Result<End> {
    let (pieces, arriving) = mpsc::channel(PIECES_MAX);
    let (_, end) = tokio::try_join!(
        send(direction, from, ready, buffer.max(PIECE_BYTES), pieces),
        deliver(direction, to, arriving)
    )?;
    Ok(end)
}

async fn send(
    direction: &Direction,
    mut from: ReadHalf<'_>,
    ready: Instant,
    buffer: usize,
    pieces: mpsc::Sender<(Instant, Piece)>,
) -> io::Result<()> {
    let room = std::sync::Arc::new(Semaphore::new(buffer));
    let mut bytes = BytesMut::new();
    // Bytes of one connection do not overtake one another.
    let mut last = ready;
    let end = loop {
        let Ok(mut permit) = room.clone().acquire_many_owned(PIECE_BYTES as u32).await else {
            break End::Aborted;
        };
        bytes.reserve(PIECE_BYTES);
        let read = match (&mut from).take(PIECE_BYTES as u64).read_buf(&mut bytes).await {
            Ok(0) => break End::Finished,
            Ok(read) => read,
            Err(_) => break End::Aborted,
        };
        drop(permit.split(PIECE_BYTES - read));
        last = last.max(direction.send(read, ready.max(Instant::now())));
        // Nobody takes it any more: the other half has ended, and says how.
        if pieces.send((last, Piece::Bytes(bytes.split().freeze(), permit))).await.is_err() {
            return Ok(());
        }
    };
    // That the sender is gone is told over the link as well, and no faster than its last words.
    last = last.max(direction.send(0, ready.max(Instant::now())));
    let _ = pieces.send((last, Piece::End(end))).await;
    Ok(())
}

async fn deliver(
    direction: &Direction,
    mut to: WriteHalf<'_>,
    mut arriving: mpsc::Receiver<(Instant, Piece)>,
) -> io::Result<End> {
    let mut timer = Timer::new()?;
    // The receiver is gone: what still arrives goes nowhere, until the sender learns of it over the other direction.
    let mut gone = false;
    while let Some((due, piece)) = arriving.recv().await {
        direction.arrive(due, &mut timer).await?;
        match piece {
            Piece::Bytes(bytes, _permit) => {
                gone = gone || to.write_all(&bytes).await.is_err();
                direction.count(bytes.len());
            }
            Piece::End(end) => {
                if end == End::Finished {
                    let _ = to.shutdown().await;
                }
                return Ok(end);
            }
        }
    }
    Ok(End::Aborted)
}
