//! What members do, and what they are told: noted, so that the proof can hold it against the end.

use std::{collections::BTreeSet, time::Duration};

use mls_client::{Change, Committed, Error, GroupKind, Status};
use tokio::time::{Instant, sleep, timeout};

use super::world::{Group, Said};
use crate::world::Member;

/// How long a member waits for an answer. What has none by then goes on in the background.
const PATIENCE: Duration = Duration::from_secs(4);

/// How long is waited for the first commit on a branch.
const FORK_DEADLINE: Duration = Duration::from_secs(30);

/// Says something.
pub(super) async fn say(group: &Group, by: &Member, what: &str) {
    let body = format!("{} in {}: {what}", by.name, group.name).into_bytes();
    let before = view(group, by);
    let answer = timeout(PATIENCE, by.client.send(&group.id, body.clone())).await;
    let entitled = match (&answer, before, view(group, by)) {
        (Ok(Ok(_)), Some(before), Some(after)) => before.intersection(&after).cloned().collect(),
        // It is sent later, in a state that nobody knows yet: whoever is in all of them is entitled.
        (Ok(Err(error)), ..) if !error.is_temporary() => return note(group, by, "say something", error),
        _ => group.first_members(),
    };
    let mut deeds = group.deeds();
    deeds.said.push(Said { body, entitled });
    if !matches!(answer, Ok(Ok(_))) {
        deeds.waiting += 1;
    }
}

/// Renews the member's keys.
pub(super) async fn update(group: &Group, by: &Member) -> Option<Committed> {
    let answer = timeout(PATIENCE, by.client.update(&group.id)).await.ok();
    count(group, by, "update", answer)
}

/// Adds somebody who waits.
pub(super) async fn invite(group: &Group, by: &Member, whom: &Member) {
    let change = Change::new().invite_with(whom.id().clone(), group.key_package(whom));
    let answer = timeout(PATIENCE, by.client.commit(&group.id, change)).await.ok();
    if count(group, by, "invite", answer).is_some() {
        group.deeds().added.insert(whom.id().as_bytes().to_vec());
    }
}

/// Removes somebody.
pub(super) async fn remove(group: &Group, by: &Member, whom: &Member) {
    let answer = timeout(PATIENCE, by.client.remove(&group.id, &[whom.id().clone()])).await.ok();
    count(group, by, "remove", answer);
    // Also if no answer came: the commit is pending, and will be made.
    group.deeds().removed.insert(whom.id().as_bytes().to_vec());
}

/// Commits again and again until a branch takes it. Returns how long that took, or nothing.
pub(super) async fn until_forked(group: &Group, by: &Member) -> Option<Duration> {
    let begun = Instant::now();
    while begun.elapsed() < FORK_DEADLINE {
        // As long as it takes: what is given up and made again would take longer.
        let answer = timeout(FORK_DEADLINE, by.client.update(&group.id)).await.ok();
        if let Some(Committed::Provisional { .. }) = count(group, by, "update", answer) {
            return Some(begun.elapsed());
        }
        sleep(Duration::from_millis(20)).await;
    }
    None
}

fn count(
    group: &Group,
    by: &Member,
    what: &str,
    answer: Option<Result<Committed, Error>>,
) -> Option<Committed> {
    match answer {
        Some(Ok(committed)) => {
            let mut deeds = group.deeds();
            match committed {
                Committed::Accepted { .. } => deeds.accepted += 1,
                Committed::Provisional { .. } => deeds.provisional += 1,
                Committed::NothingToDo => {}
            }
            if group.kind == GroupKind::Mls && matches!(committed, Committed::Provisional { .. }) {
                deeds.errors.push(format!("{}: a plain MLS group was answered on a branch", group.name));
            }
            Some(committed)
        }
        Some(Err(error)) if !error.is_temporary() => {
            note(group, by, what, &error);
            None
        }
        _ => {
            group.deeds().waiting += 1;
            None
        }
    }
}

fn note(group: &Group, by: &Member, what: &str, error: &Error) {
    // Who was removed meanwhile may find that out in this way.
    let removed = group.deeds().removed.contains(by.id().as_bytes());
    if !removed {
        group.deeds().errors.push(format!("{}: {} could not {what}: {error}", group.name, by.name));
    }
}

fn view(group: &Group, member: &Member) -> Option<BTreeSet<Vec<u8>>> {
    let view = member.client.group(&group.id).ok()?;
    (view.status == Status::Active).then(|| view.members.into_iter().collect())
}
