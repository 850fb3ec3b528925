//! The rows of streams: what one item changes, and what is dropped at the bounds. Every function is part of a transaction.

use group_log::{ClientId, dimls::DgroupId};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{
    check::Item,
    limits::ITEM_OVERHEAD_BYTES,
    store::{Bounds, StoreError, Stored},
    stream::{Place, Stream},
};

pub(super) const TABLES: &str = "
    CREATE TABLE storage (
        one INTEGER PRIMARY KEY CHECK (one = 1), id BLOB NOT NULL, mark INTEGER NOT NULL, bytes INTEGER NOT NULL
    );
    CREATE TABLE dgroups (id BLOB PRIMARY KEY, setup BLOB NOT NULL, mark INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE members (client BLOB NOT NULL, dgroup BLOB NOT NULL, PRIMARY KEY (client, dgroup)) WITHOUT ROWID;
    CREATE TABLE streams (
        dgroup BLOB NOT NULL, owner BLOB NOT NULL,
        first INTEGER NOT NULL, last INTEGER NOT NULL, bytes INTEGER NOT NULL, mark INTEGER NOT NULL,
        PRIMARY KEY (dgroup, owner)
    ) WITHOUT ROWID;
    CREATE INDEX streams_by_mark ON streams (mark);
    CREATE INDEX streams_by_bytes ON streams (bytes);
    CREATE INDEX dgroups_by_mark ON dgroups (mark);
    CREATE TABLE items (
        dgroup BLOB NOT NULL, owner BLOB NOT NULL, seq INTEGER NOT NULL, message BLOB NOT NULL, welcome BLOB NOT NULL,
        PRIMARY KEY (dgroup, owner, seq)
    ) WITHOUT ROWID;
    CREATE TRIGGER bytes_begin AFTER INSERT ON streams BEGIN UPDATE storage SET bytes = bytes + new.bytes; END;
    CREATE TRIGGER bytes_change AFTER UPDATE OF bytes ON streams
    BEGIN UPDATE storage SET bytes = bytes + new.bytes - old.bytes; END;
";

pub(super) fn insert(
    tx: &Transaction<'_>,
    dgroup: &DgroupId,
    item: &Item,
    mark: u64,
    bounds: &Bounds,
    dropped: &mut u64,
) -> Result<(Stored, bool), StoreError> {
    let owner = &item.owner;
    let (stream, bytes) = load(tx, dgroup, owner)?;
    let contiguous = stream.last;
    let mut same = tx.prepare_cached(
        "SELECT message = ?4 AND welcome = ?5 FROM items WHERE dgroup = ?1 AND owner = ?2 AND seq = ?3",
    )?;
    let here: Option<bool> = same
        .query_row(
            params![dgroup.0, owner.as_bytes(), item.seq, item.message.as_ref(), item.welcome.as_ref()],
            |row| row.get(0),
        )
        .optional()?;
    match (here, stream.place(item.seq)) {
        (Some(true), _) => return Ok((Stored::Kept { contiguous }, false)),
        (Some(false), _) => return Ok((Stored::Conflict, false)),
        (None, Place::Taken) => return Ok((Stored::Dropped, false)),
        (None, Place::TooFar) => return Ok((Stored::TooFar { contiguous }, false)),
        // What waits for others cannot be dropped for what comes later, so it has to fit.
        (None, Place::Ahead) if bytes + weight(item) > bounds.stream_bytes => {
            return Ok((Stored::TooFar { contiguous }, false));
        }
        (None, Place::Next | Place::Ahead) => {}
    }
    let mut put = tx.prepare_cached(
        "INSERT INTO items (dgroup, owner, seq, message, welcome) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    put.execute(params![dgroup.0, owner.as_bytes(), item.seq, item.message.as_ref(), item.welcome.as_ref()])?;
    let bytes = bytes + weight(item);
    let stream = advance(tx, dgroup, owner, stream)?;
    let (stream, bytes) = drop_oldest(tx, dgroup, owner, (stream, bytes), bounds.stream_bytes, dropped)?;
    save(tx, dgroup, owner, stream, bytes, mark)?;
    Ok((Stored::Kept { contiguous: stream.last }, true))
}

/// What an item counts for, in bytes.
pub(super) fn weight(item: &Item) -> u64 {
    item.bytes() as u64 + ITEM_OVERHEAD_BYTES
}

/// Moves the end over everything that has no gap any more.
pub(super) fn advance(
    tx: &Transaction<'_>,
    dgroup: &DgroupId,
    owner: &ClientId,
    mut stream: Stream,
) -> Result<Stream, StoreError> {
    let mut there = tx.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM items WHERE dgroup = ?1 AND owner = ?2 AND seq = ?3)",
    )?;
    while there.query_row(params![dgroup.0, owner.as_bytes(), stream.last + 1], |row| row.get(0))? {
        stream.last += 1;
    }
    Ok(stream)
}

/// Drops the oldest items until the stream keeps its bound. The newest one stays in any case.
pub(super) fn drop_oldest(
    tx: &Transaction<'_>,
    dgroup: &DgroupId,
    owner: &ClientId,
    (mut stream, mut bytes): (Stream, u64),
    bound: u64,
    dropped: &mut u64,
) -> Result<(Stream, u64), StoreError> {
    while bytes > bound && stream.first < stream.last {
        let key = params![dgroup.0, owner.as_bytes(), stream.first];
        let size: u64 = tx.query_row(
            "DELETE FROM items WHERE dgroup = ?1 AND owner = ?2 AND seq = ?3
             RETURNING length(message) + length(welcome)",
            key,
            |row| row.get(0),
        )?;
        bytes = bytes.saturating_sub(size + ITEM_OVERHEAD_BYTES);
        stream.first += 1;
        *dropped += 1;
    }
    Ok((stream, bytes))
}

/// Takes from the largest streams what all of them are too large by.
pub(super) fn keep_total(
    tx: &Transaction<'_>,
    mark: u64,
    bounds: &Bounds,
    dropped: &mut u64,
) -> Result<(), StoreError> {
    loop {
        let total: u64 = tx.query_row("SELECT bytes FROM storage", [], |row| row.get(0))?;
        if total <= bounds.total_bytes {
            return Ok(());
        }
        let largest = tx
            .query_row(
                "SELECT dgroup, owner, bytes FROM streams WHERE first < last ORDER BY bytes DESC LIMIT 1",
                [],
                |row| Ok((row.get::<_, [u8; 32]>(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, u64>(2)?)),
            )
            .optional()?;
        let Some((dgroup, owner, before)) = largest else {
            return Err(StoreError::NoRoom(bounds.total_bytes));
        };
        let owner = ClientId::new(owner).map_err(|_| StoreError::Damaged("an owner"))?;
        let dgroup = DgroupId(dgroup);
        let loaded = load(tx, &dgroup, &owner)?;
        let target = before.saturating_sub(total - bounds.total_bytes);
        let (stream, bytes) = drop_oldest(tx, &dgroup, &owner, loaded, target, dropped)?;
        save(tx, &dgroup, &owner, stream, bytes, mark)?;
    }
}

pub(super) fn load(
    db: &Connection,
    dgroup: &DgroupId,
    owner: &ClientId,
) -> Result<(Stream, u64), StoreError> {
    let mut query =
        db.prepare_cached("SELECT first, last, bytes FROM streams WHERE dgroup = ?1 AND owner = ?2")?;
    let found = query
        .query_row(params![dgroup.0, owner.as_bytes()], |row| {
            Ok((Stream { first: row.get(0)?, last: row.get(1)? }, row.get(2)?))
        })
        .optional()?;
    Ok(found.unwrap_or((Stream::EMPTY, 0)))
}

pub(super) fn save(
    db: &Connection,
    dgroup: &DgroupId,
    owner: &ClientId,
    stream: Stream,
    bytes: u64,
    mark: u64,
) -> Result<(), StoreError> {
    let mut put = db.prepare_cached(
        "INSERT INTO streams (dgroup, owner, first, last, bytes, mark) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (dgroup, owner) DO UPDATE
         SET first = excluded.first, last = excluded.last, bytes = excluded.bytes, mark = excluded.mark",
    )?;
    put.execute(params![dgroup.0, owner.as_bytes(), stream.first, stream.last, bytes, mark])?;
    Ok(())
}
