//! One process of the floor: `bench floor-node`.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::Context;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Endpoint, Server},
};

use super::{
    pb::{Appends, Safe, floor_client::FloorClient, floor_server},
    progress::Progress,
    writer::{Job, Writer},
};
use crate::limits::{FLOOR_MESSAGE_MAX, FLOOR_WINDOW, STREAM_QUEUE};

/// `bench floor-node`, which `bench peers` starts for itself.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Where to listen.
    #[arg(long)]
    pub(super) listen: SocketAddr,
    /// What is written, over and over.
    #[arg(long)]
    pub(super) file: PathBuf,
    /// Nodes that are to store each append too. Without any, this node's own sync is enough for an answer.
    #[arg(long)]
    pub(super) pass_on: Vec<SocketAddr>,
}

/// Serves until it is killed.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let others = options.pass_on.iter().map(|other| Ok(endpoint(*other)?.connect_lazy()));
    let others = others.collect::<anyhow::Result<_>>()?;
    let (writer, jobs) = Writer::prepare(&options.file)?;
    let writing = tokio::task::spawn_blocking(move || writer.run());
    let service = floor_server::FloorServer::new(Node { jobs, others });
    let service = service.max_decoding_message_size(FLOOR_MESSAGE_MAX);
    let server = Server::builder()
        .tcp_nodelay(true)
        .initial_stream_window_size(FLOOR_WINDOW)
        .initial_connection_window_size(FLOOR_WINDOW)
        .add_service(service)
        .serve(options.listen);
    tokio::select! {
        served = server => served.with_context(|| format!("serving on {}", options.listen)),
        written = writing => written?.with_context(|| format!("writing {}", options.file.display())),
    }
}

/// How to reach a node.
pub(super) fn endpoint(address: SocketAddr) -> anyhow::Result<Endpoint> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    Ok(endpoint
        .tcp_nodelay(true)
        .initial_stream_window_size(FLOOR_WINDOW)
        .initial_connection_window_size(FLOOR_WINDOW))
}

/// A client of a node.
pub(super) fn client(channel: Channel) -> FloorClient<Channel> {
    FloorClient::new(channel).max_decoding_message_size(FLOOR_MESSAGE_MAX)
}

struct Node {
    jobs: mpsc::Sender<Job>,
    others: Vec<Channel>,
}

#[tonic::async_trait]
impl floor_server::Floor for Node {
    type AppendStream = ReceiverStream<Result<Safe, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<Appends>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let (answers, outgoing) = mpsc::channel(STREAM_QUEUE);
        let progress = Arc::new(Progress::new(1 + self.others.len()));
        let mut passed_on = Vec::new();
        for (n, other) in self.others.iter().enumerate() {
            let (appends, sent) = mpsc::channel(STREAM_QUEUE);
            let synced = client(other.clone()).append(ReceiverStream::new(sent)).await?.into_inner();
            tokio::spawn(follow(synced, n + 1, progress.clone()));
            passed_on.push(appends);
        }
        tokio::spawn(serve(request.into_inner(), passed_on, self.jobs.clone(), progress, answers));
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

/// Notes what another node has synced, until its stream ends.
async fn follow(mut synced: Streaming<Safe>, node: usize, progress: Arc<Progress>) {
    while let Ok(Some(Safe { count })) = synced.message().await {
        progress.reach(node, count);
    }
}

/// One stream of appends, until an end of it is gone.
async fn serve(
    mut appends: Streaming<Appends>,
    passed_on: Vec<mpsc::Sender<Appends>>,
    jobs: mpsc::Sender<Job>,
    progress: Arc<Progress>,
    answers: mpsc::Sender<Result<Safe, Status>>,
) {
    let (mut taken, mut told) = (0, 0);
    loop {
        tokio::select! {
            message = appends.message() => {
                let Ok(Some(message)) = message else { return };
                taken += message.appends.len() as u64;
                for other in &passed_on {
                    if other.send(message.clone()).await.is_err() {
                        return;
                    }
                }
                let job = Job { appends: message.appends, count: taken, progress: progress.clone() };
                if jobs.send(job).await.is_err() {
                    return;
                }
            }
            count = progress.safe_beyond(told) => {
                told = count;
                if answers.send(Ok(Safe { count })).await.is_err() {
                    return;
                }
            }
        }
    }
}
