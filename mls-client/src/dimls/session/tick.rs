//! What the passing of time asks of an owner.

use std::collections::BTreeSet;

use super::{Event, Member, Records, Session, commit::Plan};
use crate::dimls::{
    error::DimlsError,
    policy::{Facts, Policy, Step},
    removal::own_absence,
};

impl<R: Records> Session<R> {
    /// Does what the policy asks for now: adds who has come, acknowledges, replaces, removes. To be called now and then; nothing is
    /// lost by calling it seldom. What is to be sent is in the outbox afterwards.
    pub fn tick(&mut self, now_ms: u64) -> Result<Vec<Event>, DimlsError> {
        if self.record.removals.by(self.me).is_some() {
            return Ok(Vec::new());
        }
        self.look_at(now_ms);
        let owed = self.owed(now_ms);
        let additions = self.additions();
        let facts = Facts {
            now: now_ms,
            replaced_at: self.record.replaced_at,
            unacknowledged_since: self.record.unacknowledged_since,
            removals: !owed.is_empty(),
            additions: !additions.is_empty(),
            lost: self.has_to_ask(now_ms),
            alone: self.own_members().union(&additions).count() <= 1,
        };
        let step = self.record.policy.next(&facts);
        if step == Step::Nothing {
            // What waited for too long is given up here, too.
            let blocked = self.waiting.iter().any(|waiting| !waiting.is_empty());
            return if blocked { self.operate(|session| session.drain(now_ms)) } else { Ok(Vec::new()) };
        }
        self.check_sending()?;
        self.operate(|session| {
            let mut events = Vec::new();
            for member in &owed {
                if session.record.removals.saw(*member, session.me) {
                    let (member, by) = (session.client(*member).clone(), session.client(session.me).clone());
                    events.push(Event::Removed { member, by });
                }
            }
            let plan = match step {
                Step::Replace => Plan { add: session.replaceable(), remove: owed, update: true },
                Step::Ask => Plan { add: additions, update: true, ..Plan::default() },
                Step::Remove => Plan { add: additions, remove: owed, update: true },
                Step::Acknowledge | Step::Nothing => Plan { add: additions, ..Plan::default() },
            };
            session.commit(plan, now_ms)?;
            if step == Step::Replace {
                session.record.replaced_at = now_ms;
            }
            session.drop_dead_groups(&mut events);
            session.drop_spent_generations()?;
            events.extend(session.drain(now_ms)?);
            Ok(events)
        })
    }

    /// Another policy from now on.
    pub fn set_policy(&mut self, policy: Policy) -> Result<(), DimlsError> {
        policy.check()?;
        self.operate(|session| {
            session.record.policy = policy;
            Ok(())
        })
    }

    /// Whoever was away itself has not heard of anybody, and must not take them all for gone when it is back.
    fn look_at(&mut self, now_ms: u64) {
        let away = own_absence(self.record.looked_at, now_ms, self.record.policy.replace_every_ms);
        self.record.looked_at = now_ms;
        if away > 0 {
            for (number, peer) in self.peers.iter_mut().enumerate() {
                peer.heard = (peer.heard + away).min(now_ms);
                self.touched.insert(number as Member);
            }
        }
    }

    /// Whom this owner has to remove.
    pub(super) fn owed(&self, now_ms: u64) -> BTreeSet<Member> {
        let heard: Vec<u64> = self.peers.iter().map(|peer| peer.heard).collect();
        let offline_after = self.record.policy.offline_after_ms;
        self.record.removals.owed(self.me, &self.own_members(), &heard, now_ms, offline_after)
    }

    /// Who has come and is not in the own Send Group yet, or has lost it.
    fn additions(&self) -> BTreeSet<Member> {
        let members = self.own_members();
        let mut additions = self.record.removals.remaining(self.peers.len());
        additions.retain(|member| {
            let peer = &self.peers[usize::from(*member)];
            let new = !members.contains(member) && peer.package.is_some() && peer.used.is_none();
            *member != self.me && (new || self.asks_for_me(*member))
        });
        additions
    }

    /// Who has published a newer KeyPackage than the one in the own Send Group.
    pub(super) fn replaceable(&self) -> BTreeSet<Member> {
        let mut members = self.record.removals.remaining(self.peers.len());
        members.retain(|member| {
            let peer = &self.peers[usize::from(*member)];
            let newest = peer.package.as_ref().map(|(generation, _)| *generation);
            *member != self.me && newest.is_some() && newest > peer.used
        });
        members
    }

    /// Notes since when there has been something to acknowledge.
    pub(super) fn note_unacknowledged(&mut self, now_ms: u64) {
        let due = !self.importable(&self.own_members()).is_empty();
        self.record.unacknowledged_since = due.then(|| self.record.unacknowledged_since.unwrap_or(now_ms));
    }
}
