//! Tables and their versions.

use rusqlite::{Connection, TransactionBehavior};

use super::StoreError;

/// Marks a SQLite file as ours ("CCDT").
const APPLICATION_ID: i32 = 0x4343_4454;

/// One script per version, in order. The number of scripts is the newest version; a script never changes once it was released.
const VERSIONS: [&str; 2] = [
    "
    CREATE TABLE identity (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        client_id BLOB NOT NULL,
        ciphersuite INTEGER NOT NULL,
        signature_key BLOB NOT NULL
    );
    -- A namespace of OpenMLS key-values. Number 1 belongs to the identity (KeyPackages); every other is one state of one group.
    CREATE TABLE namespaces (
        id INTEGER PRIMARY KEY,
        group_id BLOB,
        state_id BLOB,
        UNIQUE (group_id, state_id)
    );
    INSERT INTO namespaces (id) VALUES (1);
    CREATE TABLE key_values (
        namespace INTEGER NOT NULL REFERENCES namespaces (id) ON DELETE CASCADE,
        key BLOB NOT NULL,
        value BLOB NOT NULL,
        PRIMARY KEY (namespace, key)
    ) WITHOUT ROWID;
    CREATE TABLE groups (
        group_id BLOB PRIMARY KEY,
        record BLOB NOT NULL
    ) WITHOUT ROWID;
    -- What this client wants in a group's log and has not seen there yet, in order.
    CREATE TABLE outbox (
        group_id BLOB NOT NULL,
        id INTEGER NOT NULL,
        item BLOB NOT NULL,
        PRIMARY KEY (group_id, id)
    ) WITHOUT ROWID;
    CREATE TABLE messages (
        group_id BLOB NOT NULL,
        seq INTEGER NOT NULL,
        epoch INTEGER NOT NULL,
        sender BLOB NOT NULL,
        -- For a message of this client: its number in the outbox.
        item INTEGER,
        body BLOB NOT NULL,
        PRIMARY KEY (group_id, seq)
    ) WITHOUT ROWID;
",
    "
    -- States of DeMLS groups side by side (demls::states).
    CREATE TABLE demls_records (
        group_id BLOB NOT NULL,
        kind INTEGER NOT NULL,
        id BLOB NOT NULL,
        body BLOB NOT NULL,
        PRIMARY KEY (group_id, kind, id)
    ) WITHOUT ROWID;
    -- Entries of DeMLS groups since the log last said `Stable`.
    CREATE TABLE branch_entries (
        group_id BLOB NOT NULL,
        id BLOB NOT NULL,
        parent BLOB NOT NULL,
        epoch INTEGER NOT NULL,
        is_commit INTEGER NOT NULL,
        is_own INTEGER NOT NULL,
        processed INTEGER NOT NULL,
        -- The entry of the log that decides about it, and whether it lost.
        seq INTEGER,
        dead INTEGER NOT NULL,
        -- For an own commit, what it is meant to do.
        intent BLOB NOT NULL,
        -- What it carries, as long as only branches have it.
        body BLOB,
        PRIMARY KEY (group_id, id)
    ) WITHOUT ROWID;
    -- The entry that carried a message: the place in the log that has it, or says what became of it; the entry's id in groups that
    -- may have branches; 0 canonical, 1 on a branch, 2 on the side.
    ALTER TABLE messages ADD COLUMN log_seq INTEGER;
    ALTER TABLE messages ADD COLUMN entry_id BLOB;
    ALTER TABLE messages ADD COLUMN place INTEGER NOT NULL DEFAULT 0;
",
];

/// Brings the file to the newest version.
pub(super) fn migrate(db: &mut Connection) -> Result<(), StoreError> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    let version: i32 = tx.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let application: i32 = tx.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: i64 = tx.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))?;
    let known = VERSIONS.len() as i32;
    if application != APPLICATION_ID && (application != 0 || version != 0 || tables != 0) {
        return Err(StoreError::Foreign { expected: APPLICATION_ID, got: application });
    }
    if version > known {
        return Err(StoreError::NewerSchema { known, got: version });
    }
    for script in VERSIONS.iter().skip(version.max(0) as usize) {
        tx.execute_batch(script)?;
    }
    if version != known {
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.pragma_update(None, "user_version", known)?;
    }
    tx.commit()?;
    Ok(())
}
