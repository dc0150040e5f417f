//! The scripts that libvirt runs. Each passes everything but `migrate begin` on at once and calls the program for that.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Layout, install::is_ours, trust};

/// How vmgate's hook stands beside others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HookPlacement {
    /// One script among others in `qemu.d`, which libvirt runs from 6.5 on.
    Folder,
    /// In the place of the one hook of older versions, calling the one that stood there first.
    Chained,
}

/// What tells vmgate's scripts from others.
pub(super) const MARK: &str = "# vmgate's hook";

/// Calls the program, and knows what to do where it cannot be run.
const DECIDE: &str = r#"decide() {
  # A VM may be called --help.
  /usr/lib/vmgate/vmgate-hook hook run -- "$@"
  code=$?
  case $code in 0 | 1) return $code ;; esac
  # It is missing, broken or was killed, and so could not read this itself.
  grep -Eqs '^(on-error: *open|mode: *audit-only)( *| #.*)$' /etc/vmgate/hook.yaml && return 0
  echo "vmgate: $1 is not let in, because /usr/lib/vmgate/vmgate-hook could not be run (code $code); install it again with: vmgate hook install" >&2
  return 1
}
"#;

/// The script for this place.
pub(super) fn text(place: HookPlacement) -> String {
    let head = format!(
        "#!/bin/sh\n{MARK}: lets an incoming migration in only with a signed GO. Written by `vmgate hook install` and \
         replaced by\n# the next one; settings are in /etc/vmgate/hook.yaml.\n"
    );
    match place {
        HookPlacement::Folder => format!(
            "{head}# A hook that fails at `reconnect` makes libvirt kill the VM: nothing else is looked at.\n\
             [ \"$2/$3\" = migrate/begin ] || exit 0\n{DECIDE}decide \"$@\"\n"
        ),
        HookPlacement::Chained => format!("{head}{DECIDE}{CHAIN}"),
    }
}

/// The other hook comes first and is given what it always was; it may change the definition, as libvirt lets it.
const CHAIN: &str = r#"other=/etc/libvirt/hooks/qemu.before-vmgate
if [ "$2/$3" != migrate/begin ]; then
  [ -x "$other" ] && exec "$other" "$@"
  exit 0
fi
xml=$(cat)
changed=
if [ -x "$other" ]; then
  changed=$(printf '%s\n' "$xml" | "$other" "$@") || exit
fi
printf '%s\n' "${changed:-$xml}" | decide "$@" || exit
[ -z "$changed" ] || printf '%s\n' "$changed"
"#;

/// Puts the script in its place, and another one of vmgate's out of the other place. At no time is there no hook where
/// there was one. Tells which files changed.
pub(super) fn put_in_place(layout: &Layout, place: HookPlacement) -> Result<Vec<PathBuf>, String> {
    let (path, mut changed) = match place {
        HookPlacement::Folder => (layout.folder_hook(), Vec::new()),
        HookPlacement::Chained => (layout.main_hook(), displace(layout)?),
    };
    let new = text(place);
    let executable = trust::executable(&path).unwrap_or(false);
    if !executable || fs::read(&path).ok().as_deref() != Some(new.as_bytes()) {
        let folder = path.parent().unwrap_or(Path::new("/"));
        trust::make_folder(folder, 0o755)
            .and_then(|()| trust::write(&path, new.as_bytes(), 0o755))
            .map_err(|error| format!("{}: {error}", path.display()))?;
        changed.push(path);
    }
    changed.extend(match place {
        HookPlacement::Folder => clear_chained(layout)?,
        HookPlacement::Chained => clear_folder(layout)?,
    });
    Ok(changed)
}

/// Gives somebody else's main hook a second name, by which vmgate's calls it once it stands in its place.
fn displace(layout: &Layout) -> Result<Vec<PathBuf>, String> {
    let (main, aside) = (layout.main_hook(), layout.displaced_hook());
    if fs::symlink_metadata(&main).is_err() || is_ours(&main) {
        return Ok(Vec::new());
    }
    match fs::hard_link(&main, &aside) {
        Ok(()) => Ok(vec![aside]),
        // The name was given by an installation that did not come to its end.
        Err(error)
            if error.kind() == io::ErrorKind::AlreadyExists
                && fs::read(&main).ok() == fs::read(&aside).ok() =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(format!(
            "{} cannot be kept as {}: {error}; bring the two together first",
            main.display(),
            aside.display()
        )),
    }
}

/// Takes vmgate's script out of the folder.
pub(super) fn clear_folder(layout: &Layout) -> Result<Vec<PathBuf>, String> {
    let hook = layout.folder_hook();
    if !is_ours(&hook) {
        return Ok(Vec::new());
    }
    fs::remove_file(&hook).map_err(|error| format!("{}: {error}", hook.display()))?;
    Ok(vec![hook])
}

/// Takes vmgate's script out of the main hook's place and gives it back to the one that stood there.
pub(super) fn clear_chained(layout: &Layout) -> Result<Vec<PathBuf>, String> {
    let (main, aside) = (layout.main_hook(), layout.displaced_hook());
    if !is_ours(&main) {
        return Ok(Vec::new());
    }
    let cleared =
        if fs::symlink_metadata(&aside).is_ok() { fs::rename(&aside, &main) } else { fs::remove_file(&main) };
    cleared.map_err(|error| format!("{}: {error}", main.display()))?;
    Ok(vec![main])
}

#[cfg(test)]
mod tests {
    use super::super::PROGRAM;
    use super::*;

    #[test]
    fn every_script_is_marked_and_names_the_program() {
        for place in [HookPlacement::Folder, HookPlacement::Chained] {
            let text = text(place);
            assert!(text.starts_with("#!/bin/sh\n") && text.contains(MARK) && text.contains(PROGRAM));
            assert!(text.contains("hook run -- \"$@\""), "a VM's name is never an option");
        }
    }
}
