//! The settings of a gateway: defaults < TOML file < environment < flags.

use std::path::PathBuf;

use ordering_service::{limits::NAME_BYTES, raft::timing::Profile};
use service_kit::{
    resolve::Route,
    settings::{SettingsError, address, check_address},
    tls::TlsArgs,
};

use crate::{
    limits::RELAY_PEERS_MAX,
    mesh::{
        Bounds,
        limits::{PEERS_MAX, STREAM_BYTES_MAX, TOTAL_BYTES_MAX},
    },
    quota::{Quotas, Rate},
    secured::{ClientArgs, TOKEN_AUDIENCE},
};

service_kit::settings! {
    /// Everything that can be set. A key of the file is the flag's name with `_` for `-`.
    pub struct Settings {
        /// host:port where clients connect [default: 127.0.0.1:7400].
        #[arg(long, env = "CONCORDAT_LISTEN", value_name = "HOST:PORT")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub listen: Option<String>,
        /// host:port of /livez, /readyz and /metrics [default: 127.0.0.1:7401].
        #[arg(long, env = "CONCORDAT_ADMIN_LISTEN", value_name = "HOST:PORT")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub admin_listen: Option<String>,
        /// host:port of the ordering API of a node; several are better. Separate them by commas in the environment.
        #[arg(long, env = "CONCORDAT_ORDERING", value_delimiter = ',', num_args = 1.., value_name = "HOST:PORT")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub ordering: Option<Vec<String>>,
        /// The site that the gateway stands at, as the nodes' memberships name theirs. Leaders move towards the sites that commits come
        /// from, and new groups go to shards that are led from here.
        #[arg(long, env = "CONCORDAT_SITE", value_name = "NAME")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub site: Option<String>,
        /// Where the gateway keeps its copy of DeMLS groups, their branches and what it promised. Without it, it serves no DeMLS groups.
        #[arg(long, env = "CONCORDAT_DATA_DIR", value_name = "DIR")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub data_dir: Option<PathBuf>,
        /// host:port where other gateways connect. Without it, they are not served.
        #[arg(long, env = "CONCORDAT_RELAY_LISTEN", value_name = "HOST:PORT")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub relay_listen: Option<String>,
        /// host:port of the relay of another gateway, which must name this one in turn. Repeat for each; separate them by commas in the
        /// environment.
        #[arg(long, env = "CONCORDAT_RELAY", value_delimiter = ',', value_name = "HOST:PORT")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub relay: Option<Vec<String>>,
        /// host:port where a gateway without a cluster (`mls-gateway mesh`) listens for gateways: DiMLS groups are brought from there, as they
        /// are from every --relay. Repeat for each; separate them by commas in the environment.
        #[arg(long, env = "CONCORDAT_MESH_PEERS", value_delimiter = ',', value_name = "HOST:PORT")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub mesh_peer: Option<Vec<String>>,
        /// Bytes kept of one member's stream of a DiMLS group [default: 64 MiB]. Beyond that its oldest items are dropped.
        #[arg(long, env = "CONCORDAT_MESH_STREAM_BYTES", value_name = "BYTES")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub mesh_stream_bytes: Option<u64>,
        /// Bytes kept of all DiMLS groups [default: 8 GiB]. Beyond that the largest stream loses its oldest items.
        #[arg(long, env = "CONCORDAT_MESH_TOTAL_BYTES", value_name = "BYTES")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub mesh_total_bytes: Option<u64>,
        /// How far apart the ordering nodes are, as they are told it: lan, region or wan [default: lan]. It decides how soon a DeMLS group
        /// carries on without a quorum.
        #[arg(long, env = "CONCORDAT_PROFILE", value_name = "PROFILE")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub profile: Option<String>,
        /// The certificate shown to clients (PEM), if not --tls-cert: one that they trust without knowing the cluster's CA.
        #[arg(long, env = "CONCORDAT_CLIENT_TLS_CERT", value_name = "FILE")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub client_tls_cert: Option<PathBuf>,
        /// That certificate's key (PEM).
        #[arg(long, env = "CONCORDAT_CLIENT_TLS_KEY", value_name = "FILE")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub client_tls_key: Option<PathBuf>,
        /// Public keys that sign clients' tokens: a JWKS, or PEM. Without it clients need certificates.
        #[arg(long, env = "CONCORDAT_TOKEN_KEYS", value_name = "FILE")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub token_keys: Option<PathBuf>,
        /// The audience (aud) that clients' tokens must be for [default: concordat].
        #[arg(long, env = "CONCORDAT_TOKEN_AUDIENCE", value_name = "NAME")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub token_audience: Option<String>,
        /// Entries that one client may submit a second at this gateway [default: 5000].
        #[arg(long, env = "CONCORDAT_QUOTA_CLIENT_ENTRIES", value_name = "NUMBER")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub quota_client_entries: Option<u64>,
        /// Bytes of entries that one client may submit a second [default: 16777216].
        #[arg(long, env = "CONCORDAT_QUOTA_CLIENT_BYTES", value_name = "NUMBER")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub quota_client_bytes: Option<u64>,
        /// Entries that one group takes a second [default: 20000].
        #[arg(long, env = "CONCORDAT_QUOTA_GROUP_ENTRIES", value_name = "NUMBER")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub quota_group_entries: Option<u64>,
        /// Bytes of entries that one group takes a second [default: 67108864].
        #[arg(long, env = "CONCORDAT_QUOTA_GROUP_BYTES", value_name = "NUMBER")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub quota_group_bytes: Option<u64>,
        /// Calls by which one client may read a second [default: 2000].
        #[arg(long, env = "CONCORDAT_QUOTA_CLIENT_READS", value_name = "NUMBER")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub quota_client_reads: Option<u64>,
        /// KeyPackages that one client may claim a second [default: 50].
        #[arg(long, env = "CONCORDAT_QUOTA_CLIENT_CLAIMS", value_name = "NUMBER")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub quota_client_claims: Option<u64>,
        /// Streams (subscriptions, submissions, Welcomes) that one client may hold open [default: 1000].
        #[arg(long, env = "CONCORDAT_QUOTA_CLIENT_STREAMS", value_name = "NUMBER")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub quota_client_streams: Option<u64>,
        /// Subscriptions that one group may have open at this gateway [default: 50000].
        #[arg(long, env = "CONCORDAT_QUOTA_GROUP_SUBSCRIPTIONS", value_name = "NUMBER")]
        #[serde(skip_serializing_if = "Option::is_none")]
        pub quota_group_subscriptions: Option<u64>,
    }
}

/// Checked settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// host:port where clients connect.
    pub listen: String,
    /// host:port of the admin endpoints.
    pub admin_listen: String,
    /// host:port of ordering nodes, at least one.
    pub ordering: Vec<String>,
    /// The site that the gateway stands at; empty if that is not set.
    pub site: String,
    /// Where the gateway keeps what it must not forget.
    pub data_dir: Option<PathBuf>,
    /// host:port where other gateways connect.
    pub relay_listen: Option<String>,
    /// host:port of other gateways' relays.
    pub relay: Vec<String>,
    /// host:port of gateways without a cluster, which DiMLS groups are brought from.
    pub mesh_peers: Vec<String>,
    /// How much of DiMLS groups is kept.
    pub mesh_bounds: Bounds,
    /// How far apart the ordering nodes are.
    pub profile: Profile,
    /// Addresses that are reached in another way than they are known by.
    pub routes: Vec<Route>,
    /// Certificates.
    pub tls: TlsArgs,
    /// How clients are met.
    pub clients: ClientArgs,
    /// What clients and groups may use.
    pub quotas: Quotas,
}

impl Settings {
    /// What holds where nothing is set. Ordering nodes have no default.
    pub fn defaults() -> Self {
        Self {
            listen: Some("127.0.0.1:7400".into()),
            admin_listen: Some("127.0.0.1:7401".into()),
            mesh_stream_bytes: Some(STREAM_BYTES_MAX),
            mesh_total_bytes: Some(TOTAL_BYTES_MAX),
            profile: Some(Profile::default().to_string()),
            token_audience: Some(TOKEN_AUDIENCE.into()),
            ..Self::common_defaults()
        }
    }

    /// The quotas: rates as they are set, four seconds' worth of them at once.
    fn quotas(&self) -> Result<Quotas, SettingsError> {
        let mut quotas = Quotas::default();
        let rates = [
            ("quota_client_entries", self.quota_client_entries, &mut quotas.client_entries),
            ("quota_client_bytes", self.quota_client_bytes, &mut quotas.client_bytes),
            ("quota_group_entries", self.quota_group_entries, &mut quotas.group_entries),
            ("quota_group_bytes", self.quota_group_bytes, &mut quotas.group_bytes),
            ("quota_client_reads", self.quota_client_reads, &mut quotas.client_reads),
            ("quota_client_claims", self.quota_client_claims, &mut quotas.client_claims),
        ];
        for (key, set, rate) in rates {
            match set {
                Some(0) => return Err(SettingsError::value(key, "at least 1", 0)),
                Some(per_second) => *rate = Rate { per_second, burst: per_second.saturating_mul(4) },
                None => {}
            }
        }
        let counts = [
            ("quota_client_streams", self.quota_client_streams, &mut quotas.client_streams),
            ("quota_group_subscriptions", self.quota_group_subscriptions, &mut quotas.group_subscriptions),
        ];
        for (key, set, count) in counts {
            let Some(set) = set else { continue };
            let fits = usize::try_from(set).ok().filter(|set| *set > 0);
            *count = fits.ok_or_else(|| SettingsError::value(key, "at least 1", set))?;
        }
        Ok(quotas)
    }

    /// The configuration that they come to.
    ///
    /// # Errors
    /// A value that is missing or makes no sense; its key is named.
    pub fn config(self) -> Result<Config, SettingsError> {
        let tls = self.tls()?;
        let quotas = self.quotas()?;
        let clients = ClientArgs {
            client_tls_cert: self.client_tls_cert,
            client_tls_key: self.client_tls_key,
            token_keys: self.token_keys,
            token_audience: self.token_audience.unwrap_or_else(|| TOKEN_AUDIENCE.into()),
        };
        if clients.client_tls_cert.is_some() != clients.client_tls_key.is_some() {
            return Err(SettingsError::value(
                "client_tls_key",
                "given together with client_tls_cert",
                "one of them",
            ));
        }
        let ordering = self.ordering.unwrap_or_default();
        if ordering.is_empty() {
            return Err(SettingsError::value("ordering", "host:port of at least one node", "nothing"));
        }
        ordering.iter().try_for_each(|node| check_address("ordering", node))?;
        let site = self.site.unwrap_or_default();
        if site.len() > NAME_BYTES {
            return Err(SettingsError::value("site", format!("at most {NAME_BYTES} bytes"), site.len()));
        }
        if self.data_dir.as_ref().is_some_and(|dir| dir.as_os_str().is_empty()) {
            return Err(SettingsError::value("data_dir", "a directory", "an empty name"));
        }
        let relay = self.relay.unwrap_or_default();
        relay.iter().try_for_each(|peer| check_address("relay", peer))?;
        self.relay_listen.as_ref().map_or(Ok(()), |listen| check_address("relay_listen", listen))?;
        if relay.len() > RELAY_PEERS_MAX {
            let (expected, got) = (format!("at most {RELAY_PEERS_MAX} gateways"), relay.len());
            return Err(SettingsError::value("relay", expected, got));
        }
        if self.data_dir.is_none() && (self.relay_listen.is_some() || !relay.is_empty()) {
            return Err(SettingsError::value("data_dir", "a directory, because a relay is set", "nothing"));
        }
        let mesh_peers = self.mesh_peer.unwrap_or_default();
        mesh_peers.iter().try_for_each(|peer| check_address("mesh_peer", peer))?;
        if mesh_peers.len() + relay.len() > PEERS_MAX {
            let (expected, got) = (format!("at most {PEERS_MAX} gateways"), mesh_peers.len() + relay.len());
            return Err(SettingsError::value("mesh_peer", expected, got));
        }
        if self.data_dir.is_none() && !mesh_peers.is_empty() {
            return Err(SettingsError::value("data_dir", "a directory, because mesh_peer is set", "nothing"));
        }
        let mesh_bounds = Bounds {
            stream_bytes: self.mesh_stream_bytes.unwrap_or(STREAM_BYTES_MAX),
            total_bytes: self.mesh_total_bytes.unwrap_or(TOTAL_BYTES_MAX),
        };
        let profile = self.profile.unwrap_or_default();
        let profile = if profile.is_empty() { Ok(Profile::default()) } else { profile.parse() };
        let profile =
            profile.map_err(|_| SettingsError::value("profile", "lan, region or wan", "another name"))?;
        Ok(Config {
            relay_listen: self.relay_listen,
            relay,
            mesh_peers,
            mesh_bounds,
            profile,
            listen: address("listen", self.listen)?,
            admin_listen: address("admin_listen", self.admin_listen)?,
            ordering,
            site,
            data_dir: self.data_dir,
            routes: self.resolve.unwrap_or_default(),
            tls,
            clients,
            quotas,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Spoil = fn(&mut Settings);

    #[test]
    fn each_value_is_checked_and_named() {
        let complete = || Settings { ordering: Some(vec!["n:7100".into()]), ..Settings::defaults() };
        assert!(complete().config().is_ok());
        let wrong: [(&str, Spoil); 9] = [
            ("site", |s| s.site = Some("x".repeat(NAME_BYTES + 1))),
            ("ordering", |s| s.ordering = Some(Vec::new())),
            ("ordering", |s| s.ordering = Some(vec!["n:7100".into(), "n".into()])),
            ("listen", |s| s.listen = Some("7400".into())),
            ("admin_listen", |s| s.admin_listen = Some("h:x".into())),
            ("data_dir", |s| s.data_dir = Some("".into())),
            ("data_dir", |s| s.relay = Some(vec!["g:7402".into()])),
            ("relay", |s| s.relay = Some(vec!["g".into()])),
            ("profile", |s| s.profile = Some("moon".into())),
        ];
        for (key, spoil) in wrong {
            let mut settings = complete();
            spoil(&mut settings);
            let error = settings.config().expect_err(key).to_string();
            assert!(error.contains(key), "{error}");
        }
    }
}
