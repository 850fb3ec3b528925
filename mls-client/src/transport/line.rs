//! The way to a gateway, whatever is called there: a connection, and how calls over it say which client they come from.

use bytes::Bytes;
use group_log::ClientId;
use service_kit::{channel::Channel, net::SharedNetwork};
use tonic::{Request, metadata::MetadataValue, transport::Endpoint};

use super::{CallError, Security};
use crate::{
    error::Error,
    limits::{CALL_TIMEOUT, CONNECT_TIMEOUT, KEEP_ALIVE_INTERVAL},
};

/// The metadata key that names the calling client.
const CLIENT_KEY: &str = "concordat-client-bin";

/// A connection, made when it is needed and again when it is lost.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) channel: Channel,
    proof: Proof,
}

/// How calls say which client they come from.
#[derive(Debug, Clone)]
enum Proof {
    /// By its own word, in plaintext.
    Claimed(Bytes),
    /// By a certificate, which the connection shows, or by a token.
    Shown(Security),
}

impl Line {
    /// To the gateway at `url`: `http://host:port` (or `host:port`) in plaintext, or `https://host:port`. Does not connect yet. Needs a
    /// tokio runtime.
    pub(crate) fn to(
        network: SharedNetwork,
        url: &str,
        client: &ClientId,
        security: &Security,
    ) -> Result<Self, Error> {
        let invalid = |why: String| {
            Error::Invalid(format!("`{url}` is not the URL of a gateway: {why}; expected https://host:port"))
        };
        let whole = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let secure = match whole.split_once("://") {
            Some(("http", _)) => false,
            Some(("https", _)) => true,
            _ => return Err(invalid("only https and http are supported".into())),
        };
        if !secure && (security.token.is_some() || security.certificate.is_some()) {
            return Err(invalid("a token or a certificate is only shown over TLS".into()));
        }
        // The connector encrypts, so to tonic it is a plain connection.
        let plain = whole.replacen("https://", "http://", 1);
        let endpoint = Endpoint::from_shared(plain).map_err(|e| invalid(e.to_string()))?;
        let network = if secure { security.over(network)? } else { network };
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_while_idle(true);
        let channel = Channel::lazy(&endpoint, network);
        let proof = if secure { Proof::Shown(security.clone()) } else { Proof::Claimed(client.to_bytes()) };
        Ok(Line { channel, proof })
    }

    /// A request that says who calls.
    pub(crate) fn request<T>(&self, message: T) -> Result<Request<T>, CallError> {
        let mut request = Request::new(message);
        match &self.proof {
            Proof::Claimed(client) => {
                request.metadata_mut().insert_bin(CLIENT_KEY, MetadataValue::from_bytes(client));
            }
            Proof::Shown(security) => {
                if let Some(token) = security.token()? {
                    request.metadata_mut().insert("authorization", token);
                }
            }
        }
        Ok(request)
    }

    /// The same, which must be answered within [`CALL_TIMEOUT`].
    pub(crate) fn timed<T>(&self, message: T) -> Result<Request<T>, CallError> {
        let mut request = self.request(message)?;
        request.set_timeout(CALL_TIMEOUT);
        Ok(request)
    }
}
