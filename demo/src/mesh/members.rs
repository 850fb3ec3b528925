//! Twelve members, each with a state file of its own, at the gateways in turn.

use std::{
    collections::{BTreeMap, BTreeSet},
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
use service_kit::clock::{ManualClock, SharedClock, WallClock};
use tokio::{sync::mpsc, time::sleep};
use tokio_util::task::AbortOnDropHandle;

use crate::pace::{Pace, Patience, Watch};

/// How often a member asks its policy.
const PULSE: Duration = Duration::from_millis(250);
/// Between two messages of one member, in the members' time.
const PAUSE_MS: u64 = 700;
/// Between two looks at what is left to do.
const LOOK: Duration = Duration::from_millis(100);
/// Events that wait.
const EVENTS: usize = 10_000;

/// One member.
pub(crate) struct Member {
    pub(crate) id: ClientId,
    pub(crate) shared: Arc<Shared<Store>>,
    watch: Watch,
    /// Follows the DGroup for as long as it is held.
    at_work: Option<AbortOnDropHandle<()>>,
}

/// All of them.
pub(crate) struct Members {
    pub(crate) members: Vec<Member>,
    pub(crate) setup: Setup,
    clock: ManualClock,
    /// Moves the clock.
    pace: Option<AbortOnDropHandle<()>>,
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
        let clock = ManualClock::at_ms(0);
        let mut all = Members {
            members: Vec::new(),
            setup: setup.clone(),
            clock: clock.clone(),
            pace: None,
            said: BTreeMap::new(),
            delays: Arc::default(),
        };
        for (number, id) in ids.into_iter().enumerate() {
            let path: PathBuf = dir.join(format!("member-{:02}.state", number + 1));
            let mut store = Store::open(&path)?;
            let identity = Identity::create(&mut store, id.clone(), DEFAULT_CIPHERSUITE)?;
            let session = Session::create(store, identity, &setup, policy, clock.now_ms())?;
            let (shared, watch) = (Shared::new(session), Watch::of(&clock));
            all.members.push(Member { id, shared, watch, at_work: None });
            all.comes_back(number, gateways)?;
        }
        all.keep_pace();
        Ok(all)
    }

    /// Time passes as fast as those who are there take in what all of them send.
    fn keep_pace(&mut self) {
        let there = self.members.iter().filter(|member| member.at_work.is_some());
        let there: Vec<_> = there.map(|m| (m.id.clone(), Arc::clone(&m.shared), m.watch.clone())).collect();
        let others = there.clone();
        let made = move || -> BTreeMap<ClientId, u64> {
            others.iter().map(|(id, shared, _)| (id.clone(), shared.with(|session| session.made()))).collect()
        };
        let is_behind = move |made: &BTreeMap<ClientId, u64>, since: u64| {
            there.iter().any(|(_, shared, watch)| {
                let cursor = shared.with(|session| session.cursor());
                let lacks = |(owner, seq): &(ClientId, u64)| made.get(owner).is_some_and(|made| seq < made);
                watch.read_ms() < since || cursor.iter().any(lacks)
            })
        };
        let keeper = Pace::DEMO.keep(self.clock.clone(), made, is_behind);
        self.pace = Some(AbortOnDropHandle::new(tokio::spawn(keeper)));
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
        let shared = Arc::clone(&member.shared);
        let clock: SharedClock = Arc::new(member.watch.clone());
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

    /// The member is not there any more, but keeps its state. Nobody waits for it.
    pub(crate) fn stays_away(&mut self, number: usize) {
        self.members[number].at_work = None;
        self.keep_pace();
    }

    /// Waits until nothing is `left`, for as long as anything moves.
    pub(crate) async fn wait(&self, what: &str, left: impl Fn(&Members) -> usize) -> anyhow::Result<()> {
        let mut patience = Patience::new();
        loop {
            let left = left(self);
            if left == 0 {
                return Ok(());
            }
            patience.look(left, self.progress(), self.clock.now_ms()).with_context(|| {
                format!("it did not come to this: {what}; {left} left; {}", self.what_is_left())
            })?;
            sleep(LOOK).await;
        }
    }

    /// Changes with everything that a member makes or takes in.
    fn progress(&self) -> u64 {
        let of = |member: &Member| {
            member
                .shared
                .with(|session| session.made() + session.cursor().iter().map(|(_, seq)| seq).sum::<u64>())
        };
        self.members.iter().map(of).sum()
    }

    /// Pairs of which the one is not in the other's Send Group, or does not follow it.
    pub(crate) fn apart(&self) -> usize {
        let of = |member: &Member| {
            let view = member.shared.with(|session| session.view());
            view.peers.iter().filter(|peer| !peer.in_own_group || peer.entered.is_none() || peer.lost).count()
        };
        self.members.iter().map(of).sum()
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
        away: usize,
        mut beside: impl FnMut(usize),
    ) -> anyhow::Result<()> {
        let end = self.clock.now_ms() + time.as_millis() as u64;
        let mut patience = Patience::new();
        let mut round = 0;
        loop {
            let (now, left) = (self.clock.now_ms(), self.not_removed(away));
            if now >= end && left == 0 {
                return Ok(());
            }
            patience.look(left, self.progress(), now).context("the absent member is not removed by all")?;
            // In the members' time, so that on a slow machine they do not say more than it can carry.
            if now < round as u64 * PAUSE_MS + (end - time.as_millis() as u64) {
                sleep(LOOK).await;
                continue;
            }
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
        }
    }

    /// Another policy for everybody.
    pub(crate) fn policy(&self, policy: Policy) -> anyhow::Result<()> {
        for member in &self.members {
            member.shared.with(|session| session.set_policy(policy))?;
        }
        Ok(())
    }

    /// Pairs of those that are there of which the one cannot read what the other says.
    pub(crate) fn lost(&self, away: usize) -> usize {
        let gone = &self.members[away].id;
        let of = |member: &Member| {
            let view = member.shared.with(|session| session.view());
            view.peers.iter().filter(|p| p.client != *gone && (p.lost || !p.in_own_group)).count()
        };
        self.present(away).map(of).sum()
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

    /// Those that have not removed the absent member.
    pub(crate) fn not_removed(&self, away: usize) -> usize {
        let gone = &self.members[away].id;
        let has_it = |member: &&Member| {
            let view = member.shared.with(|session| session.view());
            view.peers.iter().any(|peer| peer.client == *gone && peer.in_own_group)
        };
        self.present(away).filter(has_it).count()
    }

    pub(crate) fn knows_it_is_out(&self, away: usize) -> bool {
        self.members[away].shared.with(|session| session.view().removed_by.is_some())
    }

    /// What a member has read: the text of every message, from its state file.
    pub(crate) fn read(&self, member: &Member) -> Vec<(ClientId, Vec<u8>)> {
        let messages = member.shared.with(|session| session.messages(0, usize::MAX)).unwrap_or_default();
        messages.into_iter().map(|message| (message.sender, message.body)).collect()
    }

    /// Messages of others that those who are there have not read, and readings too many.
    pub(crate) fn misread(&self, away: usize) -> usize {
        self.present(away).map(|member| self.missing(member) + self.surplus(member)).sum()
    }

    /// Messages of others that a member has not read.
    pub(crate) fn missing(&self, member: &Member) -> usize {
        let read: BTreeSet<(ClientId, Vec<u8>)> = self.read(member).into_iter().collect();
        let foreign = self.said.iter().filter(|(_, (who, _))| *who != member.id);
        foreign.filter(|(text, (who, _))| !read.contains(&(who.clone(), (*text).clone()))).count()
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
}
