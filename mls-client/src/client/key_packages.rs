//! KeyPackages (RFC 9420 section 10): what lets others add this client while it is away.

use std::sync::Arc;

use bytes::Bytes;
use concordat_proto::gateway::v1::{ClaimKeyPackageRequest, UploadKeyPackagesRequest};
use group_log::ClientId;
use openmls::prelude::{KeyPackage, MlsMessageOut};

use super::Client;
use crate::{
    error::Error, identity::capabilities, limits::UPLOAD_BATCH, provider::Provider, store::IDENTITY,
};

/// KeyPackages of this client that the gateway holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyPackageCount {
    /// Each of them is handed out once.
    pub one_time: u32,
    /// One that is handed out once nothing else is left.
    pub last_resort: bool,
}

impl Client {
    /// Makes sure that others can add this client: uploads one-time KeyPackages if less than half of the wanted number is left, and
    /// one of last resort if there is none.
    pub async fn publish_key_packages(&self) -> Result<KeyPackageCount, Error> {
        let status = self.persist(|| self.transport().key_package_status()).await?;
        let wanted = self.options().one_time_key_packages;
        let one_time = if status.one_time_left * 2 < wanted { wanted - status.one_time_left } else { 0 };
        if one_time == 0 && status.has_last_resort {
            return Ok(KeyPackageCount { one_time: status.one_time_left, last_resort: true });
        }
        self.upload(one_time, !status.has_last_resort).await
    }

    /// Uploads a new KeyPackage of last resort. To be done after the old one was used.
    pub async fn renew_last_resort(&self) -> Result<KeyPackageCount, Error> {
        self.upload(0, true).await
    }

    /// Claims a KeyPackage of a client (an MLSMessage). The cluster hands out each of them once, so it should be used: with
    /// [`Change::invite_with`](super::Change::invite_with), now or when there is no quorum to claim one from.
    pub async fn claim_key_package(&self, client: &ClientId) -> Result<Bytes, Error> {
        let (client_id, claim_id) = (client.to_bytes(), self.rng().bytes::<16>().to_vec().into());
        let request = ClaimKeyPackageRequest { client_id, claim_id };
        let claimed = self.persist(|| self.transport().claim_key_package(request.clone())).await?;
        let claimed = claimed.key_package;
        Ok(claimed.ok_or_else(|| Error::Protocol("a claim without a KeyPackage".into()))?.key_package)
    }

    async fn upload(&self, one_time: u32, last_resort: bool) -> Result<KeyPackageCount, Error> {
        let mut kinds = vec![false; one_time as usize];
        kinds.extend(last_resort.then_some(true));
        let mut count = KeyPackageCount { one_time: 0, last_resort: false };
        for batch in kinds.chunks(UPLOAD_BATCH) {
            // Private parts are stored before anybody can see the public ones.
            let key_packages = self.make_key_packages(batch)?;
            let request = UploadKeyPackagesRequest { key_packages, replace: false };
            let answer = self.persist(|| self.transport().upload_key_packages(request.clone())).await?;
            count = KeyPackageCount { one_time: answer.one_time_left, last_resort: answer.has_last_resort };
        }
        Ok(count)
    }

    fn make_key_packages(&self, last_resort: &[bool]) -> Result<Vec<bytes::Bytes>, Error> {
        let (me, suite) = (self.me(), self.me().ciphersuite());
        self.with_store(|store| {
            let before = store.values(IDENTITY)?;
            let provider = Provider::new(Arc::clone(&self.inner.crypto), before.clone());
            let mut made = Vec::new();
            for last_resort in last_resort {
                let builder = KeyPackage::builder().leaf_node_capabilities(capabilities(suite));
                let builder = if *last_resort { builder.mark_as_last_resort() } else { builder };
                let bundle = builder
                    .build(suite, &provider, me.signer(), me.credential())
                    .map_err(|e| Error::mls("making a KeyPackage", e))?;
                let message = MlsMessageOut::from(bundle.into_key_package());
                made.push(message.to_bytes().map_err(|e| Error::mls("encoding a KeyPackage", e))?.into());
            }
            store.save_identity_values(&before, &provider.values())?;
            Ok(made)
        })
    }
}
