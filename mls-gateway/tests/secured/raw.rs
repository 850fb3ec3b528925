//! Calls any RPC with any bytes.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use concordat_proto::gateway::v1::{SubmitStreamResponse, submit_stream_response};
use prost::Message;
use service_kit::status::{decode, reason};
use tonic::{
    Code, Request, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataValue,
    transport::Channel,
};

/// How long a call that is let in may take to say so.
const PATIENCE: Duration = Duration::from_secs(3);

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The connection was not made, or ended in the handshake.
    NoConnection,
    /// A status with a reason.
    Refused(Code, String),
    /// It was let in, whatever became of it there.
    LetIn,
}

impl Outcome {
    /// Whether who called was the reason for it to fail.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::NoConnection => true,
            Self::Refused(code, _) => matches!(code, Code::Unauthenticated | Code::PermissionDenied),
            Self::LetIn => false,
        }
    }
}

/// Calls `path` with one message, and looks at the first answer.
pub async fn call(channel: Channel, path: &str, token: Option<&str>, message: Bytes) -> Outcome {
    let mut grpc = tonic::client::Grpc::new(channel);
    if grpc.ready().await.is_err() {
        return Outcome::NoConnection;
    }
    let mut request = Request::new(futures::stream::iter([message]));
    if let Some(token) = token {
        let value = MetadataValue::try_from(format!("Bearer {token}")).unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    let in_stream = path.ends_with("/SubmitStream");
    let path = path.parse().unwrap();
    let answered = async {
        let mut answers = grpc.streaming(request, path, Raw).await?.into_inner();
        let answer = answers.message().await?;
        // Each submission of a stream has a status of its own.
        match answer.filter(|_| in_stream).map(|answer| SubmitStreamResponse::decode(answer).unwrap().result)
        {
            Some(Some(submit_stream_response::Result::Error(error))) => Err(decode(&error)),
            _ => Ok(()),
        }
    };
    match tokio::time::timeout(PATIENCE, answered).await {
        Err(_) | Ok(Ok(())) => Outcome::LetIn,
        Ok(Err(status)) => match reason(&status) {
            Some(reason) => Outcome::Refused(status.code(), reason),
            None if is_broken(&status) => Outcome::NoConnection,
            None => Outcome::LetIn,
        },
    }
}

/// The status was made here, out of a connection that broke.
fn is_broken(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(src.copy_to_bytes(src.remaining())))
    }
}
