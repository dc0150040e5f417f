//! Hook scripts that libvirt runs. Each lets all operations but `migrate begin` pass at once and calls the program for that.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use vmgate_facts::text::shell_word;

use super::{Layout, config, install::is_ours, trust};

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
pub(super) const MARK: &str = vmgate_facts::HOOK_MARK;

/// Text of the script for this placement.
pub(super) fn text(layout: &Layout, place: HookPlacement) -> String {
    let head = format!(
        "#!/bin/sh\n{MARK}: lets an incoming migration in only with a signed GO. Written by `vmgate hook install` and \
         replaced by\n# the next one; settings are in /etc/vmgate/hook.yaml.\n"
    );
    let decide = decide(layout);
    match place {
        HookPlacement::Folder => format!(
            "{head}# A hook that fails at `reconnect` makes libvirt kill the VM: all other operations pass.\n\
             [ \"$2/$3\" = migrate/begin ] || exit 0\n{decide}decide \"$@\"\n"
        ),
        HookPlacement::Chained => {
            let other = shell_word(&layout.displaced_hook().display().to_string());
            format!("{head}{decide}other={other}\n{CHAIN}")
        }
    }
}

/// Shell functions that call the program, and apply the fallback if the program cannot run. They believe a file only if
/// nobody but root could have written it, as the program does.
fn decide(layout: &Layout) -> String {
    let word = |path: &Path| shell_word(&path.display().to_string());
    let folders_of = |path: &Path| path.ancestors().skip(1).map(word).collect::<Vec<_>>().join(" ");
    let (program, settings, log) = (layout.program(), layout.config(), layout.journal());
    DECIDE
        .replace("@PROGRAM_FOLDERS@", &folders_of(&program))
        .replace("@SETTINGS_FOLDERS@", &folders_of(&settings))
        .replace("@PROGRAM@", &word(&program))
        .replace("@SETTINGS@", &word(&settings))
        .replace("@LOG@", &word(&log))
        .replace("@OPEN@", config::OPEN_LINE)
}

const DECIDE: &str = r#"program=@PROGRAM@
settings=@SETTINGS@
# True if all of these are there and only root, or the user that runs this, can write or replace them.
only_root_writes() {
  others=$(find -H "$@" -prune ! \( \( -user 0 -o -user "$(id -u)" \) \( -type d -perm -1000 -o ! -perm -020 ! -perm -002 \) \) 2>&1) &&
    [ -z "$others" ]
}
# A line of the log, as the program writes it.
note() {
  vm=$(printf %s "$1" | tr -c 'A-Za-z0-9._-' '?')
  printf '{"at":"%s","vmgate":"script","event":"decision","vm":"%s","uuid":null,"let_in":%s,"because":"error","reason":"%s","verdict":null,"key":null,"mode":null,"took_milliseconds":0}\n' \
    "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$vm" "$2" "$3" >>@LOG@ 2>/dev/null ||
    logger -p authpriv.notice -t vmgate-hook "$vm let_in=$2: $3"
}
decide() {
  if only_root_writes @PROGRAM_FOLDERS@ "$program"; then
    # A VM may be called --help.
    "$program" hook run -- "$@"
    code=$?
    case $code in 0 | 1) return $code ;; esac
    why="$program could not run (code $code)"
  else
    why="$program is missing, or others than root could have written it or a folder above it"
  fi
  # The program could not read the settings itself.
  if [ ! -L "$settings" ] && only_root_writes @SETTINGS_FOLDERS@ "$settings" &&
    LC_ALL=C grep -aEqs '@OPEN@' "$settings"; then
    note "$1" true "$why; the settings let it in"
    return 0
  fi
  note "$1" false "$why"
  echo "vmgate: $1 was refused, because $why; install the hook again with: vmgate hook install" >&2
  return 1
}
"#;

/// Chaining part: the other hook runs first with its usual input; it may change the domain XML, as libvirt allows.
const CHAIN: &str = r#"if [ "$2/$3" != migrate/begin ]; then
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
    let new = text(layout, place);
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
            let text = text(&Layout::default(), place);
            assert!(text.starts_with("#!/bin/sh\n") && text.contains(MARK) && text.contains(PROGRAM));
            assert!(text.contains("hook run -- \"$@\""), "a VM's name is never an option");
            assert!(
                !text.contains('@'.to_string().repeat(2).as_str()) && !text.contains("@PROGRAM"),
                "{text}"
            );
        }
    }
}
