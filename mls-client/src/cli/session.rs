//! One client for the time of a command.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use mls_client::{
    Client, ClientId, Error, GroupId, GroupView, GrpcTransport, Identity, Options, Randomness, Status, Store,
};

use super::args::{Args, GroupArg};

/// How long a command goes on trying to reach the gateway.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client that is open.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) gateway: String,
}

impl Session {
    /// Opens the client in the state file.
    pub(super) fn open(args: &Args, state: &Path) -> anyhow::Result<Session> {
        // A command that needs an identity does not make a file for one.
        if !state.exists() {
            return Err(Error::NoIdentity)
                .with_context(|| format!("there is no state file {}", state.display()));
        }
        Session::over(args, Store::open(state)?)
    }

    /// The client in an open store.
    pub(super) fn over(args: &Args, store: Store) -> anyhow::Result<Session> {
        let identity = Identity::load(&store)?.ok_or(Error::NoIdentity)?;
        let transport = GrpcTransport::secured(&args.gateway, identity.client_id(), &args.security()?)?;
        let options = Options { patience: PATIENCE, ..Options::default() };
        let client = Client::new(store, Arc::new(transport), options, Randomness::from_os())?;
        Ok(Session { client, gateway: args.gateway.clone() })
    }

    /// The group that is meant: named, or the only one that this client is in.
    pub(super) fn group(&self, arg: &GroupArg) -> anyhow::Result<GroupId> {
        let groups = self.client.groups()?;
        let Some(wanted) = &arg.id else {
            let current = |g: &&GroupView| !matches!(g.status, Status::Left(_) | Status::Closed);
            let current: Vec<_> = groups.iter().filter(current).collect();
            return match &current[..] {
                [one] => Ok(one.group.clone()),
                [] => bail!(
                    "this client is in no group; start one with `create`, or take in an invitation with `join`"
                ),
                many => {
                    bail!("this client is in {} groups; say which with --group (see `status`)", many.len())
                }
            };
        };
        let wanted = wanted.to_lowercase();
        let matching: Vec<_> = groups.iter().filter(|g| hex::encode(&g.group).starts_with(&wanted)).collect();
        match &matching[..] {
            [one] => Ok(one.group.clone()),
            [] => bail!("this client has no group {wanted}; see `status` for those that it has"),
            many => bail!("{} groups begin with {wanted}; name more of it", many.len()),
        }
    }
}

/// The client ids of people.
pub(super) fn client_ids(names: &[String]) -> anyhow::Result<Vec<ClientId>> {
    names.iter().map(|name| Ok(ClientId::new(name.clone())?)).collect()
}
