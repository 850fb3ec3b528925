//! Random interleavings of several clients' operations over a network that loses requests and answers, with clients that crash in the
//! middle of a call and start again from their state file. Replay with `CONCORDAT_SEED`.

#![allow(clippy::unwrap_used)] // A panic is the report.

mod support;

use std::{collections::BTreeMap, path::Path, sync::Arc, sync::atomic::Ordering::SeqCst};

use futures::future::join_all;
use group_log::Content;
use mls_client::{Client, Error, EventKind, GroupId, NewGroup, Randomness, Status};
use support::{FakeGateway, FakeTransport, QUIET, assert_agreement, id, open, seed};

const NAMES: [&str; 5] = ["ann", "bob", "cy", "dan", "eve"];
const ROUNDS: u64 = 14;

struct Slot {
    name: &'static str,
    transport: Arc<FakeTransport>,
    client: Client,
}

#[derive(Debug, Clone)]
enum Step {
    Send(String),
    Invite(&'static str),
    Remove(&'static str),
    Update,
    Sync,
    Join,
    Leave,
    Rejoin,
}

fn draw(rng: &Randomness, text: String) -> Step {
    let somebody = NAMES[rng.below(NAMES.len() as u64) as usize];
    match rng.below(100) {
        0..30 => Step::Send(text),
        30..48 => Step::Invite(somebody),
        48..56 => Step::Remove(somebody),
        56..72 => Step::Update,
        72..80 => Step::Sync,
        80..94 => Step::Join,
        94..97 => Step::Leave,
        _ => Step::Rejoin,
    }
}

async fn act(client: &Client, group: &GroupId, step: Step) -> Result<(), Error> {
    match step {
        Step::Send(text) => client.send(group, text).await.map(drop),
        Step::Invite(name) => client.invite(group, &[id(name)]).await.map(drop),
        Step::Remove(name) => client.remove(group, &[id(name)]).await.map(drop),
        Step::Update => client.update(group).await.map(drop),
        Step::Sync => client.sync(group).await.map(drop),
        Step::Join => client.join_waiting(QUIET).await.map(drop),
        Step::Leave => client.leave(group).await,
        Step::Rejoin => client.rejoin(group).await,
    }
}

/// Failures that belong to what was tried, not to how it was done.
fn is_fair(error: &Error) -> bool {
    matches!(
        error,
        Error::NotMember(_)
            | Error::UnknownGroup
            | Error::Leaving
            | Error::CannotRemoveSelf
            | Error::Contention { .. }
            | Error::Call(_)
    )
}

/// One client's step in a round. Returns whether the client has crashed.
async fn perform(slot: &Slot, group: &GroupId, step: Step, seed: u64) -> bool {
    let crashed = Arc::clone(&slot.transport.crashed);
    tokio::select! {
        biased;
        outcome = act(&slot.client, group, step.clone()) => {
            if let Err(error) = outcome {
                assert!(is_fair(&error), "seed {seed}: {} {step:?}: {error:?}", slot.name);
            }
            false
        }
        () = crashed.notified() => true,
    }
}

fn restart(folder: &Path, slot: Slot, rng: &Randomness) -> Slot {
    let Slot { name, transport, client } = slot;
    drop(client);
    let client = open(folder, name, Arc::clone(&transport), rng);
    Slot { name, transport, client }
}

async fn scenario(seed: u64) {
    let (rng, gateway) = (Randomness::from_seed(seed), FakeGateway::default());
    let folder = tempfile::tempdir().unwrap();
    let mut slots: Vec<Slot> = Vec::new();
    for name in NAMES {
        let transport = Arc::new(FakeTransport::new(gateway.clone(), id(name), rng.fork()));
        let client = open(folder.path(), name, Arc::clone(&transport), &rng);
        client.publish_key_packages().await.unwrap();
        slots.push(Slot { name, transport, client });
    }
    let mut groups = Vec::new();
    for (creator, other) in [(0, 1), (1, 2)] {
        let group = slots[creator].client.create_group(NewGroup::default()).await.unwrap();
        slots[creator].client.invite(&group, &[id(NAMES[other])]).await.unwrap();
        slots[other].client.join_waiting(QUIET).await.unwrap();
        groups.push(group);
    }

    let faults = rng.below(30);
    for round in 0..ROUNDS {
        let mut acts = Vec::new();
        for slot in &slots {
            slot.transport.faults.store(faults, SeqCst);
            let crash = if rng.below(4) == 0 { rng.below(8) as i64 } else { -1 };
            slot.transport.crash_in.store(crash, SeqCst);
            let group = &groups[rng.below(groups.len() as u64) as usize];
            let step = draw(&rng, format!("{} in round {round}", slot.name));
            acts.push(perform(slot, group, step, seed));
        }
        let crashed = join_all(acts).await;
        for slot in &slots {
            slot.transport.crash_in.store(-1, SeqCst);
        }
        let all = std::mem::take(&mut slots).into_iter().zip(crashed);
        slots = all
            .map(|(slot, crashed)| if crashed { restart(folder.path(), slot, &rng) } else { slot })
            .collect();
    }

    // The network heals, everybody starts again, and finishes what was begun.
    slots = slots.into_iter().map(|slot| restart(folder.path(), slot, &rng)).collect();
    for slot in &slots {
        slot.transport.faults.store(0, SeqCst);
    }
    for _ in 0..2 {
        for slot in &slots {
            finish(&slot.client, &groups, seed).await;
        }
    }
    for group in &groups {
        check(&slots, group, &gateway, seed).await;
    }
}

async fn finish(client: &Client, groups: &[GroupId], seed: u64) {
    let mut events = client.events();
    client.join_waiting(QUIET).await.unwrap();
    for group in groups {
        for outcome in
            [client.resume(group).await, client.sync(group).await.map(drop), client.flush(group).await]
        {
            if let Err(error) = outcome {
                assert!(is_fair(&error), "seed {seed}: {error:?}");
            }
        }
    }
    while let Ok(event) = events.try_recv() {
        let bad = matches!(
            event.kind,
            EventKind::MessageUnreadable { .. } | EventKind::Stuck { .. } | EventKind::LogRejected { .. }
        );
        assert!(!bad, "seed {seed}: {event:?}");
    }
}

/// All members agree, they are who they should be, and everybody has read every message exactly once.
async fn check(slots: &[Slot], group: &GroupId, gateway: &FakeGateway, seed: u64) {
    let views: BTreeMap<_, _> =
        slots.iter().filter_map(|slot| Some((slot.name, slot.client.group(group).ok()?))).collect();
    let active = |slot: &&Slot| views.get(slot.name).is_some_and(|view| view.status == Status::Active);
    let members: Vec<_> = slots.iter().filter(active).collect();
    for (name, view) in &views {
        assert!(
            !matches!(view.status, Status::Stuck { .. } | Status::Joining),
            "seed {seed}: {name} {view:?}"
        );
        assert!(!view.commit_pending, "seed {seed}: {name}");
    }
    if members.is_empty() {
        return;
    }
    let clients: Vec<_> = members.iter().map(|slot| &slot.client).collect();
    let agreed = assert_agreement(&clients, group).await;
    let names: Vec<_> = members.iter().map(|slot| slot.name.as_bytes().to_vec()).collect();
    assert_eq!(agreed.members, names, "seed {seed}");

    let sent: Vec<_> = gateway
        .log(group)
        .into_iter()
        .filter(|entry| matches!(entry.content, Content::Application { .. }))
        .map(|entry| (entry.seq, entry.epoch))
        .collect();
    for slot in members {
        let view = &views[slot.name];
        let messages = slot.client.messages(group, 0, usize::MAX).unwrap();
        let due = sent.iter().filter(|(_, epoch)| *epoch >= view.joined_epoch);
        for (seq, epoch) in due {
            assert!(
                messages.iter().any(|m| m.seq == *seq),
                "seed {seed}: {} lacks {seq} of {epoch}",
                slot.name
            );
        }
        let mut bodies: Vec<_> = messages.into_iter().map(|m| m.body).collect();
        let all = bodies.len();
        bodies.sort();
        bodies.dedup();
        assert_eq!(bodies.len(), all, "seed {seed}: {} got a message twice", slot.name);
    }
}

#[tokio::test]
async fn nothing_is_lost_and_everybody_agrees() {
    let first = seed(1);
    let seeds = if std::env::var_os("CONCORDAT_SEED").is_some() { 1 } else { 24 };
    for seed in first..first + seeds {
        println!("seed {seed}");
        scenario(seed).await;
    }
}
