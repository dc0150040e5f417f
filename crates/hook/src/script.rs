//! Hook scripts that libvirt runs. Each lets all operations but `migrate begin` pass at once and calls the program for that.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Layout, install::is_ours, trust};

/// Placement of vmgate's hook beside other hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HookPlacement {
    /// A script of its own in `qemu.d`, which libvirt runs from 6.5 on.
    Folder,
    /// The main hook, for older versions that run only one; calls the previous main hook first.
    Chained,
}

/// Text that marks vmgate's scripts.
pub(super) const MARK: &str = "# vmgate's hook";

/// Shell function that calls the program and applies the fallback if the program cannot run.
const DECIDE: &str = r#"decide() {
  # A VM may be called --help.
  /usr/lib/vmgate/vmgate-hook hook run -- "$@"
  code=$?
  case $code in 0 | 1) return $code ;; esac
# The program is missing, broken or was killed, so it could not read the settings itself.
  grep -Eqs '^(on-error: *open|mode: *audit-only)( *| #.*)$' /etc/vmgate/hook.yaml && return 0
  echo "vmgate: $1 was refused, because /usr/lib/vmgate/vmgate-hook could not run (code $code); install the hook again with: vmgate hook install" >&2
  return 1
}
"#;

/// Text of the script for this placement.
pub(super) fn text(place: HookPlacement) -> String {
    let head = format!(
        "#!/bin/sh\n{MARK}: lets an incoming migration in only with a signed GO. Written by `vmgate hook install` and \
         replaced by\n# the next one; settings are in /etc/vmgate/hook.yaml.\n"
    );
    match place {
        HookPlacement::Folder => format!(
            "{head}# A hook that fails at `reconnect` makes libvirt kill the VM: all other operations pass.\n\
             [ \"$2/$3\" = migrate/begin ] || exit 0\n{DECIDE}decide \"$@\"\n"
        ),
        HookPlacement::Chained => format!("{head}{DECIDE}{CHAIN}"),
    }
}

/// Chaining part: the other hook runs first with its usual input; it may change the domain XML, as libvirt allows.
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

/// Writes the script for this placement and removes vmgate's script of the other placement. An existing hook is never
/// missing meanwhile. Returns the files that changed.
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

/// Gives another program's main hook a second name, under which vmgate's main hook calls it.
fn displace(layout: &Layout) -> Result<Vec<PathBuf>, String> {
    let (main, aside) = (layout.main_hook(), layout.displaced_hook());
    if fs::symlink_metadata(&main).is_err() || is_ours(&main) {
        return Ok(Vec::new());
    }
    match fs::hard_link(&main, &aside) {
        Ok(()) => Ok(vec![aside]),
        // The second name is from an installation that was interrupted.
        Err(error)
            if error.kind() == io::ErrorKind::AlreadyExists
                && fs::read(&main).ok() == fs::read(&aside).ok() =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(format!(
            "{} cannot be kept as {}: {error}; merge the two hooks into the first file, remove the second file, and install again",
            main.display(),
            aside.display()
        )),
    }
}

/// Removes vmgate's script from the hook folder.
pub(super) fn clear_folder(layout: &Layout) -> Result<Vec<PathBuf>, String> {
    let hook = layout.folder_hook();
    if !is_ours(&hook) {
        return Ok(Vec::new());
    }
    fs::remove_file(&hook).map_err(|error| format!("{}: {error}", hook.display()))?;
    Ok(vec![hook])
}

/// Removes vmgate's main hook and restores the previous main hook.
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
    use super::{super::PROGRAM, *};

    #[test]
    fn every_script_is_marked_and_names_the_program() {
        for place in [HookPlacement::Folder, HookPlacement::Chained] {
            let text = text(place);
            assert!(text.starts_with("#!/bin/sh\n") && text.contains(MARK) && text.contains(PROGRAM));
            assert!(text.contains("hook run -- \"$@\""), "a VM's name is never an option");
        }
    }
}
