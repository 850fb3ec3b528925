//! Why a call failed.

use std::{collections::HashMap, time::Duration};

use concordat_proto::log::v1::Reason;
use service_kit::status::StatusFacts;
use tonic::{Code, Status};

/// A call that the gateway refused, or that did not reach it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.describe())]
pub struct CallError {
    /// The gateway's machine-readable reason; absent if the answer did not come from a gateway.
    pub reason: Option<Reason>,
    /// gRPC status code.
    pub code: Code,
    /// One sentence for a person.
    pub message: String,
    /// Facts such as `expected` and `got`.
    pub facts: HashMap<String, String>,
    /// The gateway hints that trying again after this delay can help.
    pub retry_after: Option<Duration>,
}

impl CallError {
    /// A refusal with a reason.
    pub fn refused(code: Code, reason: Reason, message: impl Into<String>) -> Self {
        CallError {
            reason: Some(reason),
            code,
            message: message.into(),
            facts: HashMap::new(),
            retry_after: None,
        }
    }

    /// The gateway could not be reached, or the connection was lost: nobody knows whether the call had an effect.
    pub fn lost(message: impl Into<String>) -> Self {
        CallError {
            reason: None,
            code: Code::Unavailable,
            message: message.into(),
            facts: HashMap::new(),
            retry_after: None,
        }
    }

    /// Whether the same call again may succeed without anybody doing anything else.
    pub fn is_temporary(&self) -> bool {
        match self.reason {
            Some(
                Reason::NoQuorum
                | Reason::OutcomeUnknown
                | Reason::Overloaded
                | Reason::Quota
                | Reason::NotYourTurn,
            ) => true,
            // Whoever refused knows of something newer, or this gateway lags behind.
            Some(Reason::EpochAhead | Reason::CursorAhead | Reason::GroupInfoBehind) => true,
            Some(_) => self.retry_after.is_some(),
            None => {
                self.retry_after.is_some()
                    || matches!(
                        self.code,
                        Code::Unavailable
                            | Code::DeadlineExceeded
                            | Code::Cancelled
                            | Code::Aborted
                            | Code::Unknown
                            | Code::Internal
                            | Code::ResourceExhausted
                    )
            }
        }
    }

    fn describe(&self) -> String {
        match self.reason {
            Some(reason) => format!("{} ({})", self.message, short(reason)),
            None if self.code == Code::Unavailable => {
                format!(
                    "the gateway cannot be reached: {}; is it running, and is --gateway right?",
                    self.message
                )
            }
            None => format!("the call failed: {} ({:?})", self.message, self.code),
        }
    }
}

/// A reason's name as it travels: without its prefix.
fn short(reason: Reason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix("REASON_").unwrap_or(name)
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        let facts = StatusFacts::of(&status);
        CallError {
            reason: facts.reason.and_then(|name| Reason::from_str_name(&format!("REASON_{name}"))),
            code: status.code(),
            message: status.message().to_owned(),
            facts: facts.metadata,
            retry_after: facts.retry_after,
        }
    }
}

#[cfg(test)]
mod tests {
    use service_kit::status::StatusBuilder;

    use super::*;

    #[test]
    fn a_status_keeps_its_reason_and_hint() {
        let status = StatusBuilder::new(Code::Unavailable, "NO_QUORUM", "no quorum; try again")
            .fact("shard", 1)
            .retry_after(Duration::from_millis(40))
            .build();
        let error = CallError::from(status);
        assert_eq!(error.reason, Some(Reason::NoQuorum));
        assert_eq!(error.retry_after, Some(Duration::from_millis(40)));
        assert_eq!(error.facts["shard"], "1");
        assert!(error.is_temporary());
        assert_eq!(error.to_string(), "no quorum; try again (NO_QUORUM)");
    }

    #[test]
    fn refusals_are_final_and_lost_calls_are_not() {
        assert!(!CallError::refused(Code::NotFound, Reason::GroupNotFound, "").is_temporary());
        assert!(CallError::lost("refused").is_temporary());
        assert!(!CallError::from(Status::unimplemented("no")).is_temporary());
        assert!(CallError::lost("x").to_string().contains("--gateway"));
    }
}
