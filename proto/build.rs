//! Compiles the .proto files with protox, so that no system `protoc` is needed.

use std::{env, error::Error, fs, path::PathBuf};

const FILES: [&str; 9] = [
    "concordat/log/v1/log.proto",
    "concordat/ordering/v1/command.proto",
    "concordat/ordering/v1/ordering.proto",
    "concordat/ordering/v1/admin.proto",
    "concordat/gateway/v1/gateway.proto",
    "concordat/gateway/v1/dimls.proto",
    "concordat/raft/v1/raft.proto",
    "concordat/relay/v1/relay.proto",
    "concordat/mesh/v1/mesh.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=concordat");
    let descriptors = protox::compile(FILES, ["."])?;
    // Kept whole for gRPC reflection.
    let out = PathBuf::from(env::var("OUT_DIR")?).join("descriptors.bin");
    fs::write(out, prost::Message::encode_to_vec(&descriptors))?;
    // Message bytes are sliced out of the frame they came in, not copied.
    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("crate::codec::SizedCodec")
        .compile_fds(descriptors)?;
    Ok(())
}
