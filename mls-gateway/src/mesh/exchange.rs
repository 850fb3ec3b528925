//! `concordat.mesh.v1.Mesh`: what other gateways pull from this one.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use concordat_proto::{
    convert,
    mesh::v1::{
        FetchRequest, FetchResponse, Range, StreamState, WatchRequest, WatchResponse,
        mesh_server::{Mesh, MeshServer},
    },
};
use futures::{Stream as Futures, StreamExt};
use group_log::dimls::DgroupId;
use service_kit::shutdown::Drain;
use tokio::{sync::mpsc, time::sleep};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{
    api::on_disk,
    limits::{EVENTS_MAX, PAGE_ITEMS, RANGES_MAX, WATCH_PAGE},
    store::{MeshStore, Named},
};
use crate::{error::GatewayError, limits::CLUSTER_MESSAGE_BYTES_MAX};

/// The service. Clones share everything.
#[derive(Clone)]
pub struct Exchange {
    pub(crate) store: Arc<MeshStore>,
    pub(crate) drain: Drain,
}

/// The service as it is served.
#[derive(Clone)]
pub(crate) struct Served {
    exchange: Exchange,
    /// A watch that is older is ended, so that the other gateway begins it anew over a new connection.
    watch_age: Duration,
}

type Answers<T> = Pin<Box<dyn Futures<Item = Result<T, Status>> + Send>>;

impl Exchange {
    /// The service to be served, to gateways only, over connections that are replaced after `connection_age`.
    pub(crate) fn into_service(self, connection_age: Duration) -> MeshServer<Served> {
        let served = Served { exchange: self, watch_age: connection_age };
        MeshServer::new(served).max_encoding_message_size(CLUSTER_MESSAGE_BYTES_MAX)
    }

    async fn tell(
        self,
        mut after: u64,
        answers: mpsc::Sender<Result<WatchResponse, Status>>,
    ) -> Result<(), GatewayError> {
        let storage_id = Bytes::copy_from_slice(&self.store.storage_id());
        let mut marks = self.store.marks();
        loop {
            let newest = *marks.borrow_and_update();
            while after < newest {
                let changes = on_disk(&self.store, move |store| store.changes(after, WATCH_PAGE)).await?;
                let just_came = self.store.recent(after, changes.mark).into_iter();
                let items = just_came
                    .map(|(id, item)| FetchResponse { dgroup_id: id.to_bytes(), item: Some(item.into()) });
                after = changes.mark;
                let answer = WatchResponse {
                    storage_id: storage_id.clone(),
                    mark: after,
                    setups: changes.setups,
                    streams: changes.streams.iter().map(state).collect(),
                    items: items.collect(),
                };
                if answers.send(Ok(answer)).await.is_err() {
                    return Ok(());
                }
            }
            tokio::select! {
                changed = marks.changed() => if changed.is_err() { return Err(GatewayError::Stopping) },
                () = self.drain.begun() => return Err(GatewayError::Stopping),
                () = answers.closed() => return Ok(()),
            }
        }
    }

    async fn hand_out(
        self,
        ranges: Vec<Range>,
        answers: mpsc::Sender<Result<FetchResponse, Status>>,
    ) -> Result<(), GatewayError> {
        for Range { dgroup_id, owner, mut from, to } in ranges {
            let id = DgroupId::from_slice(&dgroup_id)
                .ok_or_else(|| GatewayError::bad_field("dgroup_id", "32 bytes", dgroup_id.len()))?;
            let owner = convert::client_id("owner", owner).map_err(GatewayError::bad_wire)?;
            while from <= to {
                let who = owner.clone();
                let page =
                    on_disk(&self.store, move |store| store.read(&id, &who, from, to, PAGE_ITEMS)).await?;
                let Some(last) = page.last() else { break };
                from = last.seq + 1;
                for item in page {
                    let answer = FetchResponse { dgroup_id: dgroup_id.clone(), item: Some(item.into()) };
                    if answers.send(Ok(answer)).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }
}

fn state(named: &Named) -> StreamState {
    StreamState {
        dgroup_id: named.dgroup.to_bytes(),
        owner: named.owner.to_bytes(),
        first: named.stream.first,
        last: named.stream.last,
    }
}

#[tonic::async_trait]
impl Mesh for Served {
    type WatchStream = Answers<WatchResponse>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let WatchRequest { storage_id, after } = request.into_inner();
        // Marks of another storage mean nothing here.
        let after = if storage_id == self.exchange.store.storage_id().as_slice() { after } else { 0 };
        let (answers, told) = mpsc::channel(EVENTS_MAX);
        let (exchange, hold) = (self.exchange.clone(), self.exchange.drain.hold());
        tokio::spawn(async move {
            let _hold = hold;
            if let Err(error) = exchange.tell(after, answers.clone()).await {
                let _ = answers.send(Err(error.into())).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(told).take_until(sleep(self.watch_age)))))
    }

    type FetchStream = Answers<FetchResponse>;

    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let ranges = request.into_inner().ranges;
        if ranges.len() > RANGES_MAX {
            return Err(
                GatewayError::bad_field("ranges", format!("at most {RANGES_MAX}"), ranges.len()).into()
            );
        }
        let (answers, told) = mpsc::channel(EVENTS_MAX);
        let (exchange, hold) = (self.exchange.clone(), self.exchange.drain.hold());
        tokio::spawn(async move {
            let _hold = hold;
            if let Err(error) = exchange.hand_out(ranges, answers.clone()).await {
                let _ = answers.send(Err(error.into())).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(told))))
    }
}
