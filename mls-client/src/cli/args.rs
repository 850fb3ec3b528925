//! What can be typed.

use std::{env, path::PathBuf};

use anyhow::{Context, ensure};
use clap::{Parser, Subcommand};
use mls_client::{Policy, Security};

/// Talk in end-to-end encrypted groups (MLS, RFC 9420) over a Concordat gateway.
#[derive(Debug, Parser)]
#[command(version, after_help = FIRST_CONVERSATION)]
pub(crate) struct Args {
    /// The gateway to talk to: https://host:port, or http://host:port for one that runs with --insecure-dev.
    #[arg(long, env = "CONCORDAT_GATEWAY", default_value = "http://127.0.0.1:7400", global = true)]
    pub(super) gateway: String,

    /// The file that holds this client's identity, groups and messages [default: mls-client.state in the user's data folder].
    #[arg(long, env = "CONCORDAT_STATE", global = true)]
    state: Option<PathBuf>,

    /// The CAs whose gateways are trusted (PEM); without it those that the system trusts.
    #[arg(long, env = "CONCORDAT_CA", value_name = "FILE", global = true)]
    ca: Option<PathBuf>,

    /// This client's certificate (PEM); its SAN URI names the client.
    #[arg(long, env = "CONCORDAT_CERT", value_name = "FILE", global = true)]
    cert: Option<PathBuf>,

    /// The certificate's key (PEM).
    #[arg(long, env = "CONCORDAT_KEY", value_name = "FILE", global = true)]
    key: Option<PathBuf>,

    /// A file with this client's token (JWT).
    #[arg(long, env = "CONCORDAT_TOKEN_FILE", value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,

    #[command(subcommand)]
    pub(super) command: Command,
}

impl Args {
    /// What this client shows to gateways, and whom it takes for one.
    pub(super) fn security(&self) -> anyhow::Result<Security> {
        let certificate = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
            (None, None) => None,
            _ => anyhow::bail!("--cert and --key belong together: name both"),
        };
        Ok(Security { ca: self.ca.clone(), certificate, token: self.token_file.clone() })
    }
}

const FIRST_CONVERSATION: &str = "\
A first conversation (start a gateway with `mls-gateway dev`, and use two terminals):
  ann$ export CONCORDAT_STATE=/tmp/ann.state         bob$ export CONCORDAT_STATE=/tmp/bob.state
  ann$ mls-client identity ann                       bob$ mls-client identity bob
  ann$ mls-client create
  ann$ mls-client invite bob                         bob$ mls-client join
  ann$ mls-client send 'hello, bob'                  bob$ mls-client watch --talk
  ann$ mls-client watch --talk

Every client needs a state file of its own, and one process at a time may use it.
A group is named by its id, or by the beginning of it; with only one group it need not be named.";

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make an identity and let others invite it; without a name, show it.
    Identity {
        /// What others call this client: 1 to 128 bytes, unique at the gateway.
        name: Option<String>,
    },
    /// Start a group.
    Create {
        /// What the group is, for good.
        #[arg(long, value_enum, default_value_t = KindArg::Mls)]
        kind: KindArg,
        /// With `--kind dimls`: the other members. They are named once, for good. Repeat for each.
        #[arg(long, value_name = "NAME")]
        with: Vec<String>,
        #[command(flatten)]
        retention: RetentionArgs,
    },
    /// Use groups of kind `dimls`.
    Dgroup {
        /// The beginning of the group's id, if this client is in several.
        #[arg(long)]
        id: Option<String>,
        /// What to do.
        #[command(subcommand)]
        command: DgroupCommand,
    },
    /// Add clients to a group.
    Invite {
        /// Their names.
        #[arg(required = true)]
        clients: Vec<String>,
        #[command(flatten)]
        group: GroupArg,
    },
    /// Join the groups that this client was invited to.
    Join {
        /// How long to wait for an invitation, in seconds.
        #[arg(long, default_value_t = 2)]
        wait: u64,
    },
    /// Send a message to a group.
    Send {
        /// What to say; several words are put together.
        #[arg(required = true)]
        text: Vec<String>,
        #[command(flatten)]
        group: GroupArg,
    },
    /// Show a group's messages, those that were received and those that come, until interrupted.
    Watch {
        #[command(flatten)]
        group: GroupArg,
        /// Send each line that is typed.
        #[arg(long)]
        talk: bool,
    },
    /// Look whether the gateway and its cluster work: submit a commit to a group of one's own, submit it again, read it back. Needs no
    /// state file.
    Check {
        /// What the client is called meanwhile.
        #[arg(long, default_value = "concordat-check")]
        name: String,
    },
    /// Show this client and its groups.
    Status,
    /// Renew this client's keys in a group.
    Update {
        #[command(flatten)]
        group: GroupArg,
    },
    /// Remove members from a group.
    Remove {
        /// Their names.
        #[arg(required = true)]
        clients: Vec<String>,
        #[command(flatten)]
        group: GroupArg,
    },
    /// Leave a group: asks the other members to let go.
    Leave {
        #[command(flatten)]
        group: GroupArg,
    },
    /// Join a group again by oneself, after losing track of it; or join one whose whole id is known.
    Rejoin {
        #[command(flatten)]
        group: GroupArg,
    },
}

/// What to do with a group of kind `dimls`.
#[derive(Debug, Subcommand)]
pub(super) enum DgroupCommand {
    /// Take part in every such group that names this client.
    Join,
    /// Say something.
    Send {
        /// What.
        #[arg(required = true)]
        text: Vec<String>,
    },
    /// Follow the group: shows what is said, adds who has come, and keeps the keys fresh.
    Watch,
    /// Show the group, and how far this client has taken in the Send Group of each member.
    Status,
}

/// The kinds of groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum KindArg {
    /// One agreed order; waits while there is no quorum. Choose it for most groups: the smallest updates, one state for all.
    Mls,
    /// Goes on in every part of a split network, and puts itself together again afterwards. Choose it for ships, field networks and
    /// federations that must not stand still; a removed member may read a little longer in a part that has not heard of it.
    Demls,
    /// Needs no order and no quorum at all: every member has a Send Group of its own. Choose it for small groups whose gateways meet
    /// seldom; an update costs a commit of every member, and the members are named once, with --with.
    Dimls,
}

/// How much of the log of a new group is kept. The cluster keeps no more than its operator allows.
#[derive(Debug, clap::Args)]
pub(super) struct RetentionArgs {
    /// With `--kind mls`: so many of the newest entries of its log are kept. By default as many as the cluster keeps.
    #[arg(long, value_name = "ENTRIES", value_parser = clap::value_parser!(u64).range(1..))]
    retain_entries: Option<u64>,
    /// With `--kind mls`: entries are kept for so many hours. By default as long as the cluster keeps them.
    #[arg(long, value_name = "HOURS", value_parser = clap::value_parser!(u32).range(1..))]
    retain_hours: Option<u32>,
}

impl RetentionArgs {
    /// The policy of a new group.
    ///
    /// # Errors
    /// Something is to be let go of a group whose log is kept whole.
    pub(super) fn policy(&self, kind: KindArg) -> anyhow::Result<Policy> {
        let chosen = self.retain_entries.is_some() || self.retain_hours.is_some();
        ensure!(
            kind == KindArg::Mls || !chosen,
            "the log of a group of another kind than `mls` is kept whole: leave out --retain-entries and --retain-hours"
        );
        let (retain_entries, retain_hours) =
            (self.retain_entries.unwrap_or_default(), self.retain_hours.unwrap_or_default());
        Ok(Policy { retain_entries, retain_hours, ..Policy::default() })
    }
}

/// Which group.
#[derive(Debug, clap::Args)]
pub(super) struct GroupArg {
    /// The group's id, or the beginning of it; may be left out if there is only one.
    #[arg(long = "group", short = 'g', value_name = "ID")]
    pub(super) id: Option<String>,
}

impl Args {
    /// Where the state file is.
    pub(super) fn state(&self) -> anyhow::Result<PathBuf> {
        if let Some(state) = &self.state {
            return Ok(state.clone());
        }
        let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let data = absolute("XDG_DATA_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
            .context(
                "neither XDG_DATA_HOME nor HOME names a folder; say where to keep the state with --state",
            )?;
        Ok(data.join("concordat/mls-client.state"))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_group_may_follow_the_words() {
        let args = Args::parse_from(["mls-client", "send", "hello", "there", "-g", "ab12"]);
        let Command::Send { text, group } = args.command else { panic!("{args:?}") };
        assert_eq!((text.join(" ").as_str(), group.id.as_deref()), ("hello there", Some("ab12")));
    }

    #[test]
    fn retention_is_chosen_for_groups_whose_logs_may_be_shortened() {
        let create = |words: &[&str]| {
            let args = Args::try_parse_from([&["mls-client", "create"], words].concat()).unwrap();
            let Command::Create { kind, retention, .. } = args.command else { panic!("{words:?}") };
            retention.policy(kind)
        };
        let chosen = create(&["--retain-hours", "48"]).unwrap();
        assert_eq!((chosen.retain_entries, chosen.retain_hours), (0, 48));
        assert_eq!(create(&["--kind", "demls"]).unwrap(), Policy::default());
        assert!(create(&["--kind", "demls", "--retain-entries", "5"]).is_err());
        assert!(Args::try_parse_from(["mls-client", "create", "--retain-hours", "0"]).is_err());
    }
}
