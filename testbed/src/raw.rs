//! Calls with any bytes as the message, to any method: what a client that is broken, hostile or from another age sends.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use concordat_proto::FILE_DESCRIPTOR_SET;
use prost::Message;
use prost_types::FileDescriptorSet;
use service_kit::channel::Channel;
use tokio::time::timeout;
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    metadata::MetadataMap,
};

/// One method of an API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Method {
    /// Such as `/concordat.ordering.v1.Ordering/Submit`.
    pub path: String,
    /// The server streams its answers.
    pub streams_answers: bool,
}

/// All methods of `service`, such as `concordat.ordering.v1.Ordering`. Panics if there is no such service.
pub fn methods(service: &str) -> Vec<Method> {
    let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("the crate's own descriptors decode");
    let found: Vec<_> = files
        .file
        .iter()
        .flat_map(|file| file.service.iter().map(move |s| (format!("{}.{}", file.package(), s.name()), s)))
        .filter(|(name, _)| name == service)
        .flat_map(|(name, s)| {
            s.method.iter().map(move |m| Method {
                path: format!("/{name}/{}", m.name()),
                streams_answers: m.server_streaming(),
            })
        })
        .collect();
    assert!(!found.is_empty(), "there is no service {service}");
    found
}

/// How a raw call ended.
#[derive(Debug)]
pub enum RawAnswer {
    /// A first answer came.
    Answered(Bytes),
    /// The server refused.
    Refused(Status),
    /// The stream ended without an answer, or none came in time: a subscription to nothing.
    Silent,
}

/// Calls `method` with `messages` as the request stream, and waits for the first answer or the end.
pub async fn call(
    channel: &Channel,
    method: &Method,
    messages: Vec<Bytes>,
    client: &[u8],
    patience: Duration,
) -> RawAnswer {
    let exchange = async {
        let mut grpc = Grpc::new(channel.clone());
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = PathAndQuery::try_from(method.path.as_str())
            .map_err(|error| Status::internal(error.to_string()))?;
        let mut request = Request::new(tokio_stream::iter(messages));
        name_client(request.metadata_mut(), client);
        let mut answers = grpc.streaming(request, path, RawCodec).await?.into_inner();
        answers.message().await
    };
    match timeout(patience, exchange).await {
        Ok(Ok(Some(answer))) => RawAnswer::Answered(answer),
        Ok(Err(status)) => RawAnswer::Refused(status),
        Ok(Ok(None)) | Err(_) => RawAnswer::Silent,
    }
}

/// Names the calling client as the public API wants it.
pub fn name_client(metadata: &mut MetadataMap, client: &[u8]) {
    metadata.insert_bin("concordat-client-bin", tonic::metadata::MetadataValue::from_bytes(client));
}

#[derive(Debug, Clone, Copy)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_methods_of_all_apis_are_found() {
        assert!(
            methods("concordat.ordering.v1.Ordering")
                .iter()
                .any(|m| m.path.ends_with("/WatchQuorum") && m.streams_answers)
        );
        assert!(methods("concordat.ordering.v1.Admin").len() > 5);
        assert!(methods("concordat.gateway.v1.Gateway").len() > 10);
    }
}
