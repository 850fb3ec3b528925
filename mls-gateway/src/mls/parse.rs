//! Reads MLSMessages (RFC 9420 section 6) and says exactly what is wrong with those that cannot be read.

use std::collections::BTreeSet;

use bytes::Bytes;
use concordat_proto::log::v1::{Reason, WelcomeRecipient};
use group_log::{
    GroupId,
    limits::{
        MAX_CLIENT_ID_BYTES, MAX_COMMIT_BYTES, MAX_KEY_PACKAGE_REF_BYTES, MAX_MESSAGE_BYTES,
        MAX_WELCOME_RECIPIENTS,
    },
};
use openmls::{
    messages::group_info::VerifiableGroupInfo,
    prelude::{
        ContentType, MlsMessageBodyIn, MlsMessageIn, PublicMessageIn, RatchetTreeIn,
        tls_codec::{self, Deserialize, VLBytes},
    },
};

use crate::{access::rules::Sender, limits::DMLS_EPOCH_BYTES};

/// MLS 1.0 on the wire.
const MLS10: u16 = 1;
/// Names of the wire formats (RFC 9420 section 17.2), by number.
const WIRE_FORMATS: [&str; 6] =
    ["none", "mls_public_message", "mls_private_message", "mls_welcome", "mls_group_info", "mls_key_package"];

/// An MLSMessage is not what it has to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {problem}")]
pub struct ParseError {
    /// Which message, as the API names it.
    pub what: &'static str,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with an MLSMessage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Nothing was sent.
    #[error("expected an MLSMessage, got nothing")]
    Missing,
    /// Something was sent where nothing belongs.
    #[error("{0}")]
    Unexpected(&'static str),
    /// Too long.
    #[error("expected at most {limit} bytes, got {got}")]
    TooLarge {
        /// Longest length allowed, in bytes.
        limit: usize,
        /// Length that came, in bytes.
        got: usize,
    },
    /// Another version than MLS 1.0.
    #[error("expected MLS version {MLS10}, got {got}")]
    Version {
        /// The version that came.
        got: u16,
    },
    /// Another type of message.
    #[error("expected {expected}, got {got}")]
    Type {
        /// What belongs here.
        expected: &'static str,
        /// What came.
        got: String,
    },
    /// The bytes do not decode.
    #[error("expected an MLSMessage, got bytes that do not decode ({detail})")]
    Undecodable {
        /// Where decoding failed.
        detail: String,
    },
    /// Bytes follow the message.
    #[error("expected the message to end after {expected} bytes, got {got}")]
    TrailingBytes {
        /// Length of the message, in bytes.
        expected: usize,
        /// Length that came, in bytes.
        got: usize,
    },
    /// A part does not fit the rest.
    #[error("expected {fact} {expected}, got {got}")]
    Mismatch {
        /// Which fact.
        fact: &'static str,
        /// What it has to be.
        expected: String,
        /// What came.
        got: String,
    },
    /// It decodes, but fails a check of its own (a signature, a lifetime).
    #[error("it is not valid: {detail}")]
    Invalid {
        /// Which check.
        detail: String,
    },
}

impl ParseError {
    pub(crate) fn new(what: &'static str, problem: Problem) -> Self {
        Self { what, problem }
    }

    pub(crate) fn mismatch(
        what: &'static str,
        fact: &'static str,
        expected: impl ToString,
        got: impl ToString,
    ) -> Self {
        Self::new(what, Problem::Mismatch { fact, expected: expected.to_string(), got: got.to_string() })
    }

    /// The machine-readable reason.
    pub fn reason(&self) -> Reason {
        match self.problem {
            Problem::TooLarge { .. } => Reason::TooLarge,
            Problem::Type { .. } => Reason::WrongMessageType,
            _ => Reason::Malformed,
        }
    }

    /// The machine-readable facts.
    pub fn facts(&self) -> Vec<(String, String)> {
        let mut facts = vec![("field".to_owned(), self.what.to_owned())];
        let mut fact = |key: &str, value: String| facts.push((key.to_owned(), value));
        match &self.problem {
            Problem::Missing => fact("got", "0".into()),
            Problem::Unexpected(_) => {}
            Problem::TooLarge { limit, got } => {
                fact("limit", limit.to_string());
                fact("got", got.to_string());
            }
            Problem::Version { got } => {
                fact("expected", MLS10.to_string());
                fact("got", got.to_string());
            }
            Problem::Type { expected, got } => {
                fact("expected", (*expected).to_owned());
                fact("got", got.clone());
            }
            Problem::Undecodable { detail } | Problem::Invalid { detail } => fact("detail", detail.clone()),
            Problem::TrailingBytes { expected, got } => {
                fact("expected", expected.to_string());
                fact("got", got.to_string());
            }
            Problem::Mismatch { fact: of, expected, got } => {
                fact("of", (*of).to_owned());
                fact("expected", expected.clone());
                fact("got", got.clone());
            }
        }
        facts
    }
}

/// What a submitted message carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    /// A proposal.
    Proposal,
    /// A commit.
    Commit,
    /// An application message.
    Application,
}

impl MessageKind {
    /// The name for messages and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Proposal => "proposal",
            Self::Commit => "commit",
            Self::Application => "application",
        }
    }
}

/// What is visible of a submitted message.
#[derive(Debug, Clone)]
pub struct MessageIn {
    /// The group that it is for.
    pub group_id: GroupId,
    /// The epoch that it was made in.
    pub epoch: u64,
    /// What it carries.
    pub kind: MessageKind,
    /// The message itself, if it is a PublicMessage; a PrivateMessage stays closed.
    pub public: Option<PublicMessageIn>,
    /// It is a DMLSMessage: an MLSMessage followed by `opaque dmls_epoch<V>`. What that claims decides nothing here.
    pub dmls: bool,
}

/// Who a public handshake says has made it.
pub fn sender(message: &PublicMessageIn) -> Sender {
    match message.sender() {
        openmls::prelude::Sender::Member(_) => Sender::Member,
        openmls::prelude::Sender::NewMemberCommit => Sender::NewMemberCommit,
        _ => Sender::Outsider,
    }
}

/// Reads a proposal, a commit or an application message, as an MLSMessage or a DMLSMessage.
pub fn message(bytes: &Bytes) -> Result<MessageIn, ParseError> {
    const WHAT: &str = "message";
    let (body, rest) = decode_first(WHAT, bytes, MAX_COMMIT_BYTES, &[1, 2], "a public or private message")?;
    let dmls = is_dmls_epoch(rest);
    if !dmls {
        ends(WHAT, bytes, rest)?;
    }
    let (group_id, epoch, content_type, public) = match body {
        MlsMessageBodyIn::PublicMessage(m) => {
            (m.group_id().to_vec(), m.epoch().as_u64(), m.content_type(), Some(m))
        }
        MlsMessageBodyIn::PrivateMessage(m) => {
            (m.group_id().to_vec(), m.epoch().as_u64(), m.content_type(), None)
        }
        other => return Err(wrong_type(WHAT, "a public or private message", body_name(&other))),
    };
    let kind = match content_type {
        ContentType::Proposal => MessageKind::Proposal,
        ContentType::Commit => MessageKind::Commit,
        ContentType::Application => MessageKind::Application,
    };
    if kind == MessageKind::Application && public.is_some() {
        // RFC 9420 section 6: application messages must be encrypted.
        return Err(wrong_type(WHAT, "an application message as mls_private_message", WIRE_FORMATS[1]));
    }
    if kind != MessageKind::Commit {
        check_size(WHAT, bytes.len(), MAX_MESSAGE_BYTES)?;
    }
    Ok(MessageIn { group_id: check_group_id(WHAT, group_id)?, epoch, kind, public, dmls })
}

/// The bytes are `opaque dmls_epoch<V>` and nothing else.
fn is_dmls_epoch(mut bytes: &[u8]) -> bool {
    let epoch = VLBytes::tls_deserialize(&mut bytes);
    bytes.is_empty() && epoch.is_ok_and(|epoch| DMLS_EPOCH_BYTES.contains(&epoch.as_slice().len()))
}

/// A GroupInfo and what is visible of it.
#[derive(Debug, Clone)]
pub struct GroupInfoIn {
    /// The group that it describes.
    pub group_id: GroupId,
    /// The epoch that it describes.
    pub epoch: u64,
    /// Its ratchet tree, if it carries one (RFC 9420 section 12.4.3.3).
    pub ratchet_tree: Option<RatchetTreeIn>,
    /// The GroupInfo itself, its signature not verified yet.
    pub info: VerifiableGroupInfo,
    /// Length on the wire, in bytes.
    pub bytes: usize,
}

/// Reads a GroupInfo.
pub fn group_info(bytes: &Bytes) -> Result<GroupInfoIn, ParseError> {
    const WHAT: &str = "group_info";
    match decode(WHAT, bytes, MAX_COMMIT_BYTES, &[4], WIRE_FORMATS[4])? {
        MlsMessageBodyIn::GroupInfo(info) => Ok(GroupInfoIn {
            group_id: check_group_id(WHAT, info.group_id().to_vec())?,
            epoch: info.epoch().as_u64(),
            ratchet_tree: info.extensions().ratchet_tree().map(|e| e.ratchet_tree().clone()),
            info,
            bytes: bytes.len(),
        }),
        other => Err(wrong_type(WHAT, WIRE_FORMATS[4], body_name(&other))),
    }
}

/// Reads a Welcome and returns the KeyPackageRefs that it is for (RFC 9420 section 12.4.3.1).
pub fn welcome(bytes: &Bytes) -> Result<Vec<Vec<u8>>, ParseError> {
    const WHAT: &str = "welcome";
    match decode(WHAT, bytes, MAX_COMMIT_BYTES, &[3], WIRE_FORMATS[3])? {
        MlsMessageBodyIn::Welcome(welcome) => {
            Ok(welcome.secrets().iter().map(|s| s.new_member().as_slice().to_vec()).collect())
        }
        other => Err(wrong_type(WHAT, WIRE_FORMATS[3], body_name(&other))),
    }
}

/// Checks that a Welcome is for exactly these recipients: nobody it names waits in vain, and nobody is sent one he cannot open.
pub fn check_recipients(welcome_refs: &[Vec<u8>], recipients: &[WelcomeRecipient]) -> Result<(), ParseError> {
    const WHAT: &str = "recipients";
    let count = |limit, got| ParseError::new(WHAT, Problem::TooLarge { limit, got });
    if recipients.len() > MAX_WELCOME_RECIPIENTS {
        return Err(count(MAX_WELCOME_RECIPIENTS, recipients.len()));
    }
    for recipient in recipients {
        let sizes = [
            ("client_id", &recipient.client_id, MAX_CLIENT_ID_BYTES),
            ("key_package_ref", &recipient.key_package_ref, MAX_KEY_PACKAGE_REF_BYTES),
        ];
        for (fact, bytes, limit) in sizes {
            if bytes.is_empty() || bytes.len() > limit {
                return Err(ParseError::mismatch(
                    WHAT,
                    fact,
                    format_args!("1 to {limit} bytes"),
                    bytes.len(),
                ));
            }
        }
    }
    let stated: BTreeSet<&[u8]> = recipients.iter().map(|r| r.key_package_ref.as_ref()).collect();
    let named: BTreeSet<&[u8]> = welcome_refs.iter().map(Vec::as_slice).collect();
    if stated.len() != recipients.len() {
        return Err(ParseError::mismatch(WHAT, "distinct KeyPackageRefs", recipients.len(), stated.len()));
    }
    if stated == named && named.len() == welcome_refs.len() {
        return Ok(());
    }
    let both = stated.intersection(&named).count();
    Err(ParseError::mismatch(
        WHAT,
        "the KeyPackageRefs of the Welcome:",
        format_args!("{} refs", welcome_refs.len()),
        format_args!("{} refs, {both} of them in the Welcome", recipients.len()),
    ))
}

/// Decodes one MLSMessage of one of the wire formats `allowed`, which must fill `bytes` exactly.
pub(crate) fn decode(
    what: &'static str,
    bytes: &Bytes,
    limit: usize,
    allowed: &[u16],
    expected: &'static str,
) -> Result<MlsMessageBodyIn, ParseError> {
    let (body, rest) = decode_first(what, bytes, limit, allowed, expected)?;
    ends(what, bytes, rest)?;
    Ok(body)
}

/// Nothing follows the message.
fn ends(what: &'static str, bytes: &Bytes, rest: &[u8]) -> Result<(), ParseError> {
    if rest.is_empty() {
        return Ok(());
    }
    let expected = bytes.len() - rest.len();
    Err(ParseError::new(what, Problem::TrailingBytes { expected, got: bytes.len() }))
}

/// Decodes the MLSMessage that `bytes` begin with, and gives what follows it.
fn decode_first<'b>(
    what: &'static str,
    bytes: &'b Bytes,
    limit: usize,
    allowed: &[u16],
    expected: &'static str,
) -> Result<(MlsMessageBodyIn, &'b [u8]), ParseError> {
    if bytes.is_empty() {
        return Err(ParseError::new(what, Problem::Missing));
    }
    check_size(what, bytes.len(), limit)?;
    // The header is looked at first, so that a wrong version or type is named as such whatever follows it.
    if let [v0, v1, t0, t1, ..] = bytes[..] {
        let (version, format) = (u16::from_be_bytes([v0, v1]), u16::from_be_bytes([t0, t1]));
        if version != MLS10 {
            return Err(ParseError::new(what, Problem::Version { got: version }));
        }
        if !allowed.contains(&format) {
            let name = WIRE_FORMATS
                .get(usize::from(format))
                .map_or_else(|| format!("wire format {format}"), |n| (*n).into());
            return Err(wrong_type(what, expected, name));
        }
    }
    let mut rest: &[u8] = bytes;
    let message = MlsMessageIn::tls_deserialize(&mut rest)
        .map_err(|error| ParseError::new(what, Problem::Undecodable { detail: detail(&error) }))?;
    Ok((message.extract(), rest))
}

fn detail(error: &tls_codec::Error) -> String {
    match error {
        tls_codec::Error::EndOfStream => "it ends too early".into(),
        other => other.to_string(),
    }
}

fn check_size(what: &'static str, got: usize, limit: usize) -> Result<(), ParseError> {
    if got > limit { Err(ParseError::new(what, Problem::TooLarge { limit, got })) } else { Ok(()) }
}

fn check_group_id(what: &'static str, id: Vec<u8>) -> Result<GroupId, ParseError> {
    GroupId::new(id).map_err(|e| {
        ParseError::mismatch(what, "group id length", format_args!("1 to {} bytes", e.max), e.got)
    })
}

fn wrong_type(what: &'static str, expected: &'static str, got: impl Into<String>) -> ParseError {
    ParseError::new(what, Problem::Type { expected, got: got.into() })
}

fn body_name(body: &MlsMessageBodyIn) -> &'static str {
    match body {
        MlsMessageBodyIn::PublicMessage(_) => WIRE_FORMATS[1],
        MlsMessageBodyIn::PrivateMessage(_) => WIRE_FORMATS[2],
        MlsMessageBodyIn::Welcome(_) => WIRE_FORMATS[3],
        MlsMessageBodyIn::GroupInfo(_) => WIRE_FORMATS[4],
        MlsMessageBodyIn::KeyPackage(_) => WIRE_FORMATS[5],
    }
}
