//! `distmesh keygen`

use crate::{
    cli::KeygenArgs,
    error::Failure,
    session::{PathError, Secret},
    ui::Ui,
};

/// Prints a fresh secret of 256 bits.
pub fn keygen(_args: &KeygenArgs, ui: &Ui) -> Result<u8, Failure> {
    let mut random = zeroize::Zeroizing::new([0; 32]);
    getrandom::fill(random.as_mut()).map_err(|_| PathError::NoRandomness)?;
    let secret = Secret::from_random(&random);
    let text = zeroize::Zeroizing::new(format!("{}\n", String::from_utf8_lossy(secret.expose())));
    ui.print(&text)?;
    ui.say("every node of the session needs this secret: in a file for --secret-file, or in the variable ENCRYPTION_KEY");
    Ok(0)
}
