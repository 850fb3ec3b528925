//! After a branch has lost: what is owed, and what has to be done again.

use group_log::{ClientId, GroupId};

use super::super::{Change, Client};
use crate::{
    branches::{self, Duty},
    error::Error,
    group::{Intent, MemberId},
};

pub(super) fn client_id(member: &MemberId) -> Result<ClientId, Error> {
    ClientId::new(member.0.clone()).map_err(|e| Error::Invalid(e.to_string()))
}

impl Client {
    /// Does what a client owes after a branch has lost: removals first, then its own changes there once more, then new keys.
    pub(in crate::client) async fn repair(&self, group: &GroupId) -> Result<(), Error> {
        let turns = self.turns(group);
        let _turn = turns.commit.lock().await;
        self.repair_in_turn(group).await
    }

    pub(in crate::client) async fn repair_in_turn(&self, group: &GroupId) -> Result<(), Error> {
        for _ in 0..self.options().max_commit_attempts {
            let me = self.id();
            match self.with_branches(group, |work| branches::duty(work, me))? {
                Duty::None | Duty::Wait => return Ok(()),
                Duty::Remove(remove) => {
                    self.pursue_one(group, Intent { remove, ..Intent::default() }).await?;
                }
                Duty::Again(again) => {
                    let mut change = Change { update: again.update, ..Change::default() };
                    for member in &again.add {
                        change = change.invite(client_id(member)?);
                    }
                    let intent =
                        Intent { remove: again.remove.clone(), ..self.prepare(group, change).await? };
                    let before = self.record(group)?.fork.map(|fork| fork.again).unwrap_or_default();
                    self.pursue_one(group, intent).await?;
                    self.with_branches(group, |work| {
                        work.did_again(&before);
                        Ok(())
                    })?;
                }
            }
        }
        Err(Error::Contention { attempts: self.options().max_commit_attempts })
    }

    /// Removals that are owed come before anything else of this client's.
    pub(super) async fn pay_what_is_owed(&self, group: &GroupId) -> Result<(), Error> {
        self.pay_what_is_owed_before(group, &Intent::default()).await
    }

    pub(super) async fn pay_what_is_owed_before(
        &self,
        group: &GroupId,
        intent: &Intent,
    ) -> Result<(), Error> {
        let me = self.id();
        match self.with_branches(group, |work| branches::duty(work, me))? {
            Duty::Remove(remove) if *intent != (Intent { remove: remove.clone(), ..Intent::default() }) => {
                self.pursue_one(group, Intent { remove, ..Intent::default() }).await.map(drop)
            }
            Duty::Wait => Err(Error::RemovalsFirst),
            _ => Ok(()),
        }
    }
}
