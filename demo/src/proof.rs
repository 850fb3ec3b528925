//! The proof: one state for all members of every group, the same log on every node, every message read by everyone entitled.

use std::collections::BTreeSet;

use group_log::GroupId;
use mls_client::{GroupView, Status};
use testbed::check::FinalLogs;

use crate::{messages, world::Group};

/// What is wrong.
#[derive(Debug, Default)]
pub(crate) struct Findings(Vec<String>);

impl Findings {
    pub(crate) fn add(&mut self, finding: String) {
        self.0.push(finding);
    }

    pub(crate) fn all(&self) -> &[String] {
        &self.0
    }
}

/// What was proved about one group.
#[derive(Debug)]
pub(crate) struct Proof {
    pub(crate) name: String,
    pub(crate) members: usize,
    pub(crate) epoch: u64,
    pub(crate) authenticator: String,
    pub(crate) entries: usize,
    pub(crate) read: messages::Read,
}

/// Proves everything about one group, or says what is wrong.
pub(crate) async fn prove(group: &Group, logs: &FinalLogs, findings: &mut Findings) -> Proof {
    let (members, view) = one_state(group, findings).await;
    let log = same_log(group, logs, findings);
    let timeline = group.roster.timeline();
    if timeline.incomplete {
        findings.add(format!("{}: the founder's list of members has a gap", group.name));
    }
    if let (Some(view), Some((epoch, roster))) = (&view, timeline.newest()) {
        let current: BTreeSet<_> = view.members.iter().cloned().collect();
        if epoch != view.epoch || *roster != current {
            findings.add(format!("{}: the founder's list of members is not the group's", group.name));
        }
    }
    let read = messages::prove(group, log, &timeline, findings);
    Proof {
        name: group.name.clone(),
        members,
        epoch: view.as_ref().map_or(0, |view| view.epoch),
        authenticator: view.map(|view| hex_start(&view.epoch_authenticator)).unwrap_or_default(),
        entries: log.len(),
        read,
    }
}

/// Every client that takes part has the same state, and is exactly the members that this state names.
async fn one_state(group: &Group, findings: &mut Findings) -> (usize, Option<GroupView>) {
    let mut views: Vec<(&str, Vec<u8>, GroupView)> = Vec::new();
    for member in &group.members {
        match member.client.group(&group.id) {
            Ok(GroupView { status: Status::Active, .. }) => match member.client.sync(&group.id).await {
                Ok(view) => views.push((&member.name, member.id().as_bytes().to_vec(), view)),
                Err(error) => {
                    findings.add(format!("{}: {} cannot catch up: {error}", group.name, member.name))
                }
            },
            Ok(GroupView { status: Status::Left(_), .. }) | Err(mls_client::Error::UnknownGroup) => {}
            Ok(view) => findings.add(format!("{}: {} is {:?}", group.name, member.name, view.status)),
            Err(error) => findings.add(format!("{}: {}: {error}", group.name, member.name)),
        }
    }
    let Some((first_name, _, first)) = views.first().cloned() else {
        findings.add(format!("{}: nobody is in it", group.name));
        return (0, None);
    };
    for (name, _, view) in &views {
        let same = view.epoch == first.epoch
            && view.epoch_authenticator == first.epoch_authenticator
            && view.state_id == first.state_id
            && view.members == first.members;
        if !same {
            let (epoch, other) = (view.epoch, first.epoch);
            findings.add(format!(
                "{}: {name} is in epoch {epoch}, {first_name} in {other}, or in another state",
                group.name
            ));
        }
        if view.outbox > 0 || view.commit_pending {
            findings.add(format!("{}: {name} has something unfinished", group.name));
        }
    }
    let active: BTreeSet<_> = views.iter().map(|(_, id, _)| id.clone()).collect();
    let named: BTreeSet<_> = first.members.iter().cloned().collect();
    if active != named {
        findings.add(format!(
            "{}: {} clients take part, but the group has {} members",
            group.name,
            active.len(),
            named.len()
        ));
    }
    (views.len(), Some(first))
}

/// The log of a group, if all nodes hold the same one.
fn same_log<'a>(group: &Group, logs: &'a FinalLogs, findings: &mut Findings) -> &'a [group_log::Entry] {
    let Some(copies) = logs.get::<GroupId>(&group.id) else {
        findings.add(format!("{}: no node holds its log", group.name));
        return &[];
    };
    let mut copies = copies.values();
    let first = copies.next().map(Vec::as_slice).unwrap_or_default();
    if copies.any(|other| other != first) {
        findings.add(format!("{}: nodes hold different logs", group.name));
    }
    first
}

fn hex_start(bytes: &[u8]) -> String {
    bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
