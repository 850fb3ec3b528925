//! Twelve members, each with a state file of its own, at the gateways in turn.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use mls_client::{
    ClientId, DEFAULT_CIPHERSUITE, Identity, Security, Store,
    dimls::{
        DgroupId, Event, Policy, Session, Setup,
        follow::{Shared, follow},
        remote::Remote,
    },
};
use service_kit::clock::{SharedClock, SystemClock};
use tokio::{sync::mpsc, time::sleep};
use tokio_util::task::AbortOnDropHandle;

/// How often a member asks its policy.
const PULSE: Duration = Duration::from_millis(250);
/// Between two messages of one member.
const PAUSE: Duration = Duration::from_millis(700);
/// Events that wait.
const EVENTS: usize = 10_000;

/// One member.
pub(crate) struct Member {
    pub(crate) id: ClientId,
    pub(crate) shared: Arc<Shared<Store>>,
    /// Follows the DGroup for as long as it is held.
    at_work: Option<AbortOnDropHandle<()>>,
}

/// All of them.
pub(crate) struct Members {
    pub(crate) members: Vec<Member>,
    pub(crate) setup: Setup,
    clock: SharedClock,
    /// Every message: who said it and when, by its text.
    pub(crate) said: BTreeMap<Vec<u8>, (ClientId, Instant)>,
    /// What all of them were told.
    pub(crate) delays: Arc<std::sync::Mutex<Heard>>,
}

/// What the members heard.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// When each member read each message.
    pub(crate) read: Vec<(ClientId, Vec<u8>, Instant)>,
    pub(crate) rejected: Vec<String>,
    pub(crate) lost: Vec<(ClientId, ClientId)>,
    pub(crate) waited: usize,
}

impl Members {
    pub(crate) fn start(
        count: usize,
        gateways: &[String],
        dir: &Path,
        policy: Policy,
    ) -> anyhow::Result<Members> {
        let ids =
            (1..=count).map(|n| ClientId::new(format!("member-{n:02}"))).collect::<Result<Vec<_>, _>>()?;
        let nonce = rand::random();
        let setup = Setup::new(nonce, ids.clone(), [u16::from(DEFAULT_CIPHERSUITE)], 32)?;
        let clock = SystemClock::shared();
        let mut all = Members {
            members: Vec::new(),
            setup: setup.clone(),
            clock: Arc::clone(&clock),
            said: BTreeMap::new(),
            delays: Arc::default(),
        };
        for (number, id) in ids.into_iter().enumerate() {
            let path: PathBuf = dir.join(format!("member-{:02}.state", number + 1));
            let mut store = Store::open(&path)?;
            let identity = Identity::create(&mut store, id.clone(), DEFAULT_CIPHERSUITE)?;
            let session = Session::create(store, identity, &setup, policy, clock.now_ms())?;
            all.members.push(Member { id, shared: Shared::new(session), at_work: None });
            all.comes_back(number, gateways)?;
        }
        Ok(all)
    }

    pub(crate) fn name(&self, number: usize) -> String {
        String::from_utf8_lossy(self.members[number].id.as_bytes()).into_owned()
    }

    pub(crate) fn id(&self) -> DgroupId {
        self.setup.id()
    }

    /// The member follows the DGroup at its gateway.
    pub(crate) fn comes_back(&mut self, number: usize, gateways: &[String]) -> anyhow::Result<()> {
        let member = &mut self.members[number];
        let remote = Remote::new(&gateways[number % gateways.len()], &member.id, &Security::default())?;
        let (events, mut told) = mpsc::channel(EVENTS);
        let (heard, id) = (Arc::clone(&self.delays), member.id.clone());
        let name = id.clone();
        let (shared, clock) = (Arc::clone(&member.shared), Arc::clone(&self.clock));
        member.at_work = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let listen = async {
                while let Some(event) = told.recv().await {
                    let mut heard = heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    match event {
                        Event::Message(m) => heard.read.push((id.clone(), m.body, Instant::now())),
                        Event::Rejected { owner, seq, reason } => {
                            heard.rejected.push(format!("{id:?}: item {seq} of {owner:?}: {reason}"));
                        }
                        Event::Lost { owner } => heard.lost.push((id.clone(), owner)),
                        Event::Waiting { .. } => heard.waited += 1,
                        Event::Entered { .. } | Event::Removed { .. } => {}
                    }
                }
            };
            let (followed, ()) = tokio::join!(follow(shared, remote, clock, PULSE, events), listen);
            if let Err(error) = followed {
                eprintln!("demo-mesh: {name:?} cannot go on: {error}");
            }
        })));
        Ok(())
    }

    /// The member is not there any more, but keeps its state.
    pub(crate) fn stays_away(&mut self, number: usize) {
        self.members[number].at_work = None;
    }

    /// Waits until something holds.
    pub(crate) async fn wait(
        &self,
        what: &str,
        patience: Duration,
        holds: impl Fn(&Members) -> bool,
    ) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !holds(self) {
            anyhow::ensure!(
                begun.elapsed() < patience,
                "it did not come to this in {patience:?}: {what}; {}",
                self.what_is_left()
            );
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    pub(crate) fn complete(&self) -> bool {
        self.members.iter().all(|member| {
            member.shared.with(|session| {
                session
                    .view()
                    .peers
                    .iter()
                    .all(|peer| peer.in_own_group && peer.entered.is_some() && !peer.lost)
            })
        })
    }

    /// What the members lack, and what they were told.
    fn what_is_left(&self) -> String {
        let (mut outside, mut lost, mut waiting, mut removed) = (0, 0, 0, 0);
        for member in &self.members {
            let view = member.shared.with(|session| session.view());
            outside += view.peers.iter().filter(|peer| !peer.in_own_group || peer.entered.is_none()).count();
            lost += view.peers.iter().filter(|peer| peer.lost).count();
            waiting += view.peers.iter().filter(|peer| peer.waiting > 0).count();
            removed += self.members.len() - view.members.len();
        }
        let heard = self.delays.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let rejected = heard.rejected.iter().take(20).cloned().collect::<Vec<_>>().join("; ");
        format!(
            "{outside} pairs outside, {lost} lost, {waiting} waiting, {removed} removed; {} rejected: {rejected}",
            heard.rejected.len()
        )
    }

    fn present(&self, away: usize) -> impl Iterator<Item = &Member> {
        self.members.iter().enumerate().filter(move |(number, _)| *number != away).map(|(_, member)| member)
    }

    fn say(&mut self, number: usize, text: String) -> anyhow::Result<()> {
        let member = &self.members[number];
        self.said.insert(text.clone().into_bytes(), (member.id.clone(), Instant::now()));
        member.shared.with(|session| session.protect(text.as_bytes())).context("saying something")?;
        Ok(())
    }

    /// All but one say something now and then, and update their keys in turn, until that one is removed by all, and for some `time` at
    /// least. `beside` is called in every round.
    pub(crate) async fn talk(
        &mut self,
        time: Duration,
        patience: Duration,
        away: usize,
        mut beside: impl FnMut(usize),
    ) -> anyhow::Result<()> {
        let begun = Instant::now();
        let mut round = 0;
        while begun.elapsed() < time || !self.all_removed(away) {
            anyhow::ensure!(begun.elapsed() < patience, "the absent member is not removed in {patience:?}");
            for number in (0..self.members.len()).filter(|number| *number != away) {
                self.say(number, format!("message {round} of {}", self.name(number)))?;
            }
            let updater = round % self.members.len();
            if updater != away {
                let now = self.clock.now_ms();
                self.members[updater].shared.with(|session| session.update(now))?;
            }
            beside(round);
            round += 1;
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Another policy for everybody.
    pub(crate) fn policy(&self, policy: Policy) -> anyhow::Result<()> {
        for member in &self.members {
            member.shared.with(|session| session.set_policy(policy))?;
        }
        Ok(())
    }

    /// Whether all that are there can read what all others that are there say.
    pub(crate) fn nobody_lost(&self, away: usize) -> bool {
        let gone = &self.members[away].id;
        let reads = |member: &Member| {
            member.shared.with(|session| {
                session
                    .view()
                    .peers
                    .iter()
                    .all(|peer| peer.client == *gone || (!peer.lost && peer.in_own_group))
            })
        };
        self.present(away).all(reads)
    }

    pub(crate) fn say_last_words(&mut self, away: usize) -> anyhow::Result<()> {
        (0..self.members.len())
            .filter(|number| *number != away)
            .collect::<Vec<_>>()
            .into_iter()
            .try_for_each(|number| self.say(number, format!("after the removal, from {}", self.name(number))))
    }

    pub(crate) fn update_all(&self, away: usize) -> anyhow::Result<()> {
        let now = self.clock.now_ms();
        for member in self.present(away) {
            member.shared.with(|session| session.update(now))?;
        }
        Ok(())
    }

    pub(crate) fn all_removed(&self, away: usize) -> bool {
        let gone = &self.members[away].id;
        self.present(away).all(|member| {
            member.shared.with(|session| {
                session.view().peers.iter().all(|peer| peer.client != *gone || !peer.in_own_group)
            })
        })
    }

    pub(crate) fn knows_it_is_out(&self, away: usize) -> bool {
        self.members[away].shared.with(|session| session.view().removed_by.is_some())
    }

    /// What a member has read: the text of every message, from its state file.
    pub(crate) fn read(&self, member: &Member) -> Vec<(ClientId, Vec<u8>)> {
        let messages = member.shared.with(|session| session.messages(0, usize::MAX)).unwrap_or_default();
        messages.into_iter().map(|message| (message.sender, message.body)).collect()
    }

    /// Whether every member has read every message of the others exactly once.
    pub(crate) fn all_read(&self, away: usize) -> bool {
        self.present(away).all(|member| self.missing(member) == 0 && self.surplus(member) == 0)
    }

    /// Messages of others that a member has not read.
    pub(crate) fn missing(&self, member: &Member) -> usize {
        let read = self.read(member);
        let is_read =
            |text: &Vec<u8>, who: &ClientId| read.iter().any(|(sender, body)| sender == who && body == text);
        self.said.iter().filter(|(text, (who, _))| *who != member.id && !is_read(text, who)).count()
    }

    /// What a member has read beyond what was said to it once.
    pub(crate) fn surplus(&self, member: &Member) -> usize {
        let read = self.read(member);
        let foreign = self.said.values().filter(|(who, _)| *who != member.id).count();
        read.len().saturating_sub(foreign - self.missing(member))
    }

    /// Pairs in which the one has not taken in the other's latest UPDATE.
    pub(crate) fn stale_pairs(&self, away: usize) -> usize {
        let updates: Vec<_> = self
            .present(away)
            .map(|member| (member.id.clone(), member.shared.with(|session| session.own_update())))
            .collect();
        let stale = |by: &Member| {
            let taken = |of: &ClientId| by.shared.with(|session| session.taken(&by.id, of)).unwrap_or(0);
            updates.iter().filter(|(of, update)| *of != by.id && taken(of) < *update).count()
        };
        self.present(away).map(stale).sum()
    }

    pub(crate) fn all_taken_in(&self, away: usize) -> bool {
        self.stale_pairs(away) == 0
    }
}
