//! A gRPC channel that outlives its connections.
//!
//! A server that replaces a connection says so with GOAWAY and answers what is under way. A call that begins at that moment can still fall
//! between two chairs: hyper notices the GOAWAY only with the next request, which it then drops ("operation was canceled"); and a request
//! that was written behind the acknowledgement of the first GOAWAY is above the last stream of the second. tonic reports both as failed
//! calls. Neither has been seen by the server's application, so [`Channel`] makes them again, on a new connection: what gRPC calls
//! transparent retries. A call whose outcome is in doubt is never repeated here; servers of this crate close connections so that none is
//! in doubt that is not (`linger`).
//!
//! ```no_run
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use service_kit::{channel::Channel, net::tcp_network};
//! let endpoint = tonic::transport::Endpoint::from_static("http://127.0.0.1:7000");
//! let channel = Channel::lazy(&endpoint, tcp_network());
//! # Ok(()) }
//! ```

mod replay;

use std::{
    error::Error,
    fmt,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use http::{Request, Response};
use tonic::{
    body::Body,
    transport::{self, Endpoint},
};
use tower::{Service, ServiceExt};

use self::replay::Replay;
use crate::{
    limits::TRANSPARENT_RETRIES_MAX,
    net::{Connector, SharedNetwork},
};

/// A channel to one server. Clones share its connection.
#[derive(Clone)]
pub struct Channel {
    inner: transport::Channel,
}

impl Channel {
    /// Connects through `network` when it is first used, and again whenever the connection is gone. Needs a tokio runtime.
    pub fn lazy(endpoint: &Endpoint, network: SharedNetwork) -> Self {
        Self { inner: endpoint.connect_with_connector_lazy(Connector::new(network)) }
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").finish_non_exhaustive()
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = transport::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, transport::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), transport::Error>> {
        // Each attempt waits for its own connection.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut channel = self.inner.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let replay = Replay::of(body);
            let mut retries = 0;
            loop {
                let attempt = Request::from_parts(head.clone(), Body::new(replay.attempt()));
                let answer = match channel.ready().await {
                    Ok(channel) => channel.call(attempt).await,
                    Err(error) => Err(error),
                };
                match answer {
                    Err(error)
                        if retries < TRANSPARENT_RETRIES_MAX
                            && is_unprocessed(&error)
                            && replay.is_complete() =>
                    {
                        retries += 1;
                        tracing::debug!(retries, "a connection was replaced before it took a call");
                    }
                    answer => {
                        replay.settle();
                        return answer;
                    }
                }
            }
        })
    }
}

/// Whether the server's application is known not to have seen the request: it was never written, or the server said that it is not looked
/// at (RFC 9113 sections 6.8 and 8.7).
fn is_unprocessed(error: &(dyn Error + 'static)) -> bool {
    let mut source = Some(error);
    while let Some(error) = source {
        // The connection ended before the request was handed to it.
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled) {
            return true;
        }
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            let reason = error.reason();
            return error.is_remote()
                && ((error.is_go_away() && reason == Some(h2::Reason::NO_ERROR))
                    || (error.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM)));
        }
        source = error.source();
    }
    false
}
