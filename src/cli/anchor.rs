//! Copies of the ledger's head outside of it, at the places that vmgate.yaml names.
//!
//! A file and a command are enough: a command reaches whatever a site has (a web address, a second database, a mail), and vmgate
//! needs neither an HTTP client nor the login of another server.

use std::{io::Cursor, path::Path, process};

use jiff::Timestamp;
use vmgate_ledger::{Anchor, AnchorError, Ledger, append_anchor, read_anchors};
use vmgate_process::ChildFailure;

use super::{Failure, ledger::failure, session::Session};
use crate::config::AnchorConfig;

/// Most output of the site's command that is read.
const OUTPUT_LIMIT: usize = 64 << 10;

/// Copies the head to the named places, after the last copy in the file was found in the ledger.
pub(super) fn write(ledger: &Ledger, places: &AnchorConfig, session: &Session) -> Result<Anchor, Failure> {
    if let Some(file) = places.file.as_deref().filter(|file| file.exists()) {
        check(ledger, file)?;
    }
    let head = ledger.head().map_err(failure)?;
    if head.sequence == 0 {
        return Err(Failure::usage("the ledger has no record yet, so there is nothing to anchor"));
    }
    let anchor = Anchor { head, at: Timestamp::now() };
    if let Some(file) = &places.file {
        append_anchor(file, &anchor).map_err(|error| of_file(file, &error))?;
    }
    if let Some((program, arguments)) = places.command.as_deref().and_then(<[String]>::split_first) {
        let mut command = process::Command::new(program);
        command.args(arguments);
        let line = Cursor::new(format!("{anchor}\n"));
        vmgate_process::run(command, line, session.timeout(), OUTPUT_LIMIT).map_err(
            |error: ChildFailure| {
                Failure::failed(format!(
                    "anchor.command: {program} {error}: the head {} was not taken",
                    anchor.head
                ))
            },
        )?;
    }
    Ok(anchor)
}

/// Holds the ledger against every anchor in a file; gives their number.
pub(super) fn check(ledger: &Ledger, file: &Path) -> Result<usize, Failure> {
    let anchors = read_anchors(file).map_err(|error| of_file(file, &error))?;
    for anchor in &anchors {
        ledger.check_head(&anchor.head).map_err(|error| {
            let Failure { exit, text } = failure(error);
            let text = format!("{text} (anchored in {} at {})", file.display(), anchor.at);
            Failure { exit, text }
        })?;
    }
    Ok(anchors.len())
}

/// Anchors at the end of a campaign, if vmgate.yaml says where. The moves are done, so a failure only is said.
#[cfg(feature = "libvirt")]
pub(super) fn at_the_end(ledger: &Ledger, session: &Session) {
    let Some(places) = &session.config.anchor else { return };
    match write(ledger, places, session) {
        Ok(anchor) => tracing::info!("the ledger's head {} was anchored", anchor.head),
        Err(failure) => tracing::error!(
            "the ledger's head could not be anchored at the end of the campaign: {}. Then run `vmgate ledger anchor`",
            failure.text
        ),
    }
}

fn of_file(file: &Path, error: &AnchorError) -> Failure {
    Failure::usage(format!("{}: {error}", file.display()))
}
