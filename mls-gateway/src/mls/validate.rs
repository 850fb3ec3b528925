//! Validates public handshakes before they can burn an epoch.
//!
//! A handshake is held against the exact state it claims to be made in. The canonical log has one state per epoch, so the epoch
//! names it. If the state kept here is older, it follows the log first; if it is newer, the handshake has lost its race whatever
//! it says, and the cluster answers. Nothing is refused on the word of a state that might be wrong: before a refusal the state is
//! brought up to date with a linearizable read, completed with the epoch's proposals, and, if it has followed commits, rebuilt from
//! the newest GroupInfo (`catch_up.rs`; see `public_state.rs` for why a followed state can be poisoned).
//!
//! What cannot be validated passes: private handshakes, groups whose GroupInfo has no ratchet tree, and commits that may refer to
//! private proposals. Their members decide, as RFC 9420 has it.

use std::sync::Arc;

use concordat_proto::log::v1 as pb;
use group_log::GroupId;
use openmls_rust_crypto::RustCrypto;
use tokio::time::timeout;

use super::{
    cache::Cache,
    handshake::{Handshake, Ticket},
    parse::GroupInfoIn,
    public_state::{Checked, PublicState},
};
use crate::{
    cluster::LogReader,
    error::GatewayError,
    limits::{MERGE_PATIENCE, PUBLIC_STATES_BYTES_MAX, PUBLIC_STATES_MAX},
    metrics::{self, Validation},
};

/// The public states of many groups, bounded, the least recently used forgotten first.
pub struct Validator {
    pub(super) crypto: Arc<RustCrypto>,
    pub(super) log: Arc<dyn LogReader>,
    cache: Cache<Known>,
}

/// What is known of one group.
#[derive(Default)]
pub(super) struct Known {
    pub(super) position: Option<Position>,
    /// Counts every change that is not a merge of one's own, so that a staged commit is never merged into another state.
    pub(super) generation: u64,
}

pub(super) struct Position {
    /// The last entry taken in.
    pub(super) seq: u64,
    /// The epoch after it.
    pub(super) epoch: u64,
    /// Absent if the state cannot be followed from the outside.
    pub(super) state: Option<PublicState>,
    /// The state was built from the GroupInfo of this epoch and has followed no commit.
    pub(super) fresh: bool,
    /// Nothing better can be had: since it was begun anew from the newest GroupInfo, there was no commit.
    pub(super) anew: bool,
}

/// What has been done already for a handshake that does not validate.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effort {
    None,
    CaughtUp,
    Rebuilt,
}

impl Validator {
    /// Reads what it needs to follow the groups from `log`.
    pub fn new(log: Arc<dyn LogReader>) -> Self {
        Self { crypto: Arc::default(), log, cache: Cache::new(PUBLIC_STATES_MAX, PUBLIC_STATES_BYTES_MAX) }
    }

    /// The cryptography that everything is verified with.
    pub fn crypto(&self) -> &RustCrypto {
        &self.crypto
    }

    pub(crate) fn log(&self) -> &dyn LogReader {
        &*self.log
    }

    /// What is remembered of a group.
    pub(super) fn slot(&self, group_id: &GroupId) -> Arc<tokio::sync::Mutex<Known>> {
        self.cache.slot(group_id)
    }

    /// Accounts for what is remembered of a group now.
    pub(super) fn settle(&self, group_id: &GroupId, known: &Known) {
        let state = known.position.as_ref().and_then(|p| p.state.as_ref());
        self.cache.account(group_id, state.map_or(0, PublicState::estimated_bytes));
    }

    /// Validates a handshake. No ticket: there is nothing to validate it against, or it has lost its race already.
    pub async fn check(&self, handshake: Handshake<'_>) -> Result<Option<Ticket>, GatewayError> {
        let slot = self.cache.slot(handshake.group_id);
        let mut known = slot.lock().await;
        let result = self.check_known(&mut known, &handshake).await;
        self.settle(handshake.group_id, &known);
        drop(known);
        metrics::validation(match &result {
            Ok((_, outcome)) => *outcome,
            Err(GatewayError::CommitInvalid(_) | GatewayError::Parse(_)) => Validation::Refused,
            Err(_) => Validation::Failed,
        });
        result.map(|(ticket, _)| ticket)
    }

    async fn check_known(
        &self,
        known: &mut Known,
        handshake: &Handshake<'_>,
    ) -> Result<(Option<Ticket>, Validation), GatewayError> {
        let group_id = handshake.group_id;
        if known.position.as_ref().is_none_or(|p| p.epoch < handshake.epoch) {
            self.catch_up(known, group_id, false).await?;
            // The node that was asked may lag behind the one that accepted the previous commit.
            if known.position.as_ref().is_some_and(|p| p.epoch < handshake.epoch) {
                self.catch_up(known, group_id, true).await?;
            }
        }
        let mut effort = Effort::None;
        loop {
            let Some(position) = &known.position else { return Ok((None, Validation::Unchecked)) };
            if position.epoch < handshake.epoch {
                return Err(GatewayError::EpochAhead { head_epoch: position.epoch, got: handshake.epoch });
            }
            if position.epoch > handshake.epoch {
                return Ok((None, Validation::Stale));
            }
            let Some(state) = &position.state else { return Ok((None, Validation::Unchecked)) };
            let error = match self.check_state(state, handshake) {
                Ok(checked) => {
                    let author = state.author(handshake.message, &checked);
                    let (group_id, epoch) = (group_id.clone(), position.epoch);
                    let ticket = Ticket { author, group_id, epoch, generation: known.generation, checked };
                    return Ok((Some(ticket), Validation::Passed));
                }
                Err(error) => error,
            };
            effort = match effort {
                Effort::None => {
                    self.catch_up(known, group_id, true).await?;
                    self.complete_proposals(known, group_id).await?;
                    Effort::CaughtUp
                }
                Effort::CaughtUp if !position.fresh => {
                    metrics::validation_rebuild();
                    self.rebuild(known, group_id, true).await?;
                    self.complete_proposals(known, group_id).await?;
                    Effort::Rebuilt
                }
                Effort::CaughtUp | Effort::Rebuilt if state.hidden_proposals => {
                    return Ok((None, Validation::Unchecked));
                }
                Effort::CaughtUp | Effort::Rebuilt => return Err(error),
            };
        }
    }

    /// Holds a handshake, and what came with it, against the state that it was made in.
    fn check_state(&self, state: &PublicState, handshake: &Handshake<'_>) -> Result<Checked, GatewayError> {
        let checked = state.check(&*self.crypto, handshake.kind, handshake.message.clone())?;
        if let Checked::Commit(staged) = &checked {
            if let Some(info) = handshake.group_info {
                staged.check_group_info(&*self.crypto, info)?;
            }
            if let Some(refs) = handshake.welcome {
                staged.check_welcome(&*self.crypto, refs)?;
            }
        }
        Ok(checked)
    }

    /// Goes on to the state after a handshake that the cluster has accepted.
    pub async fn accepted(&self, ticket: Ticket, accepted: &pb::Accepted) {
        let slot = self.cache.slot(&ticket.group_id);
        // Whoever waits for the answer must not wait for another's validation; the log tells the same later.
        let Ok(mut guard) = timeout(MERGE_PATIENCE, slot.lock()).await else { return };
        let known = &mut *guard;
        let Some(position) = known.position.as_mut() else { return };
        if position.epoch != ticket.epoch || known.generation != ticket.generation {
            return;
        }
        let Some(state) = position.state.as_mut() else { return };
        match ticket.checked {
            Checked::Proposal(proposal) => {
                // Entries in between are still to be read, so the position stays; the same proposal twice does no harm.
                state.add_proposal(*proposal);
            }
            Checked::Commit(staged) if accepted.epoch == ticket.epoch + 1 => {
                known.generation += 1;
                position.seq = accepted.seq;
                position.epoch = accepted.epoch;
                (position.fresh, position.anew) = (false, false);
                if state.merge(staged).is_err() {
                    position.state = None;
                }
            }
            Checked::Commit(_) => {}
        }
    }

    /// Validates the GroupInfo that a group begins with, if it shows a ratchet tree. The state is for [`Validator::created`].
    pub async fn check_create(&self, info: GroupInfoIn) -> Result<Option<PublicState>, GatewayError> {
        Ok(self.build(info).await??)
    }

    /// Remembers the state of a group whose creation the cluster has accepted.
    pub async fn created(&self, group_id: &GroupId, state: Option<PublicState>, accepted: &pb::Accepted) {
        let Some(mut state) = state else { return };
        state.has_all_proposals = true;
        let bytes = state.estimated_bytes();
        let slot = self.cache.slot(group_id);
        let mut known = slot.lock().await;
        // The same create again, long after: what is known is newer.
        if known.position.is_none() && accepted.epoch == state.epoch() {
            known.position = Some(Position {
                seq: accepted.seq,
                epoch: accepted.epoch,
                state: Some(state),
                fresh: true,
                anew: true,
            });
            known.generation += 1;
            drop(known);
            self.cache.account(group_id, bytes);
        }
    }
}
