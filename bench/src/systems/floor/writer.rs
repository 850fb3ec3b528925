//! The file of one node: everything that waits goes into one write and one sync.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
};

use anyhow::Context;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::progress::Progress;
use crate::limits::{FLOOR_MESSAGE_MAX, FLOOR_SPACE, FLOOR_WRITE_MAX, STREAM_QUEUE};

// The last message that is taken into a write may go beyond its bound.
const _: () = assert!(FLOOR_WRITE_MAX + FLOOR_MESSAGE_MAX <= FLOOR_SPACE);

/// Appends to store.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) appends: Vec<Bytes>,
    /// What this node has of the stream when they are stored.
    pub(super) count: u64,
    pub(super) progress: Arc<Progress>,
}

/// Writes over space that was prepared, as the log of Concordat does.
pub(super) struct Writer {
    file: File,
    jobs: mpsc::Receiver<Job>,
}

impl Writer {
    /// Prepares the space, and returns where jobs go.
    pub(super) fn prepare(path: &Path) -> anyhow::Result<(Self, mpsc::Sender<Job>)> {
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(path);
        let file = file.with_context(|| format!("creating {}", path.display()))?;
        let zeros = vec![0; FLOOR_WRITE_MAX];
        for at in (0..FLOOR_SPACE).step_by(FLOOR_WRITE_MAX) {
            file.write_all_at(&zeros, at as u64).with_context(|| format!("writing {}", path.display()))?;
        }
        file.sync_all().with_context(|| format!("syncing {}", path.display()))?;
        let (sender, jobs) = mpsc::channel(STREAM_QUEUE);
        Ok((Self { file, jobs }, sender))
    }

    /// Stores what comes, until nobody can send any more.
    pub(super) fn run(mut self) -> io::Result<()> {
        let (mut at, mut block, mut stored) = (0, Vec::new(), Vec::new());
        while let Some(first) = self.jobs.blocking_recv() {
            let mut next = Some(first);
            while let Some(Job { appends, count, progress }) = next {
                appends.iter().for_each(|append| block.extend_from_slice(append));
                stored.push((progress, count));
                next = if block.len() < FLOOR_WRITE_MAX { self.jobs.try_recv().ok() } else { None };
            }
            if at + block.len() > FLOOR_SPACE {
                at = 0;
            }
            self.file.write_all_at(&block, at as u64)?;
            self.file.sync_data()?;
            at += block.len();
            block.clear();
            stored.drain(..).for_each(|(progress, count): (Arc<Progress>, u64)| progress.reach(0, count));
        }
        Ok(())
    }
}
