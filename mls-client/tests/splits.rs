//! Random splits of a network with real clients in it: splits within splits, crashes, lost gateways, delayed and doubled relay messages,
//! lost answers. In the end the network heals, and all that was promised must hold. `CONCORDAT_SEED` replays one run, and
//! `CONCORDAT_SEEDS` makes so many.

#![allow(clippy::unwrap_used)] // A panic is the report.

mod support;

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use mls_client::{
    Client, DEFAULT_CIPHERSUITE, Error, EventKind, GroupId, GroupKind, Identity, NewGroup, Options, Place,
    Randomness, Status, Store,
};
use support::{
    QUIET, id, impatient,
    net::{Net, NetTransport},
    seed,
};

const SITES: usize = 3;
const FOUNDERS: [&str; 4] = ["ann", "bob", "cy", "dan"];
/// Invited in the course of a run, each once: nobody who was removed is invited again.
const GUESTS: [&str; 3] = ["eve", "fay", "gus"];
const PHASES: u64 = 5;
const STEPS: u64 = 7;
const SEEDS: u64 = 24;

struct Member {
    name: &'static str,
    client: Client,
    transport: Arc<NetTransport>,
}

struct Run {
    seed: u64,
    rng: Randomness,
    net: Net,
    folder: tempfile::TempDir,
    group: GroupId,
    members: Vec<Member>,
    guests: Vec<&'static str>,
    said: u64,
}

fn open(net: &Net, folder: &Path, name: &'static str, site: usize) -> Member {
    let mut store = Store::open(&folder.join(name)).unwrap();
    if Identity::load(&store).unwrap().is_none() {
        Identity::create(&mut store, id(name), DEFAULT_CIPHERSUITE).unwrap();
    }
    let transport = Arc::new(NetTransport::new(net, site, id(name)));
    let options =
        Options { patience: Duration::ZERO, max_commit_attempts: 8, one_time_key_packages: 6, ..impatient() };
    let client = Client::new(store, transport.clone(), options, net.rng.fork()).unwrap();
    Member { name, client, transport }
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
            | Error::RemovalsFirst
            | Error::Call(_)
    )
}

impl Run {
    async fn new(seed: u64) -> Run {
        let rng = Randomness::from_seed(seed);
        let (net, folder) = (Net::new(SITES, rng.fork()), tempfile::tempdir().unwrap());
        if rng.below(2) == 0 {
            net.welcome_on_branches();
        }
        let mut members = Vec::new();
        for (n, name) in FOUNDERS.into_iter().chain(GUESTS).enumerate() {
            let member = open(&net, folder.path(), name, n % SITES);
            member.client.publish_key_packages().await.unwrap();
            members.push(member);
        }
        let new = NewGroup { kind: GroupKind::Demls, ..NewGroup::default() };
        let group = members[0].client.create_group(new).await.unwrap();
        let founders: Vec<_> = FOUNDERS[1..].iter().map(|name| id(name)).collect();
        members[0].client.invite(&group, &founders).await.unwrap();
        for member in &members[1..FOUNDERS.len()] {
            member.client.join_waiting(QUIET).await.unwrap();
        }
        net.pass(8);
        Run { seed, rng, net, folder, group, members, guests: GUESTS.to_vec(), said: 0 }
    }

    /// The network is cut in another way, or comes together a little.
    fn cut(&mut self) {
        let component: Vec<u8> = (0..SITES).map(|_| self.rng.below(SITES as u64) as u8).collect();
        let quorum = match self.rng.below(3) {
            0 => Some(component[self.rng.below(SITES as u64) as usize]),
            _ => None,
        };
        self.net.disorder(self.rng.below(60));
        self.net.split(&component, quorum);
    }

    async fn step(&mut self) {
        let at = self.rng.below(self.members.len() as u64) as usize;
        let target = FOUNDERS[self.rng.below(FOUNDERS.len() as u64) as usize];
        let draw = self.rng.below(100);
        self.said += 1;
        let text = format!("{} by {}", self.said, self.members[at].name);
        let guest = (78..84).contains(&draw).then(|| self.guests.pop()).flatten();
        let crash = if self.rng.below(8) == 0 { self.rng.below(6) as i64 } else { -1 };
        let member = &self.members[at];
        let (client, group) = (&member.client, &self.group);
        member.transport.crash_in.store(crash, SeqCst);
        member.transport.faults.store(if draw.is_multiple_of(3) { 12 } else { 0 }, SeqCst);
        let crashed = Arc::clone(&member.transport.crashed);
        let act = async {
            match (draw, guest) {
                (0..34, _) => client.send(group, text).await.map(drop),
                (34..58, _) => client.update(group).await.map(drop),
                (58..74, _) => client.sync(group).await.map(drop),
                (74..78, _) => client.remove(group, &[id(target)]).await.map(drop),
                (_, Some(guest)) => client.invite(group, &[id(guest)]).await.map(drop),
                (84..92, _) => client.join_waiting(QUIET).await.map(drop),
                (92..95, _) => client.resume(group).await,
                _ => client.flush(group).await,
            }
        };
        let died = tokio::select! {
            biased;
            outcome = act => {
                if let Err(error) = outcome {
                    assert!(is_fair(&error), "seed {}: {} {draw}: {error:?}", self.seed, member.name);
                }
                false
            }
            () = crashed.notified() => true,
        };
        member.transport.crash_in.store(-1, SeqCst);
        member.transport.faults.store(0, SeqCst);
        if died {
            self.restart(at);
        }
        if self.rng.below(3) == 0 {
            self.net.pass(1);
        }
    }

    /// A client starts again from its file, perhaps at another gateway.
    fn restart(&mut self, at: usize) {
        let Member { name, client, transport } = self.members.remove(at);
        let mut site = transport.site.load(SeqCst);
        if self.net.is_lost(site) || self.rng.below(4) == 0 {
            let alive: Vec<_> = (0..SITES).filter(|site| !self.net.is_lost(*site)).collect();
            site = alive[self.rng.below(alive.len() as u64) as usize];
        }
        drop((client, transport));
        self.members.insert(at, open(&self.net, self.folder.path(), name, site));
    }

    /// Everything that was cut is whole again, everybody starts again and finishes what was begun, until all is quiet.
    async fn heal(&mut self) {
        for at in 0..self.members.len() {
            self.restart(at);
        }
        self.net.connect();
        self.net.disorder(0);
        for round in 0..10 {
            if round == 2 {
                // Whoever holds what a lost gateway had has brought it by now.
                self.net.evict_lost();
            }
            self.net.pass(if round < 2 { 4 } else { 16 });
            for member in &self.members {
                self.finish(member).await;
            }
        }
        self.net.pass(24);
        for member in &self.members {
            self.finish(member).await;
        }
    }

    async fn finish(&self, member: &Member) {
        let mut events = member.client.events();
        for outcome in [
            member.client.join_waiting(QUIET).await.map(drop),
            member.client.sync(&self.group).await.map(drop),
            member.client.resume(&self.group).await,
            member.client.flush(&self.group).await,
        ] {
            if let Err(error) = outcome {
                assert!(is_fair(&error), "seed {}: {}: {error:?}", self.seed, member.name);
            }
        }
        while let Ok(event) = events.try_recv() {
            let bad = matches!(
                event.kind,
                EventKind::MessageUnreadable { .. } | EventKind::Stuck { .. } | EventKind::LogRejected { .. }
            );
            assert!(!bad, "seed {}: {}: {event:?}", self.seed, member.name);
        }
    }

    fn check(&self) {
        let seed = self.seed;
        let members = self.net.check(&self.group);
        let views: Vec<_> = self
            .members
            .iter()
            .filter_map(|m| Some((m, m.client.group(&self.group).ok()?)))
            .filter(|(_, view)| view.status == Status::Active)
            .collect();
        let mut names: Vec<_> = views.iter().map(|(m, _)| m.name.as_bytes().to_vec()).collect();
        names.sort();
        assert_eq!(
            members,
            names,
            "seed {seed}: {:?}",
            self.members
                .iter()
                .map(|m| (m.name, m.client.group(&self.group).map(|v| v.status)))
                .collect::<Vec<_>>()
        );
        let accepted = self.net.accepted_messages(&self.group);
        for (member, view) in &views {
            let first = &views[0].1;
            assert_eq!(view.state_id, first.state_id, "seed {seed}: {} stands elsewhere", member.name);
            assert_eq!(view.epoch_authenticator, first.epoch_authenticator, "seed {seed}: {}", member.name);
            assert!(!view.provisional && !view.commit_pending, "seed {seed}: {} {view:?}", member.name);
            assert_eq!(view.retained_states, 1, "seed {seed}: {} keeps more than it needs", member.name);
            assert_eq!(view.outbox, 0, "seed {seed}: {}", member.name);
            let messages = member.client.messages(&self.group, 0, usize::MAX).unwrap();
            for message in &accepted {
                if !message.entitled.contains(&member.name.as_bytes().to_vec()) {
                    continue;
                }
                let expected = match message.side {
                    true => Place::Side { entry: message.id, seq: message.seq },
                    false => Place::Canonical { seq: message.seq },
                };
                let read = messages.iter().filter(|m| m.place == expected).count();
                assert_eq!(read, 1, "seed {seed}: {} has read {message:?} so many times", member.name);
            }
        }
    }
}

async fn run(seed: u64) -> (usize, usize, usize) {
    let mut run = Run::new(seed).await;
    for _ in 0..PHASES {
        run.cut();
        for _ in 0..STEPS {
            run.step().await;
        }
        if run.rng.below(12) == 0 && !(0..SITES).any(|site| run.net.is_lost(site)) {
            run.net.lose(run.rng.below(SITES as u64) as usize);
        }
        if run.rng.below(4) == 0 {
            let at = run.rng.below(run.members.len() as u64) as usize;
            run.restart(at);
        }
    }
    run.heal().await;
    run.check();
    run.net.marks(&run.group)
}

#[tokio::test]
async fn whatever_is_cut_comes_together_and_nothing_is_lost() {
    let first = seed(1);
    let number = |name| std::env::var(name).ok().map(|n| n.parse().expect("a number"));
    let replays = std::env::var_os("CONCORDAT_SEED").is_some();
    let seeds: u64 = number("CONCORDAT_SEEDS").unwrap_or(if replays { 1 } else { SEEDS });
    let (mut sides, mut stables) = (0, 0);
    for seed in first..first + seeds {
        println!("seed {seed}");
        let (side, _, stable) = run(seed).await;
        (sides, stables) = (sides + side, stables + stable);
    }
    // Otherwise the runs would prove little.
    assert!(seeds < SEEDS || (sides > 0 && stables > 0));
}
