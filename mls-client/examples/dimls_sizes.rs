//! Prints the table of docs/dimls.md: `cargo run --release -p mls-client --example dimls_sizes`.

use mls_client::dimls::measure::measure;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!(
        "| members | UPDATE | acknowledge 1 | acknowledge 3 | replace 3: commit | its Welcome | message of 32 bytes | healing one UPDATE everywhere | stored, own Send Group | stored, all | taking in an UPDATE |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for members in [4, 16, 64, 256] {
        let m = measure(members)?;
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {:.1} ms |",
            m.members,
            m.update_bytes,
            m.acknowledge_one_bytes,
            m.acknowledge_all_bytes,
            m.replace_commit_bytes,
            m.replace_welcome_bytes,
            m.message_bytes,
            m.heal_one_bytes(),
            m.stored_own_bytes,
            m.stored_following_all_bytes(),
            m.receive_update_us as f64 / 1000.0
        );
    }
    Ok(())
}
