//! When a gateway orders through the cluster, waits, or carries on without a quorum. Pure: the time comes in with the signals.

use crate::content::GroupKind;

/// How a gateway serves a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// The cluster orders the group.
    Ordered,
    /// The quorum may be lost: nothing is decided either way.
    Suspect,
    /// No quorum: a DeMLS group carries on here. Answers are provisional.
    Forked,
    /// The quorum is back: branches are reported, and none grows.
    Reconciling,
}

/// What a client gets that submits now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Submit it to the cluster.
    Order,
    /// Accept it on a branch.
    Branch,
    /// Hold it for a moment; it will be one or the other.
    Wait,
    /// Refuse it with a hint when to try again. A group that did not choose DeMLS never forks.
    Unavailable,
}

/// How long to wait, in milliseconds of a monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeTimes {
    /// Suspicion that leads to a fork, from when the quorum was first missed. What passes until it is missed and this together are longer
    /// than an election takes.
    pub suspect_ms: u64,
    /// The quorum must have answered for this long before it is trusted again, so that a flapping link does not flap the mode.
    pub steady_ms: u64,
}

impl Default for ModeTimes {
    fn default() -> Self {
        ModeTimes { suspect_ms: 1500, steady_ms: 200 }
    }
}

/// What a gateway knows about a group at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signals {
    /// Monotonic milliseconds. Never earlier than in the call before.
    pub now_ms: u64,
    /// The group's shard has a quorum that this gateway reaches, directly or through another gateway.
    pub quorum: bool,
    /// The outcome of a submission is unknown.
    pub outcome_unknown: bool,
    /// The durable copy of the log reaches the position that this gateway promised not to fork below.
    pub view_covers_promise: bool,
    /// The tree holds entries that the log does not record yet. An ordered gateway that only heard of some reports them without
    /// leaving its mode.
    pub unrecorded: bool,
}

/// A change of the mode. An event for subscribers, and a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Before.
    pub from: Mode,
    /// After.
    pub to: Mode,
}

/// The mode of one group at one gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ModeMachine {
    kind: GroupKind,
    mode: Mode,
    /// When the quorum was first missed in this suspicion. Meaningful in `Suspect`, which may begin with nothing but an unknown outcome.
    missed_since_ms: Option<u64>,
    /// Since when the quorum has answered without a break.
    quorum_since_ms: Option<u64>,
}

impl ModeMachine {
    /// After a start nothing is known about the quorum: the group is suspect until it answers.
    pub fn new(kind: GroupKind, now_ms: u64) -> Self {
        ModeMachine { kind, mode: Mode::Suspect, missed_since_ms: Some(now_ms), quorum_since_ms: None }
    }

    /// The mode now.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What a submission gets now.
    pub fn service(&self) -> Service {
        match (self.mode, self.kind) {
            (Mode::Ordered, _) => Service::Order,
            (_, GroupKind::Mls | GroupKind::Dimls) => Service::Unavailable,
            (Mode::Forked, GroupKind::Demls) => Service::Branch,
            (Mode::Suspect | Mode::Reconciling, GroupKind::Demls) => Service::Wait,
        }
    }

    /// The gateway may acknowledge what it has read: it accepts nothing on a branch, and has nothing unreported.
    pub fn may_acknowledge(&self, signals: &Signals) -> bool {
        self.mode != Mode::Forked && !signals.unrecorded
    }

    /// Takes in what is known now. To be called whenever a signal changes, and at [`ModeMachine::next_ms`]. One call makes at most
    /// one transition, so call it until it makes none.
    pub fn observe(&mut self, signals: &Signals, times: &ModeTimes) -> Option<Transition> {
        self.quorum_since_ms = match (signals.quorum, self.quorum_since_ms) {
            (false, _) => None,
            (true, since) => since.or(Some(signals.now_ms)),
        };
        if self.mode == Mode::Suspect && !signals.quorum {
            self.missed_since_ms.get_or_insert(signals.now_ms);
        }
        let from = self.mode;
        let to = self.next_mode(signals, times);
        if to == from {
            return None;
        }
        if to == Mode::Suspect {
            self.missed_since_ms = (!signals.quorum).then_some(signals.now_ms);
        }
        self.mode = to;
        Some(Transition { from, to })
    }

    /// When time alone may change the mode.
    pub fn next_ms(&self, times: &ModeTimes) -> Option<u64> {
        let suspects =
            self.mode == Mode::Suspect && self.kind == GroupKind::Demls && self.quorum_since_ms.is_none();
        let fork =
            self.missed_since_ms.filter(|_| suspects).map(|since| since.saturating_add(times.suspect_ms));
        let trust = self
            .quorum_since_ms
            .filter(|_| matches!(self.mode, Mode::Suspect | Mode::Forked))
            .map(|since| since.saturating_add(times.steady_ms));
        fork.or(trust)
    }

    fn next_mode(&self, signals: &Signals, times: &ModeTimes) -> Mode {
        let steady =
            self.quorum_since_ms.is_some_and(|since| signals.now_ms.saturating_sub(since) >= times.steady_ms);
        let missed_for =
            |ms| self.missed_since_ms.is_some_and(|since| signals.now_ms.saturating_sub(since) >= ms);
        let may_fork = !signals.quorum && self.kind == GroupKind::Demls && signals.view_covers_promise;
        match self.mode {
            Mode::Ordered if !signals.quorum || signals.outcome_unknown => Mode::Suspect,
            Mode::Suspect if steady && signals.unrecorded => Mode::Reconciling,
            Mode::Suspect if steady && !signals.outcome_unknown => Mode::Ordered,
            Mode::Suspect if may_fork && missed_for(times.suspect_ms) => Mode::Forked,
            Mode::Forked if steady => Mode::Reconciling,
            // Not at once to a branch: a node that was silent for a moment would cost another round of reports.
            Mode::Reconciling if !signals.quorum => Mode::Suspect,
            Mode::Reconciling if !signals.unrecorded => Mode::Ordered,
            mode => mode,
        }
    }
}
