//! A submission without a quorum: one gateway of those that reach one another puts the commits of a group in order, and two have every
//! entry on disk before it is answered.

use std::sync::Arc;

use concordat_proto::{
    log::v1::{self as pb, Reason, RemoveFirst},
    relay::v1::{SequenceRequest, sequence_response::Outcome},
};
use group_log::{
    EntryId,
    fork::{BranchEntry, BranchRefusal},
};
use tokio::time::{Instant, sleep};

use super::{
    branch::needs_order,
    group::{Group, GroupError},
    path::Paths,
    states::Looked,
};
use crate::{
    error::GatewayError,
    limits::{RELAY_HOPS_MAX, SEQUENCER_PATIENCE, SEQUENCER_PAUSE},
    metrics,
};

/// What became of a submission on a branch.
#[derive(Debug, Clone, PartialEq)]
pub enum Sequenced {
    /// It is on a branch.
    Accepted {
        /// Its id.
        id: EntryId,
        /// Gateways that have it on disk.
        copies: u32,
    },
    /// Members must be removed first.
    RemoveFirst(RemoveFirst),
    /// The group does not carry on without a quorum any more.
    NotForked,
}

/// What one sequencer said.
enum Said {
    Done(Sequenced),
    /// Ask the next one.
    Next,
    /// Ask it again in a moment.
    Again,
}

/// Brings an entry onto a branch. `looked` is what [`Group::look`] gave for it.
pub async fn sequence(
    group: &Arc<Group>,
    paths: &Paths,
    entry: BranchEntry,
    looked: &Looked,
) -> Result<Sequenced, GatewayError> {
    let own = group.rows.store().gateway_id();
    if needs_order(&entry) {
        // Others in the same order: all ask the same one first.
        for sequencer in paths.relay.sequencers(&group.id) {
            if sequencer == own {
                break;
            }
            if let Some(sequenced) = insist(group, paths, &sequencer, &entry).await? {
                return finish(group, paths, entry, sequenced).await;
            }
        }
    }
    here(group, paths, entry, looked).await
}

/// Brings an entry onto a branch of another gateway, for one that may not have a branch of its own: the cluster does not count on it. None
/// of the gateways reached has one, or may have one: nothing.
pub async fn sequence_elsewhere(
    group: &Arc<Group>,
    paths: &Paths,
    entry: BranchEntry,
) -> Result<Option<Sequenced>, GatewayError> {
    let own = group.rows.store().gateway_id();
    for sequencer in paths.relay.sequencers(&group.id).into_iter().filter(|id| *id != own) {
        if let Some(sequenced) = insist(group, paths, &sequencer, &entry).await? {
            return finish(group, paths, entry, sequenced).await.map(Some);
        }
    }
    Ok(None)
}

/// Asks one sequencer until it is ready. Whoever does not get ready is passed over: any gateway may extend any leaf.
async fn insist(
    group: &Arc<Group>,
    paths: &Paths,
    sequencer: &group_log::fork::GatewayId,
    entry: &BranchEntry,
) -> Result<Option<Sequenced>, GatewayError> {
    let patience = Instant::now() + SEQUENCER_PATIENCE;
    loop {
        match ask(group, paths, sequencer, entry).await? {
            Said::Done(sequenced) => return Ok(Some(sequenced)),
            Said::Again if Instant::now() < patience => sleep(SEQUENCER_PAUSE).await,
            Said::Next | Said::Again => return Ok(None),
        }
    }
}

async fn here(
    group: &Arc<Group>,
    paths: &Paths,
    entry: BranchEntry,
    looked: &Looked,
) -> Result<Sequenced, GatewayError> {
    let id = match group.accept(entry.clone(), looked).await {
        Ok(id) => id,
        Err(GroupError::NotForked) => return Ok(Sequenced::NotForked),
        Err(GroupError::Branch(refusal @ BranchRefusal::RemoveFirst { .. })) => match Outcome::from(&refusal)
        {
            Outcome::RemoveFirst(owed) => return Ok(Sequenced::RemoveFirst(owed)),
            _ => return Err(GatewayError::Protocol("a removal that is owed is one")),
        },
        Err(error) => return Err(error.into()),
    };
    let copies = 1 + u32::from(second_copy(group, paths, entry).await);
    metrics::branch_entry(copies);
    Ok(Sequenced::Accepted { id, copies })
}

/// Has another gateway write the entry; the whole branch if it lacks what comes before.
async fn second_copy(group: &Arc<Group>, paths: &Paths, entry: BranchEntry) -> bool {
    if paths.relay.links() == 0 {
        return false;
    }
    let alone = vec![pb::BranchEntry::from(entry)];
    if paths.relay.second_copy(&group.id, alone).await {
        return true;
    }
    let (branch, _) = group.lacking(&std::collections::BTreeSet::new()).await;
    branch.len() > 1 && paths.relay.second_copy(&group.id, branch).await
}

async fn ask(
    group: &Arc<Group>,
    paths: &Paths,
    sequencer: &group_log::fork::GatewayId,
    entry: &BranchEntry,
) -> Result<Said, GatewayError> {
    let request = SequenceRequest {
        group_id: group.id.to_bytes(),
        entry: Some(entry.clone().into()),
        sequencer: sequencer.0.to_vec().into(),
        hops_left: RELAY_HOPS_MAX,
    };
    let outcome = match paths.relay.sequence(request, sequencer).await {
        Ok(outcome) => outcome,
        Err(status) => {
            // What it finds wrong with the bytes the next one finds, too.
            let final_answer = crate::error::final_answer(&status);
            let is_about_bytes = final_answer.as_ref().is_some_and(|error| {
                matches!(error.reason(), Reason::InvalidCommit | Reason::Malformed | Reason::TooLarge)
            });
            return match final_answer {
                Some(error) if is_about_bytes => Err(error),
                _ => Ok(Said::Next),
            };
        }
    };
    Ok(match outcome {
        // Whoever speaks of another entry does not have this one.
        Outcome::Accepted(accepted) if accepted.entry_id != entry.id().as_bytes()[..] => {
            tracing::warn!(
                "a gateway says that it has accepted another entry than it was asked to: the next one is asked"
            );
            metrics::relay_refused("MALFORMED");
            Said::Next
        }
        Outcome::Accepted(accepted) => {
            Said::Done(Sequenced::Accepted { id: entry.id(), copies: accepted.copies.min(1) })
        }
        Outcome::RemoveFirst(owed) => Said::Done(Sequenced::RemoveFirst(owed)),
        Outcome::NotSequencer(not) => {
            if not.holds_group {
                Said::Again
            } else {
                Said::Next
            }
        }
        // It lacks what comes before, and is about to ask for it.
        Outcome::Refused(refused) if refused.reason() == Reason::BranchGap => Said::Again,
        Outcome::Refused(refused) => return Err(GatewayError::Refused(refused)),
    })
}

/// What another has sequenced is written here, too: that is the second copy.
async fn finish(
    group: &Arc<Group>,
    paths: &Paths,
    entry: BranchEntry,
    sequenced: Sequenced,
) -> Result<Sequenced, GatewayError> {
    let Sequenced::Accepted { id, copies } = sequenced else { return Ok(sequenced) };
    group.take_in(vec![entry.clone()]).await?;
    let copies = (copies + 1).min(2);
    metrics::branch_entry(copies);
    // Whoever else is near learns of it at once.
    let (group, relay) = (Arc::clone(group), Arc::clone(&paths.relay));
    tokio::spawn(async move { relay.second_copy(&group.id, vec![entry.into()]).await });
    Ok(Sequenced::Accepted { id, copies })
}
