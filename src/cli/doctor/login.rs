//! The login at a host: which user, with which rights.

use std::time::Duration;

use vmgate_facts::Uri;
use vmgate_reach::{HostShell, ShellError};

use super::Access;

/// Path of the on-host program that a rule of sudo can name: only root can replace it.
pub(super) const INSTALLED: &str = "/usr/lib/vmgate/vmgate-probe";

/// Script that says what the other accesses rest on, one `name=value` a line.
const SCRIPT: &str = "\
echo user=$(id -un); echo uid=$(id -u); echo groups=$(id -Gn)
[ -r /etc/os-release ] && (. /etc/os-release; echo \"os=$PRETTY_NAME\")
[ -x /usr/lib/vmgate/vmgate-probe ] && echo installed=yes
command -v sudo >/dev/null && echo sudo=yes
sudo -n -l /bin/sh >/dev/null 2>&1 && echo root=yes
sudo -n -l /usr/lib/vmgate/vmgate-probe >/dev/null 2>&1 && echo probe=yes
for socket in /run/libvirt/libvirt-sock /run/libvirt/virtqemud-sock; do [ -S $socket ] && echo socket=$socket; done
exit 0";

/// A login, and what its user may do on the host.
#[allow(clippy::struct_excessive_bools, reason = "each is an answer of its own")]
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) user: String,
    pub(super) is_root: bool,
    pub(super) groups: String,
    pub(super) os: Option<String>,
    pub(super) has_installed_program: bool,
    pub(super) has_sudo: bool,
    /// True if `sudo -n` runs anything as root.
    pub(super) may_all: bool,
    /// True if `sudo -n` runs the installed program as root.
    pub(super) may_probe: bool,
    /// Sockets of libvirt's daemons.
    pub(super) sockets: Vec<String>,
}

/// Logs in and asks for the rights of the user.
pub(super) fn look(shell: &HostShell, timeout: Duration) -> Result<Login, ShellError> {
    let answer = shell.read(SCRIPT, timeout)?;
    Ok(parse(&String::from_utf8_lossy(&answer)))
}

fn parse(answer: &str) -> Login {
    let mut login = Login::default();
    for (name, value) in answer.lines().filter_map(|line| line.split_once('=')) {
        let value = vmgate_facts::text::plain(value);
        match name {
            // It stands in lines that people copy, and comes from the host.
            "user" => login.user = if is_user_name(&value) { value } else { "USER".to_owned() },
            "uid" => login.is_root = value == "0",
            "groups" => login.groups = value,
            "os" => login.os = Some(value),
            "installed" => login.has_installed_program = true,
            "sudo" => login.has_sudo = true,
            "root" => login.may_all = true,
            "probe" => login.may_probe = true,
            "socket" => login.sockets.push(value),
            _ => {}
        }
    }
    login
}

/// True for a name that `useradd` takes.
fn is_user_name(text: &str) -> bool {
    let first = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    first && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

/// The login as an access.
pub(super) fn access(login: &Result<Login, ShellError>, uri: &Uri) -> Access {
    let name = if uri.host.is_some() { "login" } else { "this machine" };
    match login {
        Ok(login) => {
            let groups = if login.is_root { String::new() } else { format!(", groups {}", login.groups) };
            let os = login.os.as_ref().map(|os| format!("; {os}")).unwrap_or_default();
            Access::works(name, format!("as {}{groups}{os}", login.user))
        }
        Err(why) => Access::missing(name, why.to_string(), Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_read_from_the_lines_of_any_host() {
        let login = parse(
            "user=ops\nuid=1000\ngroups=ops libvirt\nos=Debian GNU/Linux 12\nsudo=yes\nprobe=yes\nnoise\n",
        );
        assert_eq!((login.user.as_str(), login.is_root, login.may_probe), ("ops", false, true));
        assert!(login.has_sudo && !login.may_all && login.sockets.is_empty());
        assert_eq!(parse(""), Login::default());
        assert_eq!(parse("user=x; touch /tmp/owned\n").user, "USER");
    }

    #[test]
    fn this_machine_answers_the_script() {
        let login = look(&HostShell::Local, Duration::from_secs(20)).unwrap();
        assert!(!login.user.is_empty());
    }
}
