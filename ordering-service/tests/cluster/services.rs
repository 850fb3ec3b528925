//! What every gRPC server offers beside its own calls: its health, and what can be called.

use concordat_proto::ordering::v1::QuorumState;
use tonic::{Code, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::support::{Cluster, until, url};

const ORDERING: &str = "concordat.ordering.v1.Ordering";

async fn health(channel: &Channel) -> ServingStatus {
    let request = HealthCheckRequest { service: ORDERING.into() };
    HealthClient::new(channel.clone()).check(request).await.unwrap().into_inner().status()
}

async fn channel(cluster: &Cluster, node: u64) -> Channel {
    Channel::from_shared(url(cluster.node(node))).unwrap().connect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_healthy_once_it_can_serve_and_not_when_it_is_about_to_stop() {
    let empty = Cluster::empty(1).await;
    assert_eq!(health(&channel(&empty, 1).await).await, ServingStatus::NotServing, "it is in no cluster");
    empty.stop().await;

    let cluster = Cluster::start(3).await;
    let at_first = channel(&cluster, 1).await;
    until("the node is healthy", async || health(&at_first).await == ServingStatus::Serving).await;
    let unknown = HealthCheckRequest { service: "no.such.Service".into() };
    let refused = HealthClient::new(at_first.clone()).check(unknown).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    cluster.node(1).node().drain.cancel();
    until("the node says that it stops", async || health(&at_first).await == ServingStatus::NotServing).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_tells_what_can_be_called() {
    let cluster = Cluster::start(1).await;
    let mut reflection = ServerReflectionClient::new(channel(&cluster, 1).await);
    let ask = |request| ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let message = std::any::type_name::<QuorumState>().rsplit("::").next().unwrap();
    let requests = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol(format!("concordat.ordering.v1.{message}"))),
    ];
    let answers = reflection.server_reflection_info(tokio_stream::iter(requests)).await.unwrap();
    let mut answers = answers.into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) =
        answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("no list")
    };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in [ORDERING, "concordat.ordering.v1.Admin", "grpc.health.v1.Health"] {
        assert!(names.contains(&name), "{names:?}");
    }
    let described = answers.message().await.unwrap().unwrap().message_response;
    assert!(
        matches!(described, Some(MessageResponse::FileDescriptorResponse(files)) if !files.file_descriptor_proto.is_empty())
    );
    cluster.stop().await;
}
