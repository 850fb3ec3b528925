//! What members do, all at the same time: talk, renew their keys, add and remove one another.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mls_client::{ClientId, Committed, Error, Status};
use rand::{Rng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use tokio::{select, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    limits::{MAX_MEMBERS, MIN_MEMBERS, PAUSE_MAX, PAUSE_MIN},
    world::{Group, Member},
};

/// What happened so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) adds: AtomicU64,
    pub(crate) updates: AtomicU64,
    pub(crate) removes: AtomicU64,
    pub(crate) messages: AtomicU64,
    /// Operations that were given up for now although nothing is wrong with them.
    pub(crate) given_up: AtomicU64,
    /// Errors that should not happen.
    pub(crate) errors: Mutex<Vec<String>>,
}

impl Tally {
    pub(crate) fn line(&self) -> String {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        format!(
            "{} adds, {} updates, {} removes, {} messages",
            read(&self.adds),
            read(&self.updates),
            read(&self.removes),
            read(&self.messages)
        )
    }
}

/// Sets everybody of all groups to work. Ends when `stop` is cancelled and what was begun is finished.
pub(crate) fn begin(
    groups: &[Arc<Group>],
    seed: u64,
    stop: &CancellationToken,
    tally: &Arc<Tally>,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let mut part = 0;
    for group in groups {
        for number in 0..group.members.len() {
            part += 1;
            let (rng, stop) = (testbed::seed::rng(seed, part), stop.clone());
            tasks.spawn(work(Arc::clone(group), number, rng, Arc::clone(tally), stop));
        }
    }
    tasks
}

async fn work(
    group: Arc<Group>,
    number: usize,
    mut rng: ChaCha8Rng,
    tally: Arc<Tally>,
    stop: CancellationToken,
) {
    let me = &group.members[number];
    loop {
        let pause = Duration::from_millis(rng.random_range(millis(PAUSE_MIN)..millis(PAUSE_MAX)));
        select! {
            () = sleep(pause) => {}
            () = stop.cancelled() => return,
        }
        if !me.is_in(&group.id) {
            continue;
        }
        let (what, result) = act(&group, me, &mut rng, &tally).await;
        match result {
            Ok(()) => {}
            Err(error) if is_expected(&error) || !me.is_in(&group.id) => {}
            Err(error) if error.is_temporary() => {
                tally.given_up.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                let mut errors = tally.errors.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                errors.push(format!("{} could not {what}: {error}", me.name));
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

/// Being removed in the middle of something is part of the plan.
fn is_expected(error: &Error) -> bool {
    matches!(error, Error::NotMember(_) | Error::Leaving)
}

async fn act(
    group: &Group,
    me: &Member,
    rng: &mut ChaCha8Rng,
    tally: &Tally,
) -> (&'static str, Result<(), Error>) {
    let view = match me.client.group(&group.id) {
        Ok(view) if view.status == Status::Active => view,
        Ok(_) => return ("look", Ok(())),
        Err(error) => return ("look", Err(error)),
    };
    let is_member = |member: &&Arc<Member>| view.members.iter().any(|m| m == member.id().as_bytes());
    let inside: Vec<_> = group.members[1..].iter().filter(is_member).filter(|m| m.id() != me.id()).collect();
    let outside: Vec<_> = group.members.iter().filter(|m| !is_member(m)).collect();
    match rng.random_range(0..100) {
        0..45 => ("send", say(group, me, rng, tally).await),
        45..65 if view.members.len() < MAX_MEMBERS && !outside.is_empty() => {
            let who: Vec<ClientId> = outside.choose(rng).map(|m| m.id().clone()).into_iter().collect();
            ("invite", counted(me.client.invite(&group.id, &who).await, &tally.adds))
        }
        65..80 if view.members.len() > MIN_MEMBERS && !inside.is_empty() => {
            let who: Vec<ClientId> = inside.choose(rng).map(|m| m.id().clone()).into_iter().collect();
            ("remove", counted(me.client.remove(&group.id, &who).await, &tally.removes))
        }
        _ => ("update", counted(me.client.update(&group.id).await, &tally.updates)),
    }
}

async fn say(group: &Group, me: &Member, rng: &mut ChaCha8Rng, tally: &Tally) -> Result<(), Error> {
    let body = format!("{} in {} says {:016x}", me.name, group.name, rng.random::<u64>());
    me.client.send(&group.id, body).await?;
    tally.messages.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

fn counted(result: Result<Committed, Error>, counter: &AtomicU64) -> Result<(), Error> {
    if let Committed::Accepted { .. } = result? {
        counter.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
