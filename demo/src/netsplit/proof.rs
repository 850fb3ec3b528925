//! The end: everybody is in one state, and everything that was done on any side counts.

use std::collections::{BTreeMap, BTreeSet};

use group_log::{EntryKind, fork::Item};
use mls_client::{GroupKind, GroupView, Place, Status};
use testbed::ordering::WholeLogs;

use super::world::{Deeds, Group};
use crate::limits::ALL_MESSAGES;

/// What was proved about one group.
#[derive(Debug)]
pub(super) struct Proof {
    pub(super) name: String,
    pub(super) members: usize,
    pub(super) epoch: u64,
    pub(super) authenticator: String,
    /// Commits that a quorum answered.
    pub(super) ordered: usize,
    /// Commits that were answered on a branch.
    pub(super) provisional: usize,
    pub(super) messages: usize,
    pub(super) readings: usize,
    /// Entries of its log that speak of branches.
    pub(super) marks: usize,
}

/// Whether nothing is under way any more, and nothing is retained.
pub(super) fn is_settled(group: &Group) -> bool {
    is_of_one_mind(group) && views(group).iter().all(|(_, view)| view.retained_states == 1)
}

/// Whether all are in one state, with nothing provisional, owed or waiting to be sent.
pub(super) fn is_of_one_mind(group: &Group) -> bool {
    let views = views(group);
    let Some((_, first)) = views.first() else { return false };
    let named: BTreeSet<_> = first.members.iter().cloned().collect();
    let inside: BTreeSet<_> = views.iter().map(|(name, _)| name.clone()).collect();
    let deeds = group.deeds();
    let is_where_it_belongs = |member| named.contains(member) || deeds.removed.contains(member);
    named == inside
        && deeds.removed.is_disjoint(&named)
        && deeds.added.iter().all(is_where_it_belongs)
        && views.iter().all(|(_, view)| {
            view.state_id == first.state_id
                && view.seq == first.seq
                && view.outbox == 0
                && !view.commit_pending
                && !view.provisional
                && !view.repairing
        })
}

/// What keeps a group from being settled, in words.
pub(super) fn what_is_left(group: &Group) -> String {
    let tell = |(name, view): &(Vec<u8>, GroupView)| {
        format!(
            "{}: {:?}, seq {}, epoch {}, state {:?}, {} members, outbox {}, pending {}, provisional {}, repairing {}, {} states",
            String::from_utf8_lossy(name),
            view.status,
            view.seq,
            view.epoch,
            view.state_id,
            view.members.len(),
            view.outbox,
            view.commit_pending,
            view.provisional,
            view.repairing,
            view.retained_states
        )
    };
    let all = group
        .everybody()
        .filter_map(|member| Some((member.id().as_bytes().to_vec(), member.client.group(&group.id).ok()?)));
    all.map(|each| tell(&each)).collect::<Vec<_>>().join("\n  ")
}

fn views(group: &Group) -> Vec<(Vec<u8>, GroupView)> {
    let active = group.everybody().filter_map(|member| {
        let view = member.client.group(&group.id).ok()?;
        (view.status == Status::Active).then(|| (member.id().as_bytes().to_vec(), view))
    });
    active.collect()
}

/// Proves everything about one group, or adds what is wrong to `findings`.
pub(super) fn prove(group: &Group, logs: &WholeLogs, findings: &mut Vec<String>) -> Proof {
    let mut wrong = |what: String| findings.push(format!("{}: {what}", group.name));
    let views = views(group);
    let deeds = group.deeds();
    deeds.errors.iter().for_each(|error| wrong(error.clone()));
    let first = views.first().map(|(_, view)| view.clone());
    let members: BTreeSet<Vec<u8>> = first.iter().flat_map(|view| view.members.clone()).collect();
    for (name, view) in &views {
        if Some(&view.epoch_authenticator) != first.as_ref().map(|first| &first.epoch_authenticator) {
            wrong(format!("{} has another epoch authenticator", told(name)));
        }
        if view.retained_states != 1 {
            wrong(format!("{} still keeps {} states", told(name), view.retained_states));
        }
        if view.provisional || view.repairing || view.outbox > 0 || view.commit_pending {
            wrong(format!("{} has something unfinished", told(name)));
        }
    }
    let inside: BTreeSet<Vec<u8>> = views.iter().map(|(name, _)| name.clone()).collect();
    if inside != members {
        wrong(format!("{} clients take part, but the group has {} members", inside.len(), members.len()));
    }
    for name in members.intersection(&deeds.removed) {
        wrong(format!("{} was removed, and is back", told(name)));
    }
    for name in deeds.added.difference(&deeds.removed).filter(|name| !members.contains(*name)) {
        wrong(format!("{} was added, and is not a member", told(name)));
    }
    let readings = prove_readings(group, &deeds, &mut wrong);
    let marks = same_log(group, logs, &mut wrong);
    Proof {
        name: group.name.clone(),
        members: members.len(),
        epoch: first.as_ref().map_or(0, |view| view.epoch),
        authenticator: first.map(|view| hex_start(&view.epoch_authenticator)).unwrap_or_default(),
        ordered: deeds.accepted,
        provisional: deeds.provisional,
        messages: deeds.said.len(),
        readings,
        marks,
    }
}

/// Everybody has read what they were entitled to. Returns how many readings that were.
fn prove_readings(group: &Group, deeds: &Deeds, wrong: &mut impl FnMut(String)) -> usize {
    let mut read: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>> = BTreeMap::new();
    // Messages of the canonical chain, with the epoch they were sent in.
    let mut canonical: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    for member in group.everybody() {
        let Ok(messages) = member.client.messages(&group.id, 0, ALL_MESSAGES) else { continue };
        for message in messages {
            if let Place::Canonical { .. } = message.place {
                canonical.insert(message.body.clone(), message.epoch);
            }
            read.entry(member.id().as_bytes().to_vec()).or_default().insert(message.body);
        }
    }
    let joined: BTreeMap<_, _> =
        views(group).into_iter().map(|(name, view)| (name, view.joined_epoch)).collect();
    let mut readings = 0;
    for said in &deeds.said {
        // Who was removed on some side may have been gone before it came. Who was added belongs to the group from where the canonical
        // chain says so: before that there was no Welcome to read anything with.
        let stayed = said.entitled.difference(&deeds.removed).filter(|name| !deeds.added.contains(*name));
        let came = deeds.added.iter().filter(|name| {
            let since = joined.get(*name);
            canonical.get(&said.body).zip(since).is_some_and(|(epoch, since)| epoch >= since)
        });
        for name in stayed.chain(came) {
            readings += 1;
            if !read.get(name).is_some_and(|bodies| bodies.contains(&said.body)) {
                wrong(format!("{} has not read `{}`", told(name), String::from_utf8_lossy(&said.body)));
            }
        }
    }
    readings
}

/// All nodes hold one log; a plain MLS group's has nothing put aside. Returns how many entries speak of branches.
fn same_log(group: &Group, logs: &WholeLogs, wrong: &mut impl FnMut(String)) -> usize {
    let Some(copies) = logs.get(&group.id) else {
        wrong("no node holds its log".into());
        return 0;
    };
    let mut copies = copies.values();
    let first = copies.next().map(Vec::as_slice).unwrap_or_default();
    if copies.any(|other| other != first) {
        wrong("nodes hold different logs".into());
    }
    let mut epochs = BTreeSet::new();
    for entry in first {
        let is_commit = matches!(&entry.item, Item::Content(content) if content.kind() == EntryKind::Commit);
        if is_commit && !epochs.insert(entry.epoch) {
            wrong(format!("epoch {} has two commits", entry.epoch));
        }
    }
    let marks = first.iter().filter(|entry| matches!(entry.item, Item::Mark(_))).count();
    if group.kind == GroupKind::Mls && marks > 0 {
        wrong(format!("its log has {marks} marks of branches"));
    }
    marks
}

fn told(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

fn hex_start(bytes: &[u8]) -> String {
    bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
