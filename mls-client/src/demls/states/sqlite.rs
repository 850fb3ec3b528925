//! Records in SQLite, on a connection or inside a transaction of the caller.

use rusqlite::{Connection, OptionalExtension, params};
use zeroize::Zeroizing;

use super::{
    StoreError,
    records::{Record, RecordChange, RecordName, Records},
};

/// Records in the table `demls_records` of a database. On a plain connection a batch is a transaction of its own; inside a
/// transaction it is part of it, so that states change in one step with whatever else the caller stores.
///
/// The connection must have `secure_delete` on, and a journal that keeps no old pages: TRUNCATE, or a WAL that is cut to nothing
/// after deletions.
pub struct SqliteRecords<'a>(&'a Connection);

impl<'a> SqliteRecords<'a> {
    /// Records on `db`. [`SqliteRecords::create_table`] must have run on it once.
    pub fn new(db: &'a Connection) -> Self {
        SqliteRecords(db)
    }

    /// Creates the table if it is not there.
    pub fn create_table(db: &Connection) -> Result<(), StoreError> {
        db.execute_batch(
            "CREATE TABLE IF NOT EXISTS demls_records (
                 group_id BLOB NOT NULL,
                 kind INTEGER NOT NULL,
                 id BLOB NOT NULL,
                 body BLOB NOT NULL,
                 PRIMARY KEY (group_id, kind, id)
             ) WITHOUT ROWID",
        )?;
        Ok(())
    }

    fn write(&self, group_id: &[u8], changes: &[RecordChange]) -> Result<(), StoreError> {
        let mut put = self.0.prepare_cached(
            "INSERT INTO demls_records (group_id, kind, id, body) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (group_id, kind, id) DO UPDATE SET body = excluded.body",
        )?;
        let mut delete = self
            .0
            .prepare_cached("DELETE FROM demls_records WHERE group_id = ?1 AND kind = ?2 AND id = ?3")?;
        for change in changes {
            match change {
                RecordChange::Put(name, body) => {
                    let (kind, id) = name.to_parts();
                    put.execute(params![group_id, kind as u8, id, body.as_slice()])?;
                }
                RecordChange::Delete(name) => {
                    let (kind, id) = name.to_parts();
                    delete.execute(params![group_id, kind as u8, id])?;
                }
            }
        }
        Ok(())
    }
}

impl Records for SqliteRecords<'_> {
    fn all(&self, group_id: &[u8]) -> Result<Vec<Record>, StoreError> {
        let mut query =
            self.0.prepare_cached("SELECT kind, id, body FROM demls_records WHERE group_id = ?1")?;
        let mut rows = query.query([group_id])?;
        let mut records = Vec::new();
        while let Some(row) = rows.next()? {
            let name = RecordName::from_parts(row.get(0)?, &row.get::<_, Vec<u8>>(1)?)?;
            records.push(Record { name, body: Zeroizing::new(row.get(2)?) });
        }
        Ok(records)
    }

    fn get(&self, group_id: &[u8], name: RecordName) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let (kind, id) = name.to_parts();
        let mut query = self
            .0
            .prepare_cached("SELECT body FROM demls_records WHERE group_id = ?1 AND kind = ?2 AND id = ?3")?;
        let body = query.query_row(params![group_id, kind as u8, id], |row| row.get(0)).optional()?;
        Ok(body.map(Zeroizing::new))
    }

    fn apply(&mut self, group_id: &[u8], changes: &[RecordChange]) -> Result<(), StoreError> {
        if !self.0.is_autocommit() {
            return self.write(group_id, changes);
        }
        let transaction = self.0.unchecked_transaction()?;
        self.write(group_id, changes)?;
        Ok(transaction.commit()?)
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        StoreError::Backend(error.into())
    }
}
