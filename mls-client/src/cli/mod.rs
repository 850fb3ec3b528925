//! Commands for a person.

mod args;
mod check;
mod commands;
mod dimls;
mod session;
mod show;
mod watch;

pub(crate) use self::args::Args;
use self::{
    args::{Command, DgroupCommand, KindArg},
    session::Session,
};

/// Does what was asked for.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    if let Command::Check { name } = &args.command {
        return check::check(&args, name).await;
    }
    let state = args.state()?;
    if let Command::Identity { name } = &args.command {
        return commands::identity(&args, &state, name.as_deref()).await;
    }
    match &args.command {
        Command::Create { kind: KindArg::Dimls, with, retention } => {
            retention.policy(KindArg::Dimls)?;
            return dimls::create(&args, &state, with).await;
        }
        Command::Dgroup { id, command } => {
            return match command {
                DgroupCommand::Join => dimls::join(&args, &state).await,
                DgroupCommand::Send { text } => dimls::send(&args, &state, id.as_deref(), text).await,
                DgroupCommand::Status => dimls::status(&state, id.as_deref()),
                DgroupCommand::Watch => dimls::watch(&args, &state, id.as_deref()).await,
            };
        }
        _ => {}
    }
    let session = Session::open(&args, &state)?;
    match &args.command {
        Command::Identity { .. } | Command::Check { .. } => Ok(()),
        // Those of kind `dimls` are done with above.
        Command::Dgroup { .. } => Ok(()),
        Command::Create { kind, retention, .. } => {
            commands::create(&session, *kind, retention.policy(*kind)?).await
        }
        Command::Invite { clients, group } => commands::invite(&session, clients, group).await,
        Command::Join { wait } => commands::join(&session, *wait).await,
        Command::Send { text, group } => commands::send(&session, text, group).await,
        Command::Watch { group, talk } => watch::watch(&session, group, *talk).await,
        Command::Status => commands::status(&session).await,
        Command::Update { group } => commands::update(&session, group).await,
        Command::Remove { clients, group } => commands::remove(&session, clients, group).await,
        Command::Leave { group } => commands::leave(&session, group).await,
        Command::Rejoin { group } => commands::rejoin(&session, group).await,
    }
}
