//! KeyPackages: stored by their owner, handed out once in the whole cluster.

use bytes::Bytes;
use concordat_proto::{
    convert,
    gateway::v1::{
        ClaimKeyPackageRequest, ClaimKeyPackageResponse, GetKeyPackageStatusResponse,
        UploadKeyPackagesRequest, UploadKeyPackagesResponse,
    },
    log::v1::KeyPackage,
    ordering::v1::{ClaimKeyPackage, Command, UploadKeyPackages, command},
};
use group_log::ClientId;

use super::Api;
use crate::{
    cluster::Final,
    error::GatewayError,
    limits::{CLAIM_ID_BYTES, DIRECTORY_SHARD, KEY_PACKAGES_PER_UPLOAD_MAX},
    mls,
};

impl Api {
    pub(super) async fn upload(
        &self,
        owner: ClientId,
        request: UploadKeyPackagesRequest,
    ) -> Result<UploadKeyPackagesResponse, GatewayError> {
        let got = request.key_packages.len();
        if got > KEY_PACKAGES_PER_UPLOAD_MAX {
            return Err(GatewayError::bad_field(
                "key_packages",
                format!("at most {KEY_PACKAGES_PER_UPLOAD_MAX}"),
                got,
            ));
        }
        if got == 0 && !request.replace {
            return Err(GatewayError::bad_field("key_packages", "at least one, or `replace`", got));
        }
        self.meter.client(&owner, request.key_packages.iter().map(Bytes::len).sum())?;
        let mut key_packages = Vec::with_capacity(got);
        for bytes in request.key_packages {
            let parsed = mls::key_package(self.validator.crypto(), &bytes)?;
            if parsed.identity != owner.as_bytes() {
                return Err(GatewayError::denied(
                    "a KeyPackage is uploaded by its owner only: its credential's identity must be the client's id",
                ));
            }
            key_packages.push(KeyPackage {
                key_package_ref: parsed.key_package_ref,
                key_package: bytes,
                last_resort: parsed.last_resort,
            });
        }
        let upload =
            UploadKeyPackages { client_id: owner.to_bytes(), key_packages, replace: request.replace };
        match self.directory(command::Command::UploadKeyPackages(upload)).await? {
            Final::KeyPackagesUploaded(uploaded) => Ok(UploadKeyPackagesResponse {
                one_time_left: uploaded.one_time_left,
                has_last_resort: uploaded.has_last_resort,
            }),
            _ => Err(GatewayError::Protocol("an outcome that does not belong to the command")),
        }
    }

    pub(super) async fn claim(
        &self,
        claimer: ClientId,
        request: ClaimKeyPackageRequest,
    ) -> Result<ClaimKeyPackageResponse, GatewayError> {
        let owner = convert::client_id("client_id", request.client_id).map_err(GatewayError::bad_wire)?;
        let claim_id = match request.claim_id.len() {
            0 => Bytes::copy_from_slice(&self.rng.bytes::<CLAIM_ID_BYTES>()),
            CLAIM_ID_BYTES => request.claim_id,
            got => {
                return Err(GatewayError::bad_field(
                    "claim_id",
                    format!("{CLAIM_ID_BYTES} bytes or empty"),
                    got,
                ));
            }
        };
        self.meter.claim(&claimer)?;
        let claim = ClaimKeyPackage { client_id: owner.to_bytes(), claim_id, claimer: claimer.to_bytes() };
        match self.directory(command::Command::ClaimKeyPackage(claim)).await? {
            Final::KeyPackageClaimed(claimed) => Ok(ClaimKeyPackageResponse {
                key_package: claimed.key_package,
                one_time_left: claimed.one_time_left,
            }),
            _ => Err(GatewayError::Protocol("an outcome that does not belong to the command")),
        }
    }

    pub(super) async fn key_package_status(
        &self,
        owner: ClientId,
    ) -> Result<GetKeyPackageStatusResponse, GatewayError> {
        self.meter.read(&owner)?;
        self.check_mode(DIRECTORY_SHARD)?;
        let status = self.cluster.reader.key_package_status(&owner).await?;
        Ok(GetKeyPackageStatusResponse {
            one_time_left: status.one_time_left,
            has_last_resort: status.has_last_resort,
        })
    }

    async fn directory(&self, command: command::Command) -> Result<Final, GatewayError> {
        match self.bring(DIRECTORY_SHARD, &Command { command: Some(command) }).await? {
            Final::Refused(refused) => Err(GatewayError::Refused(refused)),
            outcome => Ok(outcome),
        }
    }
}
