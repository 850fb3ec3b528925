//! Compiles the part of etcd's API that the benchmark speaks, and what the processes of the floor say to each other, without a system
//! `protoc`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let of = |file| protox::compile([file], ["proto"]);
    tonic_prost_build::configure().build_server(false).bytes(".").compile_fds(of("etcd.proto")?)?;
    tonic_prost_build::configure().bytes(".").compile_fds(of("floor.proto")?)?;
    Ok(())
}
