//! Applies a batch of committed log entries in one write. The same entries give the same state, however they are batched.

use std::{collections::BTreeMap, sync::Arc};

use concordat_proto::{
    convert,
    log::v1::Reason,
    ordering::v1::{Command, Outcome, command::Command as Kind, outcome::Outcome as Answer},
};
use openraft::EntryPayload;
use prost::Message;
use tokio::time::Instant;

use super::{
    batch::Batch,
    branches, directory, forks, groups, inbox, key_packages,
    keys::RowKey,
    prune,
    shard::{Position, ShardState},
};
use crate::{
    raft::types::{DIRECTORY, Proposed},
    storage::{
        error::StorageError,
        log::{LogEntry, StoredMembership, codec::encode_position},
        metrics::ApplyMetrics,
    },
};

/// Where a command comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    /// Its log index.
    pub(crate) index: u64,
    /// The leader's wall clock when it was proposed, in milliseconds since 1970.
    pub(crate) at_ms: u64,
    /// Somebody waits for the outcome, so a winner is read for it.
    pub(crate) wanted: bool,
}

/// An entry to apply, and whether somebody waits for what becomes of it.
pub(crate) struct Committed {
    pub(crate) entry: LogEntry,
    pub(crate) wanted: bool,
}

/// Applies entries in the order of the log, makes the result visible, and tells the observer. Returns an outcome for each.
///
/// Entries at or below the last applied one change nothing.
pub(crate) fn apply(state: &ShardState, entries: &[Committed]) -> Result<Vec<Outcome>, StorageError> {
    let begin = Instant::now();
    let before = state.position();
    let mut position = before.clone();
    let mut counts = Counts::default();
    let mut batch = Batch::new(state)?;
    let mut outcomes = Vec::with_capacity(entries.len());
    for Committed { entry, wanted } in entries {
        if entry.log_id.index < position.next_index() {
            outcomes.push(Outcome::default());
            continue;
        }
        let outcome = apply_one(&mut batch, &mut position, entry, *wanted, &mut counts)?;
        position.last_applied = Some(entry.log_id);
        outcomes.push(Outcome { outcome });
    }
    if position == before {
        return Ok(outcomes);
    }
    batch.put(&RowKey::Position, encode_position(position.last_applied.as_ref(), &position.membership));
    let dropped = batch.dropped;
    let (changes, heads, advanced) = batch.finish();
    let last_applied = position.last_applied.map_or(0, |last| last.index);
    state.commit(changes, position, heads)?;
    state.observer.applied(state.shard, last_applied, &advanced);
    counts.report(&state.metrics);
    state.metrics.batch(begin.elapsed(), dropped);
    Ok(outcomes)
}

fn apply_one(
    batch: &mut Batch<'_>,
    position: &mut Position,
    entry: &LogEntry,
    wanted: bool,
    counts: &mut Counts,
) -> Result<Option<Answer>, StorageError> {
    let index = entry.log_id.index;
    match &entry.payload {
        EntryPayload::Blank => {
            batch.unreferenced(index);
            Ok(None)
        }
        EntryPayload::Membership(membership) => {
            position.membership = Arc::new(StoredMembership::new(Some(entry.log_id), membership.clone()));
            batch.unreferenced(index);
            Ok(None)
        }
        EntryPayload::Normal(proposed) => {
            let origin = Origin { index, at_ms: proposed.at_ms, wanted };
            let (name, answer, referenced) = command(batch, proposed, origin)?;
            if !referenced {
                batch.unreferenced(index);
            }
            counts.count(name, &answer);
            Ok(Some(answer))
        }
    }
}

/// Runs one command. Whatever its bytes are, every node answers alike.
fn command(
    batch: &mut Batch<'_>,
    proposed: &Proposed,
    origin: Origin,
) -> Result<(&'static str, Answer, bool), StorageError> {
    let command = match Command::decode(proposed.command.clone()) {
        Ok(Command { command: Some(command) }) => command,
        Ok(Command { command: None }) => {
            let message =
                "the command is empty, or of a kind that this version does not know: update the servers";
            return Ok(("unknown", refused(Reason::UnknownCommand, message), false));
        }
        Err(_) => {
            let message = "the command does not decode: send an encoded concordat.ordering.v1.Command";
            return Ok(("malformed", refused(Reason::Malformed, message), false));
        }
    };
    let in_directory = batch.state.shard == DIRECTORY;
    let (name, for_directory) = place(&command);
    if in_directory != for_directory {
        let message = match for_directory {
            true => "this command is for the directory shard: send it to shard 0",
            false => "this command is for a data shard: ask where the group lives, and send it there",
        };
        return Ok((name, refused(Reason::WrongShard, message), false));
    }
    let (answer, referenced) = match command {
        Kind::Group(submission) => groups::submit(batch, submission, origin)?,
        Kind::AckWelcomes(ack) => (inbox::acknowledge(batch, ack)?, false),
        Kind::AssignGroup(assign) => (directory::assign(batch, assign)?, false),
        Kind::UploadKeyPackages(upload) => (key_packages::upload(batch, upload)?, false),
        Kind::ClaimKeyPackage(claim) => (key_packages::claim(batch, claim)?, false),
        Kind::ReportBranches(_)
        | Kind::CloseCollection(_)
        | Kind::AckPosition(_)
        | Kind::RegisterGateway(_)
        | Kind::ReleaseGateway(_)
        | Kind::EvictGateway(_) => forks::command(batch, command, origin)?,
        Kind::NoteGateways(note) => (branches::note_gateways(batch, note, origin)?, false),
        Kind::PruneGroup(command) => (prune::prune(batch, command, origin)?, false),
    };
    Ok((name, answer, referenced))
}

/// A name for metrics, and whether the command belongs to the directory shard.
fn place(command: &Kind) -> (&'static str, bool) {
    match command {
        Kind::Group(_) => ("group", false),
        Kind::AckWelcomes(_) => ("ack_welcomes", false),
        Kind::AssignGroup(_) => ("assign_group", true),
        Kind::UploadKeyPackages(_) => ("upload_key_packages", true),
        Kind::ClaimKeyPackage(_) => ("claim_key_package", true),
        Kind::ReportBranches(_) => ("report_branches", false),
        Kind::CloseCollection(_) => ("close_collection", false),
        Kind::AckPosition(_) => ("ack_position", false),
        Kind::RegisterGateway(_) => ("register_gateway", false),
        Kind::ReleaseGateway(_) => ("release_gateway", false),
        Kind::EvictGateway(_) => ("evict_gateway", false),
        Kind::NoteGateways(_) => ("note_gateways", false),
        Kind::PruneGroup(_) => ("prune_group", false),
    }
}

fn refused(reason: Reason, message: &str) -> Answer {
    Answer::Refused(convert::refused(reason, message, []))
}

/// Outcomes of a batch, counted here and reported once.
#[derive(Default)]
struct Counts(BTreeMap<(&'static str, &'static str), u64>);

impl Counts {
    fn count(&mut self, command: &'static str, answer: &Answer) {
        let outcome = match answer {
            Answer::Accepted(_) => "accepted",
            Answer::Superseded(_) => "superseded",
            Answer::Refused(_) => "refused",
            Answer::Reconciling(_) => "reconciling",
            Answer::RemoveFirst(_) => "remove_first",
            Answer::OnSide(_) => "on_side",
            _ => "done",
        };
        *self.0.entry((command, outcome)).or_default() += 1;
    }

    fn report(self, metrics: &ApplyMetrics) {
        for ((command, outcome), count) in self.0 {
            metrics.applied(command, outcome, count);
        }
    }
}
