//! Entries of branches: taken in as they come. A branch's word is provisional.

use group_log::{ClientId, Content, EntryId, StateId, fork::BranchEntry};

use super::{
    follow::NOWHERE,
    process::{Made, Taken},
    work::{BranchWork, authenticator},
};
use crate::{
    error::Error,
    event::EventKind,
    store::{
        Place, Resolution, Status,
        branch_entries::{self, Node},
    },
};

/// What was new about a branch entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Learned {
    /// It was taken in.
    New,
    /// It was known.
    Known,
    /// It is not for this client, at least not yet.
    NotEntitled,
}

/// Takes in an entry of a branch. `encoded` is what is kept of it, for gateways that lack it.
pub(crate) fn learn(
    work: &mut BranchWork<'_>,
    entry: &BranchEntry,
    encoded: &[u8],
    me: &ClientId,
) -> Result<Learned, Error> {
    if !matches!(work.record.status, Status::Active | Status::Waiting) {
        return Ok(Learned::NotEntitled);
    }
    let id = entry.id();
    let known = work.node(&id)?;
    // An own commit that is pending is known, and its acceptance is new.
    if let Some(node) = known.as_ref().filter(|node| node.processed) {
        if node.parent == NOWHERE && node.is_commit {
            // Known from a Welcome, which does not say where its state comes from.
            work.put_node(Node { parent: entry.parent, ..node.clone() })?;
            branch_entries::set_body(work.db, &work.group, &id, Some(encoded))?;
        }
        return Ok(Learned::Known);
    }
    let made = Made {
        id,
        parent: entry.parent,
        author: Some(&entry.author),
        content: &entry.content,
        epoch: work.epoch_of(&entry.parent),
        place: Place::Branch { entry: id },
    };
    let taken = match &entry.content {
        Content::Commit(commit) => match work.take_commit(&made, &commit.message)? {
            Taken::Unprocessable(reason) => {
                tracing::debug!(%reason, "a commit on a branch cannot be processed");
                return Ok(Learned::NotEntitled);
            }
            taken => taken,
        },
        Content::Proposal { message } | Content::Application { message } => {
            match work.take_message(&made, message, me)? {
                true => Taken::Held,
                false => Taken::NotEntitled,
            }
        }
        _ => return Ok(Learned::NotEntitled),
    };
    let known = known.unwrap_or_else(|| made.node(me));
    if taken == Taken::NotEntitled {
        work.put_node(known)?;
        return Ok(Learned::NotEntitled);
    }
    work.put_node(Node { processed: true, ..known })?;
    branch_entries::set_body(work.db, &work.group, &id, Some(encoded))?;
    if matches!(entry.content, Content::Commit(_)) {
        let state = id.as_state();
        resolve_pending(work, state, made.epoch + 1);
        if taken == Taken::Held {
            advance(work, state, &entry.parent, entry.author.as_bytes())?;
        }
    }
    Ok(Learned::New)
}

/// The commit that this client waits for was accepted on a branch.
fn resolve_pending(work: &mut BranchWork<'_>, state: StateId, epoch: u64) {
    if work.record.pending.as_ref().is_some_and(|pending| pending.state_id() == state) {
        work.record.resolve(Resolution::Provisional { epoch });
    }
}

/// Goes on to the state, if it follows the one that this client stands in and has not lost.
pub(super) fn advance(
    work: &mut BranchWork<'_>,
    state: StateId,
    parent: &StateId,
    by: &[u8],
) -> Result<(), Error> {
    if work.fork.current() != Some(*parent) || work.is_dead(&state) {
        return Ok(());
    }
    work.stand(Some(state))?;
    let opened = work.open(&state)?;
    work.events.push(EventKind::BranchAdvanced {
        epoch: opened.mls().epoch().as_u64(),
        state_id: state,
        authenticator: authenticator(opened.mls()),
        by: by.to_vec(),
    });
    work.propose_again();
    Ok(())
}

impl BranchWork<'_> {
    /// The epoch of a state, as far as it is known.
    pub(super) fn epoch_of(&self, state: &StateId) -> u64 {
        self.nodes.get(state).map_or(0, |node| node.epoch)
    }

    /// Ids of branch entries that need not come again.
    pub(crate) fn known_branch_entries(&self, most: usize) -> Result<Vec<EntryId>, Error> {
        Ok(self.undecided()?.into_iter().map(|(id, _)| id).take(most).collect())
    }
}
