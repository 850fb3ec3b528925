//! KeyPackages: once each, in the whole cluster.

use std::collections::BTreeSet;

use bytes::Bytes;
use concordat_proto::gateway::v1::{
    ClaimKeyPackageRequest, GetKeyPackageStatusRequest, UploadKeyPackagesRequest,
};
use futures::future::join_all;
use tonic::Code;

use crate::support::{assert_refused, client, gateway, member::Member, real::RealCluster};

fn claim(client_id: &'static [u8], claim_id: &'static [u8]) -> ClaimKeyPackageRequest {
    ClaimKeyPackageRequest {
        client_id: Bytes::from_static(client_id),
        claim_id: Bytes::from_static(claim_id),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_is_handed_out_once_over_two_gateways_at_the_same_time_and_the_last_resort_again_and_again() {
    const COUNT: usize = 12;
    let cluster = RealCluster::start().await;
    let (east, west) = (gateway(&cluster.addresses()).await, gateway(&cluster.addresses()).await);
    let bob = Member::new("bob");
    let mut key_packages: Vec<Bytes> = (0..COUNT).map(|_| bob.key_package(false)).collect();
    key_packages.push(bob.key_package(true));
    let mut bobs = client(&east, b"bob");
    let upload = UploadKeyPackagesRequest { key_packages, replace: false };
    for _ in 0..2 {
        let stored = bobs.upload_key_packages(upload.clone()).await.unwrap().into_inner();
        assert_eq!(
            (stored.one_time_left, stored.has_last_resort),
            (COUNT as u32, true),
            "the same upload changes nothing"
        );
    }

    let claims =
        (0..COUNT + 3).map(|n| {
            let mut calls = client(if n % 2 == 0 { &east } else { &west }, b"alice");
            async move {
                calls.claim_key_package(claim(b"bob", b"")).await.unwrap().into_inner().key_package.unwrap()
            }
        });
    let claimed = join_all(claims).await;
    let (last_resort, once): (Vec<_>, Vec<_>) = claimed.into_iter().partition(|k| k.last_resort);
    let distinct: BTreeSet<_> = once.iter().map(|k| k.key_package_ref.clone()).collect();
    assert_eq!((once.len(), distinct.len(), last_resort.len()), (COUNT, COUNT, 3));

    let status = bobs.get_key_package_status(GetKeyPackageStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.one_time_left, status.has_last_resort), (0, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_claim_again_gets_the_same_key_package_and_an_empty_shelf_says_so() {
    let cluster = RealCluster::start().await;
    let (east, west) = (gateway(&cluster.addresses()).await, gateway(&cluster.addresses()).await);
    let bob = Member::new("bob");
    let (mut bobs, mut alices) = (client(&east, b"bob"), client(&west, b"alice"));
    let key_packages = vec![bob.key_package(false), bob.key_package(false)];
    bobs.upload_key_packages(UploadKeyPackagesRequest { key_packages, replace: false }).await.unwrap();
    let first =
        alices.claim_key_package(claim(b"bob", b"0123456789abcdef")).await.unwrap().into_inner().key_package;
    // After a lost reply the same client asks again, at another gateway.
    let mut at_east = client(&east, b"alice");
    let again =
        at_east.claim_key_package(claim(b"bob", b"0123456789abcdef")).await.unwrap().into_inner().key_package;
    assert_eq!(first, again);
    alices.claim_key_package(claim(b"bob", b"another id here.")).await.unwrap();
    let error = alices.claim_key_package(claim(b"bob", b"")).await.unwrap_err();
    assert_refused(&error, Code::ResourceExhausted, "KEY_PACKAGES_EXHAUSTED");
    let replacing = UploadKeyPackagesRequest { key_packages: vec![bob.key_package(false)], replace: true };
    assert_eq!(bobs.upload_key_packages(replacing).await.unwrap().into_inner().one_time_left, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_owner_uploads_a_key_package() {
    let cluster = RealCluster::start().await;
    let gateway = gateway(&cluster.addresses()).await;
    let (bob, mallory) = (Member::new("bob"), Member::new("mallory"));
    let mut mallorys = client(&gateway, b"mallory");
    // One that is another's, hidden among one's own: none is stored.
    let key_packages = vec![mallory.key_package(false), bob.key_package(false)];
    let error = mallorys
        .upload_key_packages(UploadKeyPackagesRequest { key_packages, replace: false })
        .await
        .unwrap_err();
    assert_refused(&error, Code::PermissionDenied, "PERMISSION_DENIED");
    for owner in [&b"bob"[..], b"mallory"] {
        let status = client(&gateway, owner).get_key_package_status(GetKeyPackageStatusRequest {}).await;
        assert_eq!(status.unwrap().into_inner().one_time_left, 0);
    }
}
