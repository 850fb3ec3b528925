//! Takes submissions of all streams: decides what can be decided here and now, and proposes the rest.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, OnceLock, Weak},
};

use concordat_proto::{
    log::v1::{Reason, Refused, content::Content},
    ordering::v1::{
        Command, GroupSubmission, Outcome, Submission, command::Command as Kind, outcome::Outcome as Answer,
    },
};
use prost::Message;
use tokio::{sync::mpsc, time::Instant};

use super::{
    outbox::{NodeLoad, NotTaken, Outbox},
    outcome::{answer, no_cluster, overloaded, unknown},
    races::{Entered, Race, Races, Waiting},
    rounds::{Proposal, Rounds, Sink},
};
use crate::{
    error::{malformed, refused, too_large},
    limits,
    node::Node,
    raft::{
        shard::SharedShard,
        shards::Shards,
        types::{DIRECTORY, Proposed, ShardId},
    },
};

/// Takes submissions.
pub struct Desk {
    node: Arc<Node>,
    load: Arc<NodeLoad>,
    races: Arc<Races>,
    /// By shard, once the node belongs to a cluster.
    rounds: OnceLock<Vec<Arc<Rounds>>>,
}

impl Desk {
    /// A node's desk, and the task that decides what had to wait.
    pub(crate) fn open(node: Arc<Node>) -> Arc<Self> {
        let (races, waited) = Races::new();
        let desk = Arc::new(Self { node, load: Arc::default(), races, rounds: OnceLock::new() });
        tokio::spawn(decide_again(Arc::downgrade(&desk), waited));
        desk
    }

    /// The node.
    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// For a new stream.
    pub(crate) fn outbox(&self) -> Arc<Outbox> {
        Outbox::new(self.load.clone(), self.node.metrics.clone())
    }

    /// Writes the load into the metrics.
    pub(crate) fn record_load(&self) {
        let (submissions, bytes) = self.load.now();
        self.node.metrics.under_way.set(submissions as f64);
        self.node.metrics.bytes_under_way.set(bytes as f64);
        self.node.metrics.waiting.set(self.races.waiting() as f64);
    }

    /// Why nothing can be taken now, if so: the disk is full, or the storage failed.
    pub(crate) fn closed(&self) -> Option<Outcome> {
        let error = self.node.storage.writable().err()?;
        Some(overloaded(&format!("this node can not write: {error}")))
    }

    /// Takes one submission. It is answered through `outbox`, now or later.
    ///
    /// # Errors
    /// An id that another submission under way has: the stream can not go on, because answers would be ambiguous.
    pub(crate) async fn take(
        &self,
        outbox: &Arc<Outbox>,
        submission: Submission,
        now: Instant,
    ) -> Result<(), Refused> {
        let Submission { id, shard, command } = submission;
        if command.len() > limits::COMMAND_BYTES {
            let refusal = too_large("a command", limits::COMMAND_BYTES, command.len());
            outbox.refuse(id, answer(Answer::Refused(refusal)));
            return Ok(());
        }
        match outbox.begin(id, command.len(), now) {
            Ok(token) => self.decide(Waiting { outbox: outbox.clone(), token, shard, command }).await,
            Err(NotTaken::Full(message)) => outbox.refuse(id, overloaded(message)),
            Err(NotTaken::DuplicateId) => {
                return Err(malformed("the id of a submission", "unique among those not answered yet", id));
            }
        }
        Ok(())
    }

    /// Answers a submission from what is applied here, lets it wait, or proposes it.
    async fn decide(&self, submission: Waiting) {
        let outcome = match self.look_at(&submission) {
            Look::Propose(shard) => {
                let sink = submission.outbox.clone();
                return self.propose(shard, submission, sink).await;
            }
            Look::Competes(shard, race) => match self.races.enter(race, submission) {
                Entered::First(sink, submission) => return self.propose(shard, submission, sink).await,
                Entered::Waits => return,
                Entered::Full(submission) => {
                    let full = overloaded("too many commits wait for the same epoch of one group");
                    return submission.outbox.answer(submission.token, full);
                }
            },
            Look::Decided(outcome) => *outcome,
        };
        submission.outbox.answer(submission.token, outcome);
    }

    /// Checks a command by itself and against what is applied here.
    fn look_at(&self, submission: &Waiting) -> Look<'_> {
        let Some(shards) = self.node.shards.get() else { return Look::decided(no_cluster()) };
        let command = match Command::decode(submission.command.clone()) {
            Ok(Command { command: Some(command) }) => command,
            Ok(Command { command: None }) => {
                let message = "this server does not know the command: update it, or submit one that it knows";
                return Look::refuse(refused(Reason::UnknownCommand, message));
            }
            Err(error) => {
                return Look::refuse(malformed("a command", "an encoded ordering.v1.Command", error));
            }
        };
        if let Kind::CloseCollection(_)
        | Kind::EvictGateway(_)
        | Kind::NoteGateways(_)
        | Kind::PruneGroup(_) = &command
        {
            let message = "only nodes of the cluster give this command: use the API for operators instead";
            return Look::refuse(refused(Reason::PermissionDenied, message));
        }
        let shard = match shard_for(shards, submission.shard, &command) {
            Ok(shard) => shard,
            Err(refusal) => return Look::refuse(refusal),
        };
        if let Kind::AssignGroup(assign) = &command
            && !(1..=shards.data_shards()).contains(&assign.shard)
        {
            // The first assignment of a group id is for good.
            let expected = format!("1 to {}", shards.data_shards());
            return Look::refuse(malformed("the shard of a new group", &expected, assign.shard));
        }
        let Kind::Group(group) = command else { return Look::Propose(shard) };
        if !is_commit(&group) {
            return Look::Propose(shard);
        }
        match shard.reader().decided(&group, self.node.clock.now_ms()) {
            Ok(Some(outcome)) => Look::decided(outcome),
            Ok(None) => {
                let (group_id, epoch) = (group.group_id, group.epoch);
                Look::Competes(shard, Race { shard: shard.id(), group_id, epoch })
            }
            Err(error) => Look::decided(unknown(error)),
        }
    }

    async fn propose(&self, shard: &SharedShard, submission: Waiting, sink: Sink) {
        let proposed = Proposed { at_ms: self.node.clock.now_ms(), command: submission.command };
        let proposal = Proposal { proposed, sink, token: submission.token };
        match self.rounds(shard) {
            Some(rounds) => rounds.propose(proposal).await,
            None => proposal.sink.abandoned(proposal.token),
        }
    }

    fn rounds(&self, shard: &SharedShard) -> Option<&Arc<Rounds>> {
        let shards = self.node.shards.get()?;
        let rounds = self.rounds.get_or_init(|| shards.iter().cloned().map(Rounds::new).collect());
        rounds.get(usize::try_from(shard.id()).ok()?)
    }
}

async fn decide_again(desk: Weak<Desk>, mut waited: mpsc::UnboundedReceiver<VecDeque<Waiting>>) {
    while let Some(waited) = waited.recv().await {
        let Some(desk) = desk.upgrade() else { return };
        for submission in waited {
            if !submission.outbox.is_closed() {
                desk.decide(submission).await;
            }
        }
    }
}

/// What a submission needs.
enum Look<'a> {
    Decided(Box<Outcome>),
    Propose(&'a SharedShard),
    Competes(&'a SharedShard, Race),
}

impl Look<'_> {
    fn decided(outcome: Outcome) -> Self {
        Self::Decided(Box::new(outcome))
    }

    fn refuse(refusal: Refused) -> Self {
        Self::decided(answer(Answer::Refused(refusal)))
    }
}

fn is_commit(group: &GroupSubmission) -> bool {
    matches!(group.content.as_ref().and_then(|c| c.content.as_ref()), Some(Content::Commit(_)))
}

/// Commands of the directory belong to shard 0, all others to a data shard.
fn shard_for<'a>(shards: &'a Shards, shard: ShardId, command: &Kind) -> Result<&'a SharedShard, Refused> {
    let of_directory =
        matches!(command, Kind::AssignGroup(_) | Kind::UploadKeyPackages(_) | Kind::ClaimKeyPackage(_));
    if of_directory == (shard == DIRECTORY)
        && let Some(shard) = shards.get(shard)
    {
        return Ok(shard);
    }
    let expected = if of_directory { "0".to_owned() } else { format!("1 to {}", shards.data_shards()) };
    let message = format!(
        "this command belongs to shard {expected}, but came for shard {shard}: locate the group first"
    );
    let mut refusal = refused(Reason::WrongShard, message);
    refusal.metadata = HashMap::from([("expected".into(), expected), ("got".into(), shard.to_string())]);
    Err(refusal)
}
