//! The on-host program that is sent to hosts and guests: found once, packed with gzip, and checked when it arrives.

use std::{
    borrow::Cow,
    env,
    fmt::Write as _,
    io::{self, Cursor, Read, Write},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use flate2::{
    Compression,
    read::{GzDecoder, GzEncoder},
};
use sha2::{Digest, Sha256};
use vmgate_trust::UntrustedFile;

use super::ssh::code;

/// Environment variable that names another file to send.
pub(super) const VARIABLE: &str = "VMGATE_PROBE";
/// File name of the on-host program beside the running one.
pub(super) const NAME: &str = "vmgate-probe";
/// Path of the on-host program in packages.
pub(super) const PACKAGED: &str = "/usr/lib/vmgate/vmgate-probe";
/// Shell script that chooses how the program at `$d/vmgate` is run: `$as` is `sudo -n` or empty, and `$run` the program. A user
/// who may run anything as root runs what was sent. One who may run only the installed program runs that: what was sent
/// lies in a folder of his own, so no rule of sudo could allow it alone.
pub(super) const AS_ROOT: &str = "as= run=\"$d/vmgate\"; [ \"$(id -u)\" = 0 ] || for p in \"$run\" /usr/lib/vmgate/vmgate-probe; do \
     if sudo -n -l \"$p\" >/dev/null 2>&1; then as='sudo -n' run=$p; break; fi; done";
/// Largest on-host program, in bytes.
const LIMIT: u64 = 64 << 20;

/// The on-host program inside the running one.
#[derive(Debug, Clone, Copy)]
pub struct Embedded {
    /// Its bytes, packed with gzip.
    pub packed: &'static [u8],
    /// SHA-256 of the unpacked bytes, in lower-case hexadecimal digits.
    pub sha256: &'static str,
}

static EMBEDDED: OnceLock<Embedded> = OnceLock::new();

/// Makes the program that was built into this one the one that is sent, unless `VMGATE_PROBE` names another.
pub fn embed(program: Embedded) {
    // Called once, at the start of `main`.
    let _ = EMBEDDED.set(program);
}

/// A program to send, and the digest that it must have when it arrives.
#[derive(Debug)]
pub(super) struct OnHostProgram {
    packed: Cow<'static, [u8]>,
    sha256: Cow<'static, str>,
}

impl OnHostProgram {
    /// Reads the program, which runs as root on hosts and in guests, from a file that nobody else can write.
    fn read(path: &Path) -> Result<Self, UntrustedFile> {
        let bytes = vmgate_trust::read(path, LIMIT)?;
        let sha256 = Sha256::digest(&bytes).iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        let mut packed = Vec::new();
        GzEncoder::new(bytes.as_slice(), Compression::fast())
            .read_to_end(&mut packed)
            .map_err(|error| UntrustedFile::unreadable(path, error))?;
        Ok(Self { packed: packed.into(), sha256: sha256.into() })
    }

    /// Its packed bytes, for the standard input of [`Self::received`].
    pub(super) fn bytes(&'static self) -> Cursor<&'static [u8]> {
        Cursor::new(&self.packed)
    }

    /// Shell script that receives, checks, runs and removes the program. Whatever follows the program on standard input is
    /// the standard input of `"$d/vmgate" ARGUMENTS`.
    pub(super) fn pushed(&self, arguments: &str) -> String {
        self.received(&format!("\"$d/vmgate\" {arguments}"))
    }

    /// Shell script that receives and checks the program, and answers a question with it: as root, where this user is root or
    /// may run it with `sudo -n`, else as this user.
    pub(super) fn asked(&self) -> String {
        self.received(&format!("{AS_ROOT} && $as \"$run\""))
    }

    /// Shell script that receives and checks the program, runs a script that finds it at `$d/vmgate`, and removes it.
    pub(super) fn received(&self, script: &str) -> String {
        format!(
            "umask 077; command -v gzip >/dev/null || exit {no_gzip}; d=$(mktemp -d) || exit {no_folder}; \
             trap 'rm -rf \"$d\"' EXIT; trap 'exit 1' HUP INT TERM PIPE; \
             head -c {size} | gzip -dc 2>/dev/null >\"$d/vmgate\"; \
             echo '{digest}  '\"$d/vmgate\" | sha256sum -c >/dev/null 2>&1 \
             || exit {bad_copy}; chmod 700 \"$d/vmgate\" && {script}",
            no_gzip = code::NO_GZIP,
            no_folder = code::NO_FOLDER,
            bad_copy = code::BAD_COPY,
            size = self.packed.len(),
            digest = self.sha256,
        )
    }
}

/// The program to send; none where only the host's own vmgate is left to try.
///
/// It is looked for once, however many hosts and guests it goes to.
pub(super) fn on_host_program() -> Result<Option<&'static OnHostProgram>, String> {
    static PROGRAM: OnceLock<Result<Option<OnHostProgram>, String>> = OnceLock::new();
    PROGRAM.get_or_init(find).as_ref().map(Option::as_ref).map_err(Clone::clone)
}

/// Writes the program that is sent, for a host where it is to be installed.
pub fn write_on_host_program(sink: &mut dyn Write) -> Result<(), String> {
    let program = on_host_program()?.ok_or_else(|| {
        format!("this vmgate has no on-host program to write: put {NAME} beside it, or name it in {VARIABLE}")
    })?;
    io::copy(&mut GzDecoder::new(program.bytes()), sink).map(|_| ()).map_err(|error| error.to_string())
}

fn find() -> Result<Option<OnHostProgram>, String> {
    if let Some(named) = env::var_os(VARIABLE) {
        let path = PathBuf::from(named);
        return OnHostProgram::read(&path)
            .map(Some)
            .map_err(|why| format!("{VARIABLE} names {}, which cannot be used: {why}", path.display()));
    }
    if let Some(Embedded { packed, sha256 }) = EMBEDDED.get().copied() {
        return Ok(Some(OnHostProgram { packed: packed.into(), sha256: sha256.into() }));
    }
    let beside = env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(NAME)));
    let places = beside.into_iter().chain([PathBuf::from(PACKAGED)]);
    for path in places {
        match OnHostProgram::read(&path) {
            Ok(program) => return Ok(Some(program)),
            Err(why) if why.is_missing() => {}
            Err(why) => return Err(why.to_string()),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command, time::Duration};

    use vmgate_process::{ChildFailure, run};

    use super::*;

    #[test]
    fn the_copy_is_private_checked_run_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let program = b"#!/bin/sh\nstat -c %a \"$(dirname \"$0\")\" \"$0\"; echo \"$@\"; cat\n";
        let place = tempfile::NamedTempFile::new().unwrap();
        fs::write(place.path(), program).unwrap();
        let program = OnHostProgram::read(place.path()).unwrap();
        let shell = |input: Vec<u8>| {
            let mut command = Command::new("/bin/sh");
            command.env("TMPDIR", folder.path()).arg("-c").arg(program.pushed("'it'"));
            run(command, Cursor::new(input), Duration::from_secs(20), 1000)
        };
        let output = shell([program.packed.as_ref(), b"{\"ask\":\"host\"}"].concat()).unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "700\n700\nit\n{\"ask\":\"host\"}");
        let mut evil = program.packed.to_vec();
        let last = evil.len() - 20;
        evil[last] ^= 1;
        let failure = shell(evil).unwrap_err();
        assert!(matches!(failure, ChildFailure::Failed { code: code::BAD_COPY, .. }), "{failure}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
    }
}
