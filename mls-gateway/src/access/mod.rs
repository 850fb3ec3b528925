//! Who is a member of a group, close enough to the hot path that a submission costs no round trip for it.
//!
//! Membership is derived from the log, so every gateway comes to the same answer and a restarted one reads it anew
//! ([`crate::mls::Validator::roster`]). What is remembered here is only ever a shortcut to yes: a no is confirmed by a linearizable
//! read first. How new a yes has to be depends on what is asked for ([`Knowledge`]).

pub mod rules;

use std::{num::NonZeroUsize, sync::Arc};

use group_log::{ClientId, GroupId};
use lru::LruCache;
use parking_lot::Mutex;

use self::rules::{Act, Leave, Standing, leave};
use crate::{
    error::GatewayError,
    fanout::Fanout,
    limits::{FAREWELLS_REMEMBERED, ROSTER_MEMBERS_MAX, ROSTERS_MAX},
    metrics,
    mls::{Roster, Validator},
};

/// Decides who may do what in groups that a quorum orders.
pub struct Access {
    validator: Arc<Validator>,
    fanout: Arc<Fanout>,
    rosters: Mutex<Rosters>,
    /// How far clients that are no members may read, if at all: found in which epoch, and from which entry on.
    farewells: Mutex<LruCache<(GroupId, ClientId), Farewell>>,
}

#[derive(Clone, Copy)]
struct Farewell {
    epoch: u64,
    from: u64,
    until: Option<u64>,
}

struct Rosters {
    kept: LruCache<GroupId, Kept>,
    /// Members of all of them together.
    members: usize,
}

#[derive(Clone)]
struct Kept {
    roster: Arc<Roster>,
    /// It came from a linearizable read, and holds for its epoch against everybody.
    confirmed: bool,
    /// The newest epoch that this gateway has seen the group reach.
    newest: u64,
}

/// How much has to be known about a group.
#[derive(Debug, Clone, Copy)]
pub enum Knowledge {
    /// The epoch with this number: for what the cluster accepts in no other.
    Of(u64),
    /// At least this epoch: for what is shown, which is no newer.
    AtLeast(u64),
    /// The group as it is now, as far as it is followed here, or else by a linearizable read.
    Current,
}

impl Access {
    /// Nothing is known yet.
    pub fn new(validator: Arc<Validator>, fanout: Arc<Fanout>) -> Self {
        let bound = const { NonZeroUsize::new(ROSTERS_MAX).expect("the bound is not zero") };
        let farewells = const { NonZeroUsize::new(FAREWELLS_REMEMBERED).expect("the bound is not zero") };
        Self {
            validator,
            fanout,
            rosters: Mutex::new(Rosters { kept: LruCache::new(bound), members: 0 }),
            farewells: Mutex::new(LruCache::new(farewells)),
        }
    }

    /// How far `client` may go with `act` in a group, which is asked for with the epoch that the group is in. `from` is the place in the
    /// log that a former member has reached. Returns the epoch that the answer holds for, too.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`: not at all. Or the log can not be read.
    pub async fn check(
        &self,
        group_id: &GroupId,
        client: &ClientId,
        knowledge: Knowledge,
        from: u64,
        act: impl Fn(u64) -> Act,
    ) -> Result<(Leave, u64), GatewayError> {
        if let Some(epoch) = self.known_member(group_id, client, knowledge) {
            return Ok((Leave::Full, epoch));
        }
        let roster = self.roster_for(group_id, client, knowledge).await?;
        let (epoch, act) = (roster.epoch, act(roster.epoch));
        if roster.members.contains(client) {
            self.farewells.lock().pop(&(group_id.clone(), client.clone()));
            return Ok((Leave::Full, epoch));
        }
        let standing = if leave(act, Standing::Removed { until: 0 }) == leave(act, Standing::Stranger) {
            // To have been a member makes no difference, so it is not looked for.
            Standing::Stranger
        } else {
            self.former(group_id, client, epoch, from).await?
        };
        match leave(act, standing) {
            Leave::None => Err(denied(standing)),
            leave => Ok((leave, epoch)),
        }
    }

    /// The cluster has accepted a commit of this group, which is in this epoch now.
    pub fn advanced(&self, group_id: &GroupId, epoch: u64) {
        if let Some(kept) = self.rosters.lock().kept.peek_mut(group_id) {
            kept.newest = kept.newest.max(epoch);
        }
    }

    /// The epoch for which `client` is known to be a member, without asking anybody.
    fn known_member(&self, group_id: &GroupId, client: &ClientId, knowledge: Knowledge) -> Option<u64> {
        let kept = self.rosters.lock().kept.get(group_id).cloned()?;
        let epoch = kept.roster.epoch;
        let is_enough = match knowledge {
            Knowledge::Of(of) => epoch == of,
            Knowledge::AtLeast(least) => epoch >= least,
            Knowledge::Current => {
                let followed = self.fanout.live_epoch(group_id)?;
                epoch >= followed.max(kept.newest)
            }
        };
        (is_enough && kept.roster.members.contains(client)).then_some(epoch)
    }

    /// A roster that is enough to say yes to `client`, or the newest that there is.
    async fn roster_for(
        &self,
        group_id: &GroupId,
        client: &ClientId,
        knowledge: Knowledge,
    ) -> Result<Arc<Roster>, GatewayError> {
        // What validation has just followed is often all that is needed.
        if let Some(roster) = self.validator.roster_known(group_id).await {
            let roster = self.keep(group_id, roster, false);
            if self.known_member(group_id, client, knowledge).is_some() {
                return Ok(roster);
            }
        }
        if let Knowledge::AtLeast(_) = knowledge {
            // Also answered without a quorum.
            metrics::roster_read("shown");
            let before = self.kept(group_id).map(|kept| kept.roster);
            let roster = self.validator.roster(group_id, false, before.as_deref()).await;
            if let Ok(roster) = roster {
                self.keep(group_id, roster, false);
                if let Some(kept) = self.kept(group_id)
                    && self.known_member(group_id, client, knowledge).is_some()
                {
                    return Ok(kept.roster);
                }
            }
        }
        if let Knowledge::Current = knowledge {
            // From now on it is told when the group goes on. One that can not be followed is read every time.
            let _ = self.fanout.feed(group_id).await;
        }
        metrics::roster_read("confirmed");
        let head = self.validator.log().head(group_id, true, false).await?.head;
        let kept = self.kept(group_id);
        if let Some(kept) = kept.as_ref().filter(|kept| kept.confirmed && kept.roster.epoch >= head.epoch) {
            return Ok(Arc::clone(&kept.roster));
        }
        let before = kept.map(|kept| kept.roster);
        let roster = self.validator.roster(group_id, true, before.as_deref()).await?;
        Ok(self.keep(group_id, roster, true))
    }

    fn kept(&self, group_id: &GroupId) -> Option<Kept> {
        self.rosters.lock().kept.get(group_id).cloned()
    }

    /// What somebody was who is no member in this epoch.
    async fn former(
        &self,
        group_id: &GroupId,
        client: &ClientId,
        epoch: u64,
        from: u64,
    ) -> Result<Standing, GatewayError> {
        let key = (group_id.clone(), client.clone());
        let standing = |until: Option<u64>| match until {
            Some(until) => Standing::Removed { until },
            None => Standing::Stranger,
        };
        let found = self.farewells.lock().get(&key).copied();
        match found {
            Some(Farewell { until: Some(until), from: since, .. }) if from >= since && from < until => {
                return Ok(standing(Some(until)));
            }
            // To stay a stranger takes that nothing has happened since.
            Some(Farewell { until, epoch: at, from: since }) if at == epoch && from >= since => {
                return Ok(standing(until));
            }
            _ => {}
        }
        let until = match self.validator.farewell(group_id, client, from).await {
            // The log was given up there: whatever it was, it reads nothing there any more.
            Err(error) if error.oldest_kept().is_some() => None,
            until => until?,
        };
        self.farewells.lock().put(key, Farewell { epoch, from, until });
        Ok(standing(until))
    }

    fn keep(&self, group_id: &GroupId, roster: Roster, confirmed: bool) -> Arc<Roster> {
        let roster = Arc::new(roster);
        let mut rosters = self.rosters.lock();
        let old = rosters.kept.peek(group_id).cloned();
        if let Some(old) = &old {
            // Of two that were read side by side the newer stays, and of one epoch the one that is confirmed.
            let same = old.roster.epoch == roster.epoch;
            if old.roster.epoch > roster.epoch || (same && old.confirmed && !confirmed) {
                return roster;
            }
        }
        rosters.members += roster.members.len();
        let newest = old.map_or(0, |old| old.newest).max(roster.epoch);
        let kept = Kept { roster: Arc::clone(&roster), confirmed, newest };
        if let Some((_, old)) = rosters.kept.push(group_id.clone(), kept) {
            rosters.members -= old.roster.members.len();
        }
        while rosters.members > ROSTER_MEMBERS_MAX {
            let Some((_, oldest)) = rosters.kept.pop_lru() else { break };
            rosters.members -= oldest.roster.members.len();
        }
        metrics::rosters(rosters.kept.len());
        roster
    }
}

/// Nobody of this standing may do what was asked.
pub fn denied(standing: Standing) -> GatewayError {
    metrics::refusal("not_a_member");
    GatewayError::denied(match standing {
        Standing::Removed { until } => format!(
            "this client was removed from the group; it may read the log up to entry {until}, and come back by being added"
        ),
        Standing::Member | Standing::Stranger => {
            "this client is not a member of the group: a member has to add it".to_owned()
        }
    })
}
