//! Accesses that a check and a migration need of a host beyond the login: libvirt, the probe as root, and the guests' agents.

use std::time::Duration;

use vmgate_collect::OpenHost;
use vmgate_facts::Unknown;
use vmgate_libvirt::{Hypervisor, LibvirtError, LibvirtErrorKind, domain_xml::agent_is_connected};
use vmgate_probe::host::HostQuestions;

use super::{
    Access,
    login::{INSTALLED, Login},
};

/// Most names in one line.
const NAMED: usize = 5;

/// Every access of a host. `login` is none where the login failed.
pub(super) fn accesses(opened: &OpenHost, login: Option<&Login>, timeout: Duration) -> Vec<Access> {
    let mut found = Vec::new();
    if opened.uri.names_libvirt() {
        found.push(libvirt(&opened.libvirt, login));
    }
    found.push(probe(opened, login, timeout));
    if let Ok(hypervisor) = &opened.libvirt {
        found.push(
            agents(hypervisor).unwrap_or_else(|error| Access::unknown("guest agents", &Unknown::from(error))),
        );
    }
    found
}

fn libvirt(answer: &Result<Hypervisor, LibvirtError>, login: Option<&Login>) -> Access {
    const NAME: &str = "libvirt";
    let member =
        |login: &Login| format!("on the host: usermod -aG libvirt {}, then log in again", login.user);
    match answer {
        Ok(hypervisor) => {
            let version = hypervisor.libvirt_version().map(|version| version.to_string());
            let version = version.unwrap_or_else(|error| error.to_string());
            if hypervisor.is_read_only() {
                let seen = format!(
                    "{version}, but this user may only read: VMs cannot be migrated, nor agents asked"
                );
                Access::partly(NAME, seen, login.map(member).into_iter().collect())
            } else {
                Access::works(NAME, format!("{version}, to read and to migrate"))
            }
        }
        Err(error) => {
            let has_socket = |name: &str| {
                login.is_some_and(|login| login.sockets.iter().any(|socket| socket.ends_with(name)))
            };
            let cure = match (&error.kind, login) {
                (LibvirtErrorKind::PermissionDenied(_), Some(login)) if !login.is_root => vec![member(login)],
                (_, Some(_)) if has_socket("/virtqemud-sock") && !has_socket("/libvirt-sock") => vec![
                    "this host has libvirt's modular daemons: on the host, systemctl enable --now virtproxyd.socket".to_owned(),
                    "or add ?socket=/run/libvirt/virtqemud-sock to its URI in vmgate.yaml (hosts: {NAME: {uri: …}})".to_owned(),
                ],
                (_, Some(login)) if login.sockets.is_empty() => vec![
                    "no libvirt daemon listens there. On the host: systemctl enable --now libvirtd.socket (or virtqemud.socket)"
                        .to_owned(),
                    "libvirt in a container: give its URI, and a command for the probe (`exec`), in vmgate.yaml".to_owned(),
                ],
                _ => Vec::new(),
            };
            let seen = if cure.is_empty() { error.to_string() } else { Unknown::from(error.clone()).reason };
            Access::missing(NAME, seen, cure)
        }
    }
}

fn probe(opened: &OpenHost, login: Option<&Login>, timeout: Duration) -> Access {
    const NAME: &str = "probe as root";
    if let Err(why) = opened.probe.probe_host(&HostQuestions::default(), timeout) {
        return Access::unknown(NAME, &why);
    }
    match login {
        Some(login) if login.is_root => Access::works(NAME, "runs"),
        Some(login) if login.may_all || login.may_probe && login.has_installed_program => {
            Access::works(NAME, "runs, by sudo -n")
        }
        Some(login) => {
            let seen = format!(
                "runs as {}: it traces no memory, watches no packets, and sees neither firewalls nor files of QEMU's",
                login.user
            );
            Access::partly(NAME, seen, sudo_lines(login))
        }
        None => Access::works(NAME, format!("answers ({})", opened.probe.method("host"))),
    }
}

/// Lines for root on the host, so that this user may run the probe as root, and nothing else.
fn sudo_lines(login: &Login) -> Vec<String> {
    let user = &login.user;
    let mut lines = vec!["as root on the host:".to_owned()];
    if !login.has_sudo {
        lines.push("apt-get install sudo  # or dnf, zypper".to_owned());
    }
    if !login.has_installed_program {
        lines.push(format!(
            "install -D -m 755 vmgate-probe {INSTALLED}  # which `vmgate generate on-host-program >vmgate-probe` writes"
        ));
    }
    lines.push(format!("echo '{user} ALL=(root) NOPASSWD: {INSTALLED} \"\"' >/etc/sudoers.d/vmgate"));
    lines.push("chmod 440 /etc/sudoers.d/vmgate; visudo -c".to_owned());
    lines
}

/// Running VMs whose agent is not connected. libvirt says it without a command to the agent, so that no VM is marked for it.
fn agents(hypervisor: &Hypervisor) -> Result<Access, LibvirtError> {
    const NAME: &str = "guest agents";
    let (mut silent, mut count) = (Vec::new(), 0);
    for guest in hypervisor.guests()?.into_iter().filter(|guest| guest.active) {
        count += 1;
        // A VM that ended meanwhile needs none.
        if guest.domain.xml().is_ok_and(|xml| !agent_is_connected(&xml)) {
            silent.push(vmgate_facts::text::plain(&guest.name));
        }
    }
    if silent.is_empty() {
        return Ok(Access::works(NAME, format!("connected in {count} of {count} running VMs")));
    }
    let more = silent.len().saturating_sub(NAMED);
    let named = silent.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let seen = format!("not connected in {} of {count} running VMs: {named}{more}", silent.len());
    let cure = vec![
        "install and start qemu-guest-agent in the guest, or name another way into it in vmgate.yaml (guests: {VM: {ssh: …}})"
            .to_owned(),
    ];
    Ok(Access::partly(NAME, seen, cure))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sudoers_line_allows_the_probe_without_arguments_and_nothing_else() {
        let login = Login { user: "ops".to_owned(), has_sudo: true, ..Login::default() };
        let lines = sudo_lines(&login).join("\n");
        assert!(lines.contains(r#"'ops ALL=(root) NOPASSWD: /usr/lib/vmgate/vmgate-probe ""'"#), "{lines}");
        assert!(lines.contains("install -D") && !lines.contains("apt-get"), "{lines}");
    }
}
