//! The wire formats of Concordat, generated from the `.proto` files beside this crate. Every field is documented there.
//! Only [`convert`] and [`codec`] are written by hand.
#![allow(missing_docs, unreachable_pub, clippy::all)]

#[warn(missing_docs, clippy::all)]
pub mod codec;
#[warn(missing_docs, clippy::all)]
pub mod convert;

/// All `.proto` files as one encoded `FileDescriptorSet`, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// `concordat.log.v1`: what a group's log holds and what can become of a submission.
pub mod log {
    pub mod v1 {
        tonic::include_proto!("concordat.log.v1");
    }
}

/// `concordat.ordering.v1`: the cluster's API for gateways and operators.
pub mod ordering {
    pub mod v1 {
        tonic::include_proto!("concordat.ordering.v1");
    }
}

/// `concordat.gateway.v1`: the public API.
pub mod gateway {
    pub mod v1 {
        tonic::include_proto!("concordat.gateway.v1");
    }
}

/// `concordat.raft.v1`: what ordering nodes say to one another.
pub mod raft {
    pub mod v1 {
        tonic::include_proto!("concordat.raft.v1");
    }
}

/// `concordat.relay.v1`: what gateways say to one another.
pub mod relay {
    pub mod v1 {
        tonic::include_proto!("concordat.relay.v1");
    }
}

/// `concordat.mesh.v1`: how gateways bring the items of DiMLS groups to one another.
pub mod mesh {
    pub mod v1 {
        tonic::include_proto!("concordat.mesh.v1");
    }
}
