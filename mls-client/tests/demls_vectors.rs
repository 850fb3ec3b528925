//! The test vectors are what the program writes, and what a second derivation straight from HKDF finds.
#![allow(clippy::unwrap_used)] // A panic is the report.

mod demls_common;
#[path = "../examples/demls_vectors.rs"]
#[allow(dead_code, unreachable_pub)]
mod generator;

use demls_common::independent::{
    bits, copath, derive_secret, expand_with_label, extract, node, output, path,
};
use serde_json::Value;

fn vectors() -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(generator::FILE);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn bytes(vector: &Value, field: &str) -> Vec<u8> {
    hex::decode(vector[field].as_str().unwrap()).unwrap()
}

fn list(vector: &Value, field: &str) -> Vec<Vec<u8>> {
    let items = vector[field].as_array().unwrap();
    items.iter().map(|item| hex::decode(item.as_str().unwrap()).unwrap()).collect()
}

#[test]
fn the_file_is_what_the_program_writes() {
    assert_eq!(vectors(), generator::vectors().unwrap());
}

#[test]
fn the_pprf_vectors_hold_in_a_second_derivation() {
    for vector in vectors()["pprf"].as_array().unwrap() {
        let root = bytes(vector, "root");
        assert_eq!(bytes(vector, "encoding"), [&[1, 32, 1][..], &root].concat());
        let mut punctured = Vec::new();
        for step in vector["steps"].as_array().unwrap() {
            let input = bytes(step, "input");
            let mut secrets = path(&root, &input);
            assert_eq!(bytes(step, "output"), secrets.pop().unwrap());
            assert_eq!(bytes(step, "output"), output(&root, &input));
            assert_eq!(list(step, "path"), secrets);
            assert_eq!(list(step, "copath"), copath(&root, &input));
            punctured.push(bits(&input));
            assert_eq!(bytes(step, "encoding_after_puncture"), encoding(&root, &punctured));
        }
    }
}

/// The encoding, from the description in docs/demls.md: which nodes are known follows from the punctured paths alone.
fn encoding(root: &[u8], punctured: &[String]) -> Vec<u8> {
    let mut out = vec![1, 32];
    encode_node(root, "", punctured, &mut out);
    out
}

fn encode_node(root: &[u8], prefix: &str, punctured: &[String], out: &mut Vec<u8>) {
    let on_path = |prefix: &str| punctured.iter().any(|path| path.starts_with(prefix));
    if !on_path(prefix) {
        out.push(1);
        out.extend(node(root, prefix));
        return;
    }
    if prefix.len() == 256 {
        out.push(0);
        return;
    }
    // As long as only one side is punctured, it is a chain.
    let (mut end, mut path, mut beside) = (prefix.to_owned(), String::new(), Vec::new());
    while end.len() < 256 {
        let (left, right) = (format!("{end}0"), format!("{end}1"));
        let (on, off, side) = match (on_path(&left), on_path(&right)) {
            (true, false) => (left, right, '0'),
            (false, true) => (right, left, '1'),
            _ => break,
        };
        path.push(side);
        beside.extend(node(root, &off));
        end = on;
    }
    if path.is_empty() {
        out.push(2);
        encode_node(root, &format!("{prefix}0"), punctured, out);
        encode_node(root, &format!("{prefix}1"), punctured, out);
        return;
    }
    out.push(3);
    out.extend((path.len() as u16).to_be_bytes());
    for bits in path.as_bytes().chunks(8) {
        let text = format!("{:0<8}", std::str::from_utf8(bits).unwrap());
        out.push(u8::from_str_radix(&text, 2).unwrap());
    }
    out.extend(beside);
    encode_node(root, &end, punctured, out);
}

#[test]
fn the_key_schedule_vectors_hold_in_a_second_derivation() {
    for vector in vectors()["key_schedule"].as_array().unwrap() {
        let get = |field: &str| bytes(vector, field);
        assert_eq!(get("dmls_epoch"), derive_secret(&get("epoch_secret"), "epoch"));
        assert_eq!(get("parent_init_secret"), derive_secret(&get("epoch_secret"), "parent_init"));
        assert_eq!(get("commit_secret"), derive_secret(&get("path_secret"), "path"));
        assert_eq!(get("commit_confirmation"), derive_secret(&get("path_secret"), "conf"));
        let input = expand_with_label(&get("commit_confirmation"), "child_init", &get("new_group_context"));
        assert_eq!(get("input"), input);
        assert_eq!(get("init_secret"), output(&get("parent_init_secret"), &input));
        assert_eq!(get("intermediate_secret"), extract(&get("init_secret"), &get("commit_secret")));
        let joiner = expand_with_label(&get("intermediate_secret"), "joiner", &get("new_group_context"));
        assert_eq!(get("joiner_secret"), joiner);
    }
}

#[test]
fn the_message_vectors_are_the_message_and_the_epoch_as_a_vector() {
    for vector in vectors()["messages"].as_array().unwrap() {
        let framed = [bytes(vector, "message"), vec![32], bytes(vector, "dmls_epoch")].concat();
        assert_eq!(bytes(vector, "dmls_message"), framed);
    }
}
