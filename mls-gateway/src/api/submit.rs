//! Submissions, one by one and in a stream, on the same path: read, validate, order.

use std::collections::HashMap;

use bytes::Bytes;
use concordat_proto::{
    gateway::v1::{
        SubmitRequest, SubmitResponse, SubmitStreamRequest, SubmitStreamResponse, submit_response::Outcome,
        submit_stream_response,
    },
    log::v1::{self as log, content::Content},
    ordering::v1::GroupSubmission,
};
use futures::{StreamExt, stream::FuturesUnordered};
use group_log::{ClientId, GroupId, limits::MAX_COMMIT_BYTES};
use prost::Message;
use service_kit::status::encode;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{Answers, Api, groups::submission};
use crate::{
    cluster::Final,
    error::GatewayError,
    limits::{STREAM_ANSWERS_MAX, STREAM_IN_FLIGHT_MAX},
    metrics,
    mls::{self, GroupInfoIn, Handshake, MessageIn, MessageKind, ParseError, Problem, Ticket},
};

/// A submission that was read and fits together.
pub(super) struct Parsed {
    pub(super) message: MessageIn,
    group_info: Option<GroupInfoIn>,
    welcome: Option<Vec<Vec<u8>>>,
    pub(super) submission: GroupSubmission,
    pub(super) author: ClientId,
}

impl Api {
    pub(super) async fn submit_one(
        &self,
        author: ClientId,
        request: SubmitRequest,
    ) -> Result<SubmitResponse, GatewayError> {
        self.submit_parsed(parse(author, request)?, None).await
    }

    /// Every submission of a stream on its own, except that those for one group are handed to the cluster in the order they came in.
    pub(super) fn submit_many(
        &self,
        author: ClientId,
        requests: Streaming<SubmitStreamRequest>,
    ) -> Answers<SubmitStreamResponse> {
        let (answers, answered) = mpsc::channel(STREAM_ANSWERS_MAX);
        tokio::spawn(self.clone().run_stream(author, requests, answers));
        Box::pin(ReceiverStream::new(answered))
    }

    async fn run_stream(
        self,
        author: ClientId,
        mut requests: Streaming<SubmitStreamRequest>,
        answers: mpsc::Sender<Result<SubmitStreamResponse, Status>>,
    ) {
        let mut in_flight = FuturesUnordered::new();
        let mut turns = Turns::default();
        let mut open = true;
        let stop = self.drain.begun();
        tokio::pin!(stop);
        while open || !in_flight.is_empty() {
            tokio::select! {
                Some(answer) = in_flight.next(), if !in_flight.is_empty() => {
                    if answers.send(Ok(answer)).await.is_err() {
                        return;
                    }
                }
                request = requests.message(), if open && in_flight.len() < STREAM_IN_FLIGHT_MAX => match request {
                    Ok(Some(SubmitStreamRequest { id, request })) => {
                        let parsed = parse(author.clone(), request.unwrap_or_default());
                        let turn = parsed.as_ref().ok().map(|p| turns.take(&p.message.group_id));
                        let api = &self;
                        in_flight.push(async move {
                            let result = match parsed {
                                Ok(parsed) => api.submit_parsed(parsed, turn).await,
                                Err(error) => Err(error),
                            };
                            answer(id, result)
                        });
                    }
                    Ok(None) => open = false,
                    Err(_) => return,
                },
                () = &mut stop, if open => {
                    // What is under way is still answered; what the client sends from now on is for another gateway.
                    open = false;
                    turns.stopping = true;
                }
                () = answers.closed() => return,
            }
        }
        if turns.stopping {
            let _ = answers.send(Err(GatewayError::Stopping.into())).await;
        }
    }

    async fn submit_parsed(
        &self,
        parsed: Parsed,
        turn: Option<Turn>,
    ) -> Result<SubmitResponse, GatewayError> {
        let kind = parsed.message.kind.name();
        let result = self.submit_in_turn(parsed, turn).await;
        metrics::submission(
            kind,
            match &result {
                Ok(SubmitResponse { outcome: Some(Outcome::Superseded(_)) }) => "superseded",
                Ok(SubmitResponse { outcome: Some(Outcome::AcceptedProvisional(_)) }) => "provisional",
                Ok(SubmitResponse { outcome: Some(Outcome::OnSide(_)) }) => "on_side",
                Ok(SubmitResponse { outcome: Some(Outcome::RemoveFirst(_)) }) => "remove_first",
                Ok(_) => "accepted",
                Err(GatewayError::Reconciling) => "reconciling",
                Err(GatewayError::NoQuorum | GatewayError::MayNotFork | GatewayError::Unreachable(_)) => {
                    "no_quorum"
                }
                Err(GatewayError::OutcomeUnknown) => "unknown",
                Err(GatewayError::Overloaded { .. } | GatewayError::Quota { .. }) => "overloaded",
                Err(_) => "refused",
            },
        );
        result
    }

    async fn submit_in_turn(
        &self,
        mut parsed: Parsed,
        turn: Option<Turn>,
    ) -> Result<SubmitResponse, GatewayError> {
        // First of all, so that a flood costs no more than being read.
        let bytes = parsed.submission.encoded_len();
        self.meter.client(&parsed.author, bytes)?;
        if self.is_for_demls(&parsed).await? {
            return self.submit_demls(parsed, turn).await;
        }
        let turn = match turn {
            Some(turn) => Some(turn.come().await),
            None => None,
        };
        let group_id = parsed.message.group_id.clone();
        // Before validation, which reads from a quorum, too.
        self.available(&group_id).await?;
        let leave = self.may_submit(&parsed).await?;
        // After that, so that only members use up the group's quota.
        let _under_way = self.meter.group(&group_id, bytes)?;
        let ticket = self.validate(&parsed).await?;
        parsed.submission.members_only |= ticket.as_ref().is_some_and(Ticket::changes_members_only);
        let author = parsed.author;
        self.is_own(&author, leave, ticket.as_ref())?;
        let ordering = self.order(parsed.submission, &group_id);
        tokio::pin!(ordering);
        // Polled once before the next in turn may start: by then this one is in the queue to its leader, if that is known.
        let first = futures::poll!(&mut ordering);
        drop(turn);
        let outcome = match first {
            std::task::Poll::Ready(outcome) => outcome,
            std::task::Poll::Pending => ordering.await,
        };
        self.may_learn(&group_id, &author, leave, &outcome).await?;
        match outcome? {
            Final::Accepted(accepted) => {
                if let Some(access) = &self.access {
                    access.advanced(&group_id, accepted.epoch);
                }
                if let Some(ticket) = ticket {
                    self.validator.accepted(ticket, &accepted).await;
                }
                self.fanout.expect(&group_id, accepted.seq);
                Ok(SubmitResponse { outcome: Some(Outcome::Accepted(accepted)) })
            }
            Final::Superseded(superseded) => {
                Ok(SubmitResponse { outcome: Some(Outcome::Superseded(*superseded)) })
            }
            _ => Err(GatewayError::Protocol("an outcome that does not belong to the command")),
        }
    }

    async fn validate(&self, parsed: &Parsed) -> Result<Option<Ticket>, GatewayError> {
        let Some(public) = &parsed.message.public else { return Ok(None) };
        let handshake = Handshake {
            group_id: &parsed.message.group_id,
            epoch: parsed.message.epoch,
            kind: parsed.message.kind,
            message: public,
            group_info: parsed.group_info.as_ref(),
            welcome: parsed.welcome.as_deref(),
        };
        self.validator.check(handshake).await
    }
}

fn parse(author: ClientId, request: SubmitRequest) -> Result<Parsed, GatewayError> {
    let SubmitRequest { message: bytes, welcome, group_info, recipients, parent_state_id, members_only } =
        request;
    if !matches!(parent_state_id.len(), 0 | 32) {
        return Err(GatewayError::bad_field("parent_state_id", "32 bytes or empty", parent_state_id.len()));
    }
    let message = mls::message(&bytes)?;
    let mut parsed_info = None;
    let mut welcome_refs = None;
    let content = match message.kind {
        MessageKind::Proposal | MessageKind::Application => {
            let unexpected =
                |what| ParseError { what, problem: Problem::Unexpected("only a commit carries one") };
            for (what, is_there) in [
                ("welcome", !welcome.is_empty()),
                ("group_info", !group_info.is_empty()),
                ("recipients", !recipients.is_empty()),
            ] {
                if is_there {
                    return Err(unexpected(what).into());
                }
            }
            match message.kind {
                MessageKind::Proposal => Content::Proposal(log::Proposal { message: bytes }),
                _ => Content::Application(log::Application { message: bytes }),
            }
        }
        MessageKind::Commit => {
            let got = bytes.len() + welcome.len() + group_info.len();
            if got > MAX_COMMIT_BYTES {
                let problem = Problem::TooLarge { limit: MAX_COMMIT_BYTES, got };
                return Err(ParseError { what: "message, welcome and group_info together", problem }.into());
            }
            if welcome.is_empty() && !recipients.is_empty() {
                return Err(ParseError { what: "welcome", problem: Problem::Missing }.into());
            }
            if !welcome.is_empty() {
                let refs = mls::welcome(&welcome)?;
                mls::check_recipients(&refs, &recipients)?;
                welcome_refs = Some(refs);
            }
            if !group_info.is_empty() {
                parsed_info = Some(group_info_after(&message, &group_info)?);
            }
            Content::Commit(log::Commit { message: bytes, welcome, group_info, recipients })
        }
    };
    let submission = GroupSubmission {
        parent_state_id,
        // A public commit speaks for itself once it is validated.
        members_only: members_only && message.kind == MessageKind::Commit && message.public.is_none(),
        ..submission(&message.group_id, author.clone(), message.epoch, content)
    };
    Ok(Parsed { message, group_info: parsed_info, welcome: welcome_refs, submission, author })
}

/// The GroupInfo that comes with a commit must describe the state after it, so that it can never replace a newer one.
fn group_info_after(commit: &MessageIn, bytes: &Bytes) -> Result<GroupInfoIn, ParseError> {
    const WHAT: &str = "group_info";
    let info = mls::group_info(bytes)?;
    if info.group_id != commit.group_id {
        return Err(ParseError::mismatch(WHAT, "group id", "the commit's", "another one"));
    }
    let expected = commit.epoch.saturating_add(1);
    if info.epoch != expected {
        return Err(ParseError::mismatch(WHAT, "epoch", expected, info.epoch));
    }
    Ok(info)
}

fn answer(id: u64, result: Result<SubmitResponse, GatewayError>) -> SubmitStreamResponse {
    let result = match result {
        Ok(response) => submit_stream_response::Result::Response(response),
        Err(error) => submit_stream_response::Result::Error(encode(&error.into())),
    };
    SubmitStreamResponse { id, result: Some(result) }
}

/// Whose turn it is among the submissions of one stream for one group.
#[derive(Default)]
struct Turns {
    last: HashMap<GroupId, oneshot::Receiver<()>>,
    stopping: bool,
}

pub(super) struct Turn {
    before: Option<oneshot::Receiver<()>>,
    done: oneshot::Sender<()>,
}

impl Turns {
    fn take(&mut self, group_id: &GroupId) -> Turn {
        if self.last.len() > 2 * STREAM_IN_FLIGHT_MAX {
            // Those whose predecessor is through need not wait for it.
            self.last
                .retain(|_, before| matches!(before.try_recv(), Err(oneshot::error::TryRecvError::Empty)));
        }
        let (done, through) = oneshot::channel();
        Turn { before: self.last.insert(group_id.clone(), through), done }
    }
}

impl Turn {
    /// Waits for one's turn. It ends when what is returned is dropped.
    pub(super) async fn come(self) -> oneshot::Sender<()> {
        if let Some(before) = self.before {
            // Answered by being dropped.
            let _ = before.await;
        }
        self.done
    }
}
