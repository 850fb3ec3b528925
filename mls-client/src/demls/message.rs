//! `struct { MLSMessage message; opaque dmls_epoch<V>; } DMLSMessage`: how messages of a DeMLS group travel.

use openmls::prelude::{
    DeserializeBytes as _, MlsMessageBodyIn, MlsMessageIn, MlsMessageOut, ProtocolMessage,
};

use super::{
    error::DemlsError,
    key_schedule::DmlsEpoch,
    limits::MAX_DMLS_MESSAGE_BYTES,
    secret::SecretBuffer,
    wire::{DecodeError, Reader},
};

const WHAT: &str = "DMLSMessage";

/// A received DMLSMessage: a public or private message, and the state that it claims to belong to.
#[derive(Debug)]
pub struct DmlsMessage {
    message: ProtocolMessage,
    epoch: DmlsEpoch,
}

impl DmlsMessage {
    /// Wraps an outgoing message.
    pub fn encode(message: &MlsMessageOut, epoch: &DmlsEpoch) -> Result<Vec<u8>, DemlsError> {
        let message = message
            .to_bytes()
            .map_err(|error| DemlsError::mls("an outgoing message cannot be encoded")(error.into()))?;
        Ok(Self::encode_bytes(&message, epoch))
    }

    /// Wraps an encoded MLSMessage.
    pub fn encode_bytes(message: &[u8], epoch: &DmlsEpoch) -> Vec<u8> {
        let mut out = SecretBuffer::with_capacity(message.len() + 2 + epoch.as_slice().len());
        out.extend(message);
        out.vector(epoch.as_slice());
        out.into_bytes().to_vec()
    }

    /// Reads a DMLSMessage of at most [`MAX_DMLS_MESSAGE_BYTES`]. Only public and private messages are allowed inside.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_DMLS_MESSAGE_BYTES {
            let reason = format!("expected at most {MAX_DMLS_MESSAGE_BYTES} bytes, got {}", bytes.len());
            return Err(DecodeError::new(WHAT, reason));
        }
        let (message, rest) = MlsMessageIn::tls_deserialize_bytes(bytes)
            .map_err(|error| DecodeError::new(WHAT, format!("expected an MLSMessage first: {error}")))?;
        let mut reader = Reader::new(WHAT, rest);
        let epoch = DmlsEpoch::from_slice(reader.vector()?)?;
        reader.finish()?;
        let message = match message.extract() {
            MlsMessageBodyIn::PublicMessage(message) => message.into(),
            MlsMessageBodyIn::PrivateMessage(message) => message.into(),
            _ => {
                return Err(DecodeError::new(
                    WHAT,
                    "expected a public or private message inside, got another kind",
                ));
            }
        };
        Ok(DmlsMessage { message, epoch })
    }

    /// The state that the message claims to belong to.
    pub fn epoch(&self) -> &DmlsEpoch {
        &self.epoch
    }

    /// The message inside.
    pub fn message(&self) -> &ProtocolMessage {
        &self.message
    }

    /// The message inside.
    pub fn into_message(self) -> ProtocolMessage {
        self.message
    }
}
