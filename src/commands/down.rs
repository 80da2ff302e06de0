//! `distmesh down`.

use std::io;

use super::setup::session_dir;
use crate::{
    cli::DownArgs,
    control,
    error::{Failure, OrFail},
    ui::Ui,
};

/// Ends the session of this machine, if there is one.
pub async fn down(args: &DownArgs, ui: &Ui) -> Result<u8, Failure> {
    let (_, session, dir) = session_dir(args.which.session.clone())?;
    match control::down(&dir.control_socket()).await {
        Ok(()) => ui.say(format!("session {session} has ended")),
        Err(error) if is_absent(&error) => {
            ui.say(format!("no session {session} runs on this machine"));
        }
        Err(error) => return Err(error).or_cannot(format!("end session {session}")),
    }
    Ok(0)
}

/// No socket, or one that a killed session left.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}
