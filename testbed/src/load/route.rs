//! The two ways of a submission: straight to the cluster, or through a gateway.

use bytes::Bytes;
use concordat_proto::{
    gateway::v1::{CreateGroupRequest, SubmitRequest, gateway_client::GatewayClient, submit_response},
    log::v1::{self as log, Reason},
    ordering::v1::outcome::Outcome,
};
use group_log::{Accepted, Content, Entry, Submission};
use prost::Message;
use service_kit::{channel::Channel, status::reason};
use tonic::{Request, Status};

use crate::{
    cluster::Dialer,
    history::Answer,
    limits::ANSWER_DEADLINE,
    ordering::{Attempt, OrderingClient, group_command},
    raw::name_client,
};

/// How a client submits.
pub(super) enum Route {
    /// The ordering API of the leader of the group's shard.
    Ordering { client: OrderingClient, shard: u32 },
    /// The public API of one gateway; of the next one after every failure.
    Gateway(GatewayRoute),
}

pub(super) struct GatewayRoute {
    dialer: Dialer,
    addresses: Vec<String>,
    turn: usize,
    channel: Channel,
}

impl GatewayRoute {
    pub(super) fn new(dialer: Dialer, addresses: Vec<String>, turn: usize) -> Self {
        let channel = dialer.channel(&addresses[turn % addresses.len()]);
        Self { dialer, addresses, turn, channel }
    }

    fn next_gateway(&mut self) {
        self.turn += 1;
        self.channel = self.dialer.channel(&self.addresses[self.turn % self.addresses.len()]);
    }
}

impl Route {
    /// One attempt. Nothing if nothing was proposed.
    pub(super) async fn attempt(&mut self, submission: &Submission) -> Option<Answer> {
        match self {
            Self::Ordering { client, shard } => {
                let command = group_command(submission.clone()).encode_to_vec();
                match client.attempt(*shard, command.into()).await {
                    Attempt::Lost => Some(Answer::Unknown),
                    Attempt::Answered(outcome) => ordering_answer(outcome),
                }
            }
            Self::Gateway(gateway) => {
                let answer = match submit(&gateway.channel, submission).await {
                    Ok(outcome) => gateway_answer(outcome),
                    Err(status) => gateway_refusal(&status),
                };
                if answer == Answer::Unknown {
                    gateway.next_gateway();
                }
                Some(answer)
            }
        }
    }
}

async fn submit(channel: &Channel, submission: &Submission) -> Result<submit_response::Outcome, Status> {
    let mut client = GatewayClient::new(channel.clone());
    let message = match &submission.content {
        Content::Create(create) => {
            let request = CreateGroupRequest {
                group_info: create.group_info.clone(),
                kind: log::GroupKind::from(create.kind).into(),
                policy: Some(create.policy.into()),
            };
            let created = client.create_group(named(submission, request)).await?.into_inner();
            let accepted = created.accepted.ok_or_else(|| Status::data_loss("a create without an answer"))?;
            return Ok(submit_response::Outcome::Accepted(accepted));
        }
        Content::Commit(commit) => commit.message.clone(),
        Content::Proposal { message } | Content::Application { message } => message.clone(),
        Content::PolicyChange { .. } | Content::Close => panic!("the load submits neither"),
    };
    let parent_state_id = submission.parent_state_id.map_or(Bytes::new(), |state| state.to_bytes());
    let request = SubmitRequest { message, parent_state_id, ..SubmitRequest::default() };
    let answer = client.submit(named(submission, request)).await?.into_inner();
    answer.outcome.ok_or_else(|| Status::data_loss("a submission without an answer"))
}

fn named<T>(submission: &Submission, message: T) -> Request<T> {
    let mut request = Request::new(message);
    name_client(request.metadata_mut(), submission.author.as_bytes());
    request.set_timeout(ANSWER_DEADLINE);
    request
}

fn gateway_answer(outcome: submit_response::Outcome) -> Answer {
    match outcome {
        submit_response::Outcome::Accepted(it) => accepted(it),
        submit_response::Outcome::Superseded(it) => superseded(it),
        other => panic!("a group of kind mls got {other:?}"),
    }
}

fn gateway_refusal(status: &Status) -> Answer {
    match reason(status) {
        Some(reason)
            if !["NO_QUORUM", "OUTCOME_UNKNOWN", "OVERLOADED", "STORAGE"].contains(&reason.as_str()) =>
        {
            Answer::Refused { reason }
        }
        // Whether anything was proposed nobody knows.
        _ => Answer::Unknown,
    }
}

/// What an outcome says about a submission to a group; nothing if it was not even proposed.
fn ordering_answer(outcome: Outcome) -> Option<Answer> {
    Some(match outcome {
        Outcome::Accepted(it) => accepted(it),
        Outcome::Superseded(it) => superseded(it),
        Outcome::Refused(refused) => Answer::Refused {
            reason: Reason::try_from(refused.reason)
                .map_or("?", |reason| reason.as_str_name())
                .trim_start_matches("REASON_")
                .to_owned(),
        },
        Outcome::Unknown(_) => Answer::Unknown,
        Outcome::NotLeader(_) | Outcome::Overloaded(_) => return None,
        other => panic!("a submission to a group was answered with {other:?}"),
    })
}

fn accepted(accepted: log::Accepted) -> Answer {
    let Accepted { seq, epoch, state_id, chain } =
        accepted.try_into().unwrap_or_else(|error| panic!("an accepted answer is broken: {error}"));
    Answer::Accepted { seq, epoch, state_id, chain }
}

fn superseded(superseded: log::Superseded) -> Answer {
    match superseded.winner.map(Entry::try_from) {
        Some(Ok(winner)) => Answer::Superseded { winner: Box::new(winner) },
        other => panic!("a superseded answer has no usable winner: {other:?}"),
    }
}
