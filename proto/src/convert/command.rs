//! Commands for one group's replicated state, and what becomes of them.

use bytes::Bytes;
use group_log::{
    Decision, GroupId,
    fork::{Answer, BranchRefusal, Close, Command, LeafId, Rejection, Report},
};

use super::{
    WireError,
    branch::{facts_in, facts_out, gateway_id, leaves},
    group_id, length,
    refusal::reason_and_facts,
    refused,
};
use crate::{
    log::v1 as log,
    ordering::v1::{self as wire, command::Command as Kind, outcome::Outcome},
    relay::v1::sequence_response,
};

/// What a submitter is asked to wait while branches are brought together, in milliseconds.
pub const RECONCILING_RETRY_MS: u32 = 100;

/// The fact of a refused registration that says how many registrations of the group have ended.
pub const DEPARTURES: &str = "departures";

/// A command, and the group that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupCommand {
    /// The group.
    pub group_id: GroupId,
    /// What it is to do.
    pub command: Command,
}

impl From<GroupCommand> for wire::Command {
    fn from(command: GroupCommand) -> Self {
        let GroupCommand { group_id, command } = command;
        let group_id = group_id.to_bytes();
        let id = |id: group_log::fork::GatewayId| Bytes::copy_from_slice(&id.0);
        let command = match command {
            Command::Submit { submission, facts } => {
                let facts = facts_out(&facts);
                Kind::Group(wire::GroupSubmission { facts, ..submission.into() })
            }
            Command::Report(Report { gateway, entries, complete }) => {
                let entries = entries.into_iter().map(Into::into).collect();
                Kind::ReportBranches(wire::ReportBranches {
                    group_id,
                    gateway_id: id(gateway),
                    entries,
                    complete,
                })
            }
            Command::Close(Close { collection, nonce }) => {
                let nonce = Bytes::copy_from_slice(&nonce);
                Kind::CloseCollection(wire::CloseCollection { group_id, collection, nonce })
            }
            Command::Ack { gateway, registration, position } => {
                let gateway_id = id(gateway);
                Kind::AckPosition(wire::AckPosition { group_id, gateway_id, position, registration })
            }
            Command::Register { gateway, position, departures } => {
                let gateway_id = id(gateway);
                Kind::RegisterGateway(wire::RegisterGateway { group_id, gateway_id, position, departures })
            }
            Command::Release { gateway, registration } => {
                let gateway_id = id(gateway);
                Kind::ReleaseGateway(wire::ReleaseGateway { group_id, gateway_id, registration })
            }
            Command::Evict { gateway } => {
                Kind::EvictGateway(wire::EvictGateway { group_id, gateway_id: id(gateway) })
            }
        };
        wire::Command { command: Some(command) }
    }
}

impl TryFrom<Kind> for GroupCommand {
    type Error = WireError;

    fn try_from(command: Kind) -> Result<Self, WireError> {
        let (group, command) = match command {
            Kind::Group(submission) => {
                let facts = facts_in(submission.facts.as_ref())?;
                let submission = group_log::Submission::try_from(submission)?;
                let group_id = submission.group_id.clone();
                return Ok(GroupCommand { group_id, command: Command::Submit { submission, facts } });
            }
            Kind::ReportBranches(report) => {
                let gateway = gateway_id("gateway_id", &report.gateway_id)?;
                let entries = report.entries.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
                (report.group_id, Command::Report(Report { gateway, entries, complete: report.complete }))
            }
            Kind::CloseCollection(wire::CloseCollection { group_id, collection, nonce }) => {
                (group_id, Command::Close(Close { collection, nonce: read_nonce(&nonce)? }))
            }
            Kind::AckPosition(wire::AckPosition { group_id, gateway_id: id, position, registration }) => {
                let gateway = gateway_id("gateway_id", &id)?;
                (group_id, Command::Ack { gateway, registration, position })
            }
            Kind::RegisterGateway(wire::RegisterGateway {
                group_id,
                gateway_id: id,
                position,
                departures,
            }) => {
                let gateway = gateway_id("gateway_id", &id)?;
                (group_id, Command::Register { gateway, position, departures })
            }
            Kind::ReleaseGateway(wire::ReleaseGateway { group_id, gateway_id: id, registration }) => {
                (group_id, Command::Release { gateway: gateway_id("gateway_id", &id)?, registration })
            }
            Kind::EvictGateway(wire::EvictGateway { group_id, gateway_id: id }) => {
                (group_id, Command::Evict { gateway: gateway_id("gateway_id", &id)? })
            }
            Kind::AckWelcomes(_)
            | Kind::NoteGateways(_)
            | Kind::PruneGroup(_)
            | Kind::AssignGroup(_)
            | Kind::UploadKeyPackages(_)
            | Kind::ClaimKeyPackage(_) => {
                let (expected, got) = ("a command for one group", "another command".into());
                return Err(WireError { field: "command", expected, got });
            }
        };
        Ok(GroupCommand { group_id: group_id("group_id", group)?, command })
    }
}

fn read_nonce(nonce: &[u8]) -> Result<[u8; 32], WireError> {
    let wrong = |_| WireError { field: "nonce", expected: "32 bytes", got: length(nonce) };
    nonce.try_into().map_err(wrong)
}

impl From<Answer> for Outcome {
    /// A superseded commit is answered without the winning entry, which whoever has the log adds.
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Decided(Decision::Accepted(accepted)) => Outcome::Accepted(accepted.into()),
            Answer::Decided(Decision::Superseded { winner_seq: _ }) => {
                Outcome::Superseded(log::Superseded { winner: None })
            }
            Answer::Decided(Decision::Refused(refusal)) => Outcome::Refused((&refusal).into()),
            Answer::Retry => Outcome::Reconciling(wire::Reconciling { retry_after_ms: RECONCILING_RETRY_MS }),
            Answer::RemoveFirst { owed } => Outcome::RemoveFirst(remove_first(&owed)),
            Answer::OnSide { seq, late } => Outcome::OnSide(log::OnSide { seq, late }),
            Answer::Reported { new, collecting } => Outcome::BranchesReported(wire::BranchesReported {
                new_entries: new,
                collection: collecting.unwrap_or(0),
            }),
            Answer::Closed { adopted, sides } => {
                Outcome::CollectionClosed(wire::CollectionClosed { adopted, sides })
            }
            Answer::NotOpen => Outcome::CollectionClosed(wire::CollectionClosed::default()),
            Answer::Registered { stable, registration } => {
                Outcome::GatewayNoted(wire::GatewayNoted { stable, registration })
            }
            Answer::Gateways { stable } => {
                Outcome::GatewayNoted(wire::GatewayNoted { stable, ..wire::GatewayNoted::default() })
            }
            Answer::Rejected(rejection) => Outcome::Refused((&rejection).into()),
        }
    }
}

fn remove_first(owed: &[LeafId]) -> log::RemoveFirst {
    log::RemoveFirst { owed: leaves(owed), owed_leaf_indices: Vec::new() }
}

impl From<&Rejection> for log::Refused {
    fn from(rejection: &Rejection) -> Self {
        use log::Reason;
        let of_two =
            |expected: &u64, got: &u64| vec![("expected", expected.to_string()), ("got", got.to_string())];
        let of_limit = |limit: &u64, got: &u64| vec![("limit", limit.to_string()), ("got", got.to_string())];
        let (reason, facts) = match rejection {
            Rejection::GroupNotFound => (Reason::GroupNotFound, Vec::new()),
            Rejection::WrongKind { got } => (Reason::WrongKind, wrong_kind(*got)),
            Rejection::Gap { entry, parent } => (
                Reason::BranchGap,
                vec![("entry", entry.to_string()), ("parent_state_id", parent.to_string())],
            ),
            Rejection::TooMany { limit, got } => (Reason::TooLarge, of_limit(limit, got)),
            Rejection::Full { limit, got, .. } => (Reason::Quota, of_limit(limit, got)),
            Rejection::Impossible { entry, refusal } => {
                let (reason, mut facts) = reason_and_facts(refusal);
                facts.push(("entry", entry.to_string()));
                (reason, facts)
            }
            Rejection::PositionAhead { head_seq, got } => {
                let mut facts = of_two(head_seq, got);
                facts.push(("head_seq", head_seq.to_string()));
                (Reason::CursorAhead, facts)
            }
            Rejection::NotRegistered => (Reason::NotRegistered, Vec::new()),
            Rejection::Overtaken { departures, got } => {
                let mut facts = of_two(departures, got);
                facts.push((DEPARTURES, departures.to_string()));
                (Reason::NotRegistered, facts)
            }
            Rejection::NotAcknowledged { head_seq, got } => (Reason::NotRegistered, of_two(head_seq, got)),
            Rejection::NotFollowed { stable, got } => (Reason::NotRegistered, of_two(stable, got)),
        };
        refused(reason, rejection, facts)
    }
}

fn wrong_kind(got: group_log::GroupKind) -> Vec<(&'static str, String)> {
    let got = log::GroupKind::from(got).as_str_name();
    vec![("expected", log::GroupKind::Demls.as_str_name().into()), ("got", got.into())]
}

impl From<&BranchRefusal> for sequence_response::Outcome {
    fn from(refusal: &BranchRefusal) -> Self {
        use log::Reason;
        let (reason, facts) = match refusal {
            BranchRefusal::RemoveFirst { owed } => {
                return sequence_response::Outcome::RemoveFirst(remove_first(owed));
            }
            BranchRefusal::WrongKind { got } => (Reason::WrongKind, wrong_kind(*got)),
            BranchRefusal::GroupClosed { closed_seq } => {
                (Reason::GroupClosed, vec![("closed_seq", closed_seq.to_string())])
            }
            BranchRefusal::Impossible(refusal) => reason_and_facts(refusal),
            BranchRefusal::UnknownParent { parent } => {
                (Reason::BranchGap, vec![("parent_state_id", parent.to_string())])
            }
            BranchRefusal::BelowPromise { promised, got } => {
                (Reason::BelowPromise, vec![("expected", promised.to_string()), ("got", got.to_string())])
            }
            BranchRefusal::DeadBranch { seq } => (Reason::DeadBranch, vec![("seq", seq.to_string())]),
            BranchRefusal::NotALeaf { child } => (Reason::NotALeaf, vec![("entry", child.to_string())]),
            BranchRefusal::Full { limit, .. } => (Reason::Overloaded, vec![("limit", limit.to_string())]),
        };
        sequence_response::Outcome::Refused(refused(reason, refusal, facts))
    }
}
