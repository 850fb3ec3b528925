//! gRPC statuses with a machine-readable reason (`google.rpc.ErrorInfo`) and a retry hint (`google.rpc.RetryInfo`), written and read.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use prost::Message;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The `domain` of every `ErrorInfo` of Concordat.
pub const ERROR_DOMAIN: &str = "concordat";

/// A status under construction.
#[derive(Debug, Clone)]
pub struct StatusBuilder {
    code: Code,
    message: String,
    reason: String,
    metadata: HashMap<String, String>,
    retry_after: Option<Duration>,
}

impl StatusBuilder {
    /// A status with `reason`, a name of `concordat.log.v1.Reason` without its prefix, and a message that names the remedy.
    pub fn new(code: Code, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            reason: reason.into(),
            metadata: HashMap::new(),
            retry_after: None,
        }
    }

    /// Adds a machine-readable fact, such as `expected` or `got`.
    #[must_use]
    pub fn fact(mut self, key: impl Into<String>, value: impl ToString) -> Self {
        self.metadata.insert(key.into(), value.to_string());
        self
    }

    /// Adds all `facts`.
    #[must_use]
    pub fn facts(mut self, facts: impl IntoIterator<Item = (String, String)>) -> Self {
        self.metadata.extend(facts);
        self
    }

    /// Says that trying again after `delay` can help.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// The finished status.
    pub fn build(self) -> Status {
        let mut details = ErrorDetails::with_error_info(self.reason, ERROR_DOMAIN, self.metadata);
        if let Some(delay) = self.retry_after {
            details.set_retry_info(Some(delay));
        }
        Status::with_error_details(self.code, self.message, details)
    }
}

/// What a status says besides its code and message. Statuses of other origin (a transport that failed) say nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatusFacts {
    /// A name of `concordat.log.v1.Reason` without its prefix.
    pub reason: Option<String>,
    /// Facts such as `expected` and `got`.
    pub metadata: HashMap<String, String>,
    /// Trying again after this delay can help.
    pub retry_after: Option<Duration>,
}

impl StatusFacts {
    /// Reads `status`. Details that are absent or not decodable count as not given.
    pub fn of(status: &Status) -> Self {
        let details = status.check_error_details().unwrap_or_default();
        let info = details.error_info().filter(|info| info.domain == ERROR_DOMAIN);
        Self {
            reason: info.map(|info| info.reason.clone()),
            metadata: info.map(|info| info.metadata.clone()).unwrap_or_default(),
            retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
        }
    }
}

/// The reason that `status` carries, if it comes from Concordat.
pub fn reason(status: &Status) -> Option<String> {
    StatusFacts::of(status).reason
}

/// The delay after which `status` says that trying again can help.
pub fn retry_after(status: &Status) -> Option<Duration> {
    StatusFacts::of(status).retry_after
}

/// `status` as an encoded `google.rpc.Status`, for answers that travel inside a stream.
pub fn encode(status: &Status) -> Bytes {
    if !status.details().is_empty() {
        // Built with details: they already are the encoded message.
        return Bytes::copy_from_slice(status.details());
    }
    let plain = tonic_types::Status {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: Vec::new(),
    };
    plain.encode_to_vec().into()
}

/// The status that [`encode`] wrote. Bytes that are not one become an `INTERNAL` status that says so.
pub fn decode(encoded: &Bytes) -> Status {
    match tonic_types::Status::decode(encoded.clone()) {
        Ok(status) => Status::with_details(Code::from(status.code), status.message, encoded.clone()),
        Err(error) => {
            Status::internal(format!("the server sent an error that is not a google.rpc.Status: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overloaded() -> Status {
        StatusBuilder::new(Code::Unavailable, "OVERLOADED", "the queue is full; try again later")
            .fact("limit", 4096)
            .retry_after(Duration::from_millis(250))
            .build()
    }

    #[test]
    fn facts_survive_the_wire_inside_and_outside_a_stream() {
        for status in [overloaded(), decode(&encode(&overloaded()))] {
            let facts = StatusFacts::of(&status);
            assert_eq!(status.code(), Code::Unavailable);
            assert_eq!(facts.reason.as_deref(), Some("OVERLOADED"));
            assert_eq!(facts.metadata["limit"], "4096");
            assert_eq!(facts.retry_after, Some(Duration::from_millis(250)));
        }
    }

    #[test]
    fn statuses_of_other_origin_say_nothing() {
        let plain = Status::not_found("no such thing");
        assert_eq!(StatusFacts::of(&plain), StatusFacts::default());
        let back = decode(&encode(&plain));
        assert_eq!((back.code(), back.message()), (Code::NotFound, "no such thing"));
        let foreign = Status::with_error_details(
            Code::Aborted,
            "",
            ErrorDetails::with_error_info("OVERLOADED", "somewhere.example", HashMap::new()),
        );
        assert_eq!(reason(&foreign), None);
        assert_eq!(decode(&Bytes::from_static(&[0xff; 9])).code(), Code::Internal);
        assert_eq!(reason(&Status::with_details(Code::Aborted, "", Bytes::from_static(&[0xff; 9]))), None);
    }
}
