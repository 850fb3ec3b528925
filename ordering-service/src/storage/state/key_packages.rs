//! KeyPackages of clients (RFC 9420 section 10): each is handed out once, and one of last resort again and again.
//!
//! A claim carries an id. The same claimer with the same id gets the same KeyPackage again, so a claim whose answer was lost
//! is simply repeated. The last [`CLAIMS_REMEMBERED_PER_CLIENT`] claims of a client's KeyPackages are remembered for that, and
//! with them the references of the KeyPackages they got, so that uploading one of those again does not make it claimable
//! again. Beyond that window a repeated claim is a new claim.

use bytes::Bytes;
use concordat_proto::{
    convert,
    log::v1::{KeyPackage, Reason, Refused},
    ordering::v1::{
        ClaimKeyPackage, KeyPackageClaimed, KeyPackagesUploaded, UploadKeyPackages, outcome::Outcome,
    },
};

use super::{
    batch::Batch,
    keys::RowKey,
    rows::{ClaimOrderRow, KeyPackagesRow, decode_key_package, encode_key_package},
};
use crate::storage::{
    error::StorageError,
    limits::{
        CLAIM_ID_BYTES, CLAIMS_REMEMBERED_PER_CLIENT, KEY_PACKAGE_BYTES, KEY_PACKAGES_PER_CLIENT,
        KEY_PACKAGES_PER_UPLOAD,
    },
};

/// Value of a reference row: the KeyPackage is stored, or was handed out.
const STORED: &[u8] = &[1];
const HANDED_OUT: &[u8] = &[2];

/// Stores KeyPackages. One whose reference is known is skipped. All or none.
pub(super) fn upload(batch: &mut Batch<'_>, upload: UploadKeyPackages) -> Result<Outcome, StorageError> {
    let UploadKeyPackages { client_id: client, key_packages, replace } = upload;
    if let Some(refused) = check_upload(&client, &key_packages) {
        return Ok(Outcome::Refused(refused));
    }
    let mut row = key_packages_row(batch, &client)?;
    if !replace {
        let mut fresh = std::collections::BTreeSet::new();
        for package in key_packages.iter().filter(|package| !package.last_resort) {
            let reference = &package.key_package_ref;
            if batch.get(&RowKey::KeyPackageRef { client: &client, reference })?.is_none() {
                fresh.insert(reference);
            }
        }
        let wanted = row.one_time_left() + fresh.len() as u64;
        if wanted > KEY_PACKAGES_PER_CLIENT {
            return Ok(Outcome::Refused(over_quota(wanted)));
        }
    } else {
        remove_all(batch, &client, &mut row)?;
    }
    for package in &key_packages {
        add(batch, &client, &mut row, package)?;
    }
    batch.put(&RowKey::KeyPackages { client: &client }, row.encode());
    Ok(Outcome::KeyPackagesUploaded(KeyPackagesUploaded {
        one_time_left: left(&row),
        has_last_resort: row.has_last_resort,
    }))
}

/// Hands out a KeyPackage.
pub(super) fn claim(batch: &mut Batch<'_>, claim: ClaimKeyPackage) -> Result<Outcome, StorageError> {
    let ClaimKeyPackage { client_id: client, claim_id, claimer } = claim;
    if let Some(refused) = check_claim(&client, &claim_id, &claimer) {
        return Ok(Outcome::Refused(refused));
    }
    let mut row = key_packages_row(batch, &client)?;
    let key = RowKey::Claim { client: &client, claimer: &claimer, claim: &claim_id };
    let answer = |row: &KeyPackagesRow, package| {
        let claimed = KeyPackageClaimed { key_package: Some(package), one_time_left: left(row) };
        Ok(Outcome::KeyPackageClaimed(claimed))
    };
    if let Some(package) = batch.get_as(&key, "a claim", decode_key_package)? {
        return answer(&row, package);
    }
    let Some(package) = take(batch, &client, &mut row)? else {
        let message = "no KeyPackage of this client is left: ask the client to upload more";
        return Ok(Outcome::Refused(convert::refused(Reason::KeyPackagesExhausted, message, [])));
    };
    batch.put(&key, encode_key_package(&package));
    let one_time_ref = if package.last_resort { Bytes::new() } else { package.key_package_ref.clone() };
    let order = ClaimOrderRow { claimer, claim: claim_id, one_time_ref };
    batch.put(&RowKey::ClaimOrder { client: &client, number: row.next_claim }, order.encode());
    row.next_claim += 1;
    forget_old_claim(batch, &client, &mut row)?;
    batch.put(&RowKey::KeyPackages { client: &client }, row.encode());
    answer(&row, package)
}

/// The next one-time KeyPackage, which is then handed out; else the one of last resort, which stays.
fn take(
    batch: &mut Batch<'_>,
    client: &[u8],
    row: &mut KeyPackagesRow,
) -> Result<Option<KeyPackage>, StorageError> {
    if row.one_time_left() == 0 {
        return batch.get_as(&RowKey::LastResort { client }, "a key package", decode_key_package);
    }
    let package = stored(batch, client, row.first)?;
    batch.delete(&RowKey::KeyPackage { client, number: row.first });
    batch.put(&RowKey::KeyPackageRef { client, reference: &package.key_package_ref }, HANDED_OUT);
    row.first += 1;
    Ok(Some(package))
}

fn forget_old_claim(
    batch: &mut Batch<'_>,
    client: &[u8],
    row: &mut KeyPackagesRow,
) -> Result<(), StorageError> {
    if row.next_claim - row.first_claim <= CLAIMS_REMEMBERED_PER_CLIENT {
        return Ok(());
    }
    let key = RowKey::ClaimOrder { client, number: row.first_claim };
    let Some(old) = batch.get_as(&key, "a claim", ClaimOrderRow::decode)? else {
        return Err(batch.rows.bad_row("a claim", "it is missing"));
    };
    batch.delete(&key);
    batch.delete(&RowKey::Claim { client, claimer: &old.claimer, claim: &old.claim });
    if !old.one_time_ref.is_empty() {
        batch.delete(&RowKey::KeyPackageRef { client, reference: &old.one_time_ref });
    }
    row.first_claim += 1;
    Ok(())
}

fn add(
    batch: &mut Batch<'_>,
    client: &[u8],
    row: &mut KeyPackagesRow,
    package: &KeyPackage,
) -> Result<(), StorageError> {
    let known = RowKey::KeyPackageRef { client, reference: &package.key_package_ref };
    if batch.get(&known)?.is_some() {
        return Ok(());
    }
    batch.put(&known, STORED);
    if package.last_resort {
        remove_last_resort(batch, client)?;
        batch.put(&RowKey::LastResort { client }, encode_key_package(package));
        row.has_last_resort = true;
    } else {
        batch.put(&RowKey::KeyPackage { client, number: row.next }, encode_key_package(package));
        row.next += 1;
    }
    Ok(())
}

fn remove_all(batch: &mut Batch<'_>, client: &[u8], row: &mut KeyPackagesRow) -> Result<(), StorageError> {
    for number in row.first..row.next {
        let package = stored(batch, client, number)?;
        batch.delete(&RowKey::KeyPackage { client, number });
        batch.delete(&RowKey::KeyPackageRef { client, reference: &package.key_package_ref });
    }
    row.first = row.next;
    remove_last_resort(batch, client)?;
    row.has_last_resort = false;
    Ok(())
}

fn remove_last_resort(batch: &mut Batch<'_>, client: &[u8]) -> Result<(), StorageError> {
    let key = RowKey::LastResort { client };
    if let Some(old) = batch.get_as(&key, "a key package", decode_key_package)? {
        batch.delete(&key);
        batch.delete(&RowKey::KeyPackageRef { client, reference: &old.key_package_ref });
    }
    Ok(())
}

fn stored(batch: &Batch<'_>, client: &[u8], number: u64) -> Result<KeyPackage, StorageError> {
    let package =
        batch.get_as(&RowKey::KeyPackage { client, number }, "a key package", decode_key_package)?;
    package.ok_or_else(|| batch.rows.bad_row("a key package", "it is missing"))
}

fn key_packages_row(batch: &Batch<'_>, client: &[u8]) -> Result<KeyPackagesRow, StorageError> {
    let row =
        batch.get_as(&RowKey::KeyPackages { client }, "counts of key packages", KeyPackagesRow::decode)?;
    Ok(row.unwrap_or_default())
}

fn left(row: &KeyPackagesRow) -> u32 {
    u32::try_from(row.one_time_left()).unwrap_or(u32::MAX)
}

fn check_upload(client: &Bytes, packages: &[KeyPackage]) -> Option<Refused> {
    if let Err(error) = convert::client_id("client_id", client.clone()) {
        return Some(Refused::from(&error));
    }
    if packages.len() > KEY_PACKAGES_PER_UPLOAD {
        return Some(too_large("key_packages", KEY_PACKAGES_PER_UPLOAD, packages.len()));
    }
    packages.iter().find_map(|package| {
        let longest = group_log::limits::MAX_KEY_PACKAGE_REF_BYTES;
        let reference = length("key_package_ref", package.key_package_ref.len(), longest);
        reference.or_else(|| length("key_package", package.key_package.len(), KEY_PACKAGE_BYTES))
    })
}

fn check_claim(client: &Bytes, claim: &Bytes, claimer: &Bytes) -> Option<Refused> {
    let client = convert::client_id("client_id", client.clone());
    if let Err(error) = client.and_then(|_| convert::client_id("claimer", claimer.clone())) {
        return Some(Refused::from(&error));
    }
    length("claim_id", claim.len(), CLAIM_ID_BYTES)
}

fn length(field: &'static str, got: usize, limit: usize) -> Option<Refused> {
    match got {
        0 => {
            let expected = format!("1 to {limit} bytes");
            let message = format!("{field} must be {expected}, got nothing");
            let facts = [("field", field.into()), ("expected", expected), ("got", "0".into())];
            Some(convert::refused(Reason::Malformed, message, facts))
        }
        got if got > limit => Some(too_large(field, limit, got)),
        _ => None,
    }
}

fn too_large(field: &'static str, limit: usize, got: usize) -> Refused {
    let message = format!("{field} is {got} long, the limit is {limit}: send less");
    let facts = [("field", field.into()), ("limit", limit.to_string()), ("got", got.to_string())];
    convert::refused(Reason::TooLarge, message, facts)
}

fn over_quota(wanted: u64) -> Refused {
    let message = format!(
        "the client would store {wanted} one-time KeyPackages, the limit is {KEY_PACKAGES_PER_CLIENT}: \
         upload fewer, or replace those stored"
    );
    let facts = [("limit", KEY_PACKAGES_PER_CLIENT.to_string()), ("got", wanted.to_string())];
    convert::refused(Reason::KeyPackageQuota, message, facts)
}
