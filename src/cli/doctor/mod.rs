//! `vmgate doctor`: tries each access to hosts that a check or a migration needs, and says how what is missing is obtained.
//!
//! Nothing is changed. For a moment each host listens on a free migration port, to which the host before it connects.

mod host;
mod login;

use std::net::IpAddr;

use clap::Args;
use vmgate_collect::{OpenHost, port_trial::try_migration_port};
use vmgate_facts::{Cause, Unknown, Uri, text::ShownCommand};
use vmgate_libvirt::ask_each;
use vmgate_verdict::ExitCode;

use super::{Failure, options::GlobalOptions, output, session::Session};
use crate::report::wrap;

#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// Hosts: names of vmgate.yaml or the inventory, hv1, root@hv1 or libvirt URIs; all of the site if none is given
    #[arg(value_name = "HOST")]
    hosts: Vec<String>,
}

/// Result of trying one access.
struct Access {
    /// Name of the access.
    name: &'static str,
    state: AccessState,
    /// The finding.
    seen: String,
    /// Lines that obtain what is missing: commands, or what to do.
    cure: Vec<String>,
}

/// State of an access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AccessState {
    /// It works.
    Works,
    /// A check works without it, and knows less.
    Partly,
    /// It is missing.
    Missing,
}

impl Access {
    fn works(name: &'static str, seen: impl Into<String>) -> Self {
        Self { name, state: AccessState::Works, seen: seen.into(), cure: Vec::new() }
    }

    fn partly(name: &'static str, seen: impl Into<String>, cure: Vec<String>) -> Self {
        Self { name, state: AccessState::Partly, seen: seen.into(), cure }
    }

    fn missing(name: &'static str, seen: impl Into<String>, cure: Vec<String>) -> Self {
        Self { name, state: AccessState::Missing, seen: seen.into(), cure }
    }

    /// The access for which this is the obstacle, with the cause's way out unless the reason has one.
    fn unknown(name: &'static str, why: &Unknown) -> Self {
        let has_way_out = matches!(why.cause, Cause::NoLogin | Cause::NoHostProbe);
        let cure = if has_way_out { Vec::new() } else { vec![why.cause.way_out().to_owned()] };
        Self::missing(name, why.reason.clone(), cure)
    }
}

/// A host with its name, and every access that was tried.
struct Examined {
    name: String,
    /// None where the login failed.
    opened: Option<OpenHost>,
    address: Option<IpAddr>,
    accesses: Vec<Access>,
}

impl Doctor {
    pub(super) fn run(&self, shared: &GlobalOptions) -> Result<ExitCode, Failure> {
        let session = Session::open(shared)?;
        let hosts = if self.hosts.is_empty() {
            session.site_hosts()?
        } else {
            self.hosts.iter().map(|host| session.host_named(host)).collect::<Result<_, _>>()?
        };
        if hosts.is_empty() {
            return Err(Failure::usage(
                "no host: name hosts (hv1, root@hv1 or a libvirt URI), or write them down once with `vmgate init HOST…`",
            ));
        }
        let bar = output::progress(shared, hosts.len() as u64, "hosts");
        let examined = ask_each(&hosts, |uri| {
            let examined = examine(uri, &session);
            bar.inc(1);
            examined
        });
        bar.finish_and_clear();
        let mut examined = examined.into_iter().collect::<Result<Vec<_>, _>>()?;
        try_ports(&mut examined, &session);
        output::to_stdout(|out| {
            for host in &examined {
                writeln!(out, "{}", host.name)?;
                for access in &host.accesses {
                    out.write_all(lines(access, output::style(shared).width).as_bytes())?;
                }
            }
            Ok(())
        })?;
        let all = || examined.iter().flat_map(|host| &host.accesses);
        Ok(if all().any(|access| access.state == AccessState::Missing) {
            ExitCode::EvidenceMissing
        } else {
            ExitCode::Go
        })
    }
}

/// Tries every access to one host.
fn examine(uri: &Uri, session: &Session) -> Result<Examined, Failure> {
    let shell = session.shell(uri)?;
    let probe = session.way(uri)?;
    let login = login::look(&shell, session.timeout());
    let by_ssh =
        !uri.names_libvirt() || matches!(uri.transport.as_deref(), Some("ssh" | "libssh" | "libssh2"));
    let opened = (login.is_ok() || !by_ssh).then(|| OpenHost::open(uri, probe, session.timeout()));
    let mut accesses = vec![login::access(&login, uri)];
    match &opened {
        Some(opened) => accesses.extend(host::accesses(opened, login.as_ref().ok(), session.timeout())),
        None => accesses.push(Access::missing(
            "libvirt, probe",
            "not tried: first the login must work",
            Vec::new(),
        )),
    }
    let name = uri.host_for_people().to_owned();
    Ok(Examined { name, opened, address: session.migrate_address(uri)?, accesses })
}

/// Tries a migration port of each host from the host before it.
fn try_ports(examined: &mut [Examined], session: &Session) {
    const NAME: &str = "migration port";
    let count = examined.len();
    let tried: Vec<Access> = (0..count)
        .filter_map(|at| {
            let destination = examined.get(at)?;
            let source = examined.get((at + count - 1) % count).filter(|_| count > 1)?;
            let (Some(from), Some(to)) = (&source.opened, &destination.opened) else {
                let seen = format!("not tried from {}: both hosts need a login", source.name);
                return Some(Access::missing(NAME, seen, Vec::new()));
            };
            Some(match try_migration_port(from, to, destination.address, session.timeout()) {
                Ok(seen) => Access::works(NAME, format!("{seen} from {}", source.name)),
                Err(why) => {
                    let open =
                        "open TCP 49152 to 49215 for the other hosts, as in docs/install.md".to_owned();
                    let is_port = why.cause == Cause::HostUnreachable;
                    let cure = if is_port { vec![open] } else { vec![why.cause.way_out().to_owned()] };
                    Access::missing(NAME, format!("from {}: {}", source.name, why.reason), cure)
                }
            })
        })
        .collect();
    if tried.is_empty() {
        let command =
            ShownCommand::new("vmgate doctor").value(examined.first().map_or("", |host| &host.name));
        let seen = format!("not tried: it takes two hosts, as in `{command} OTHER`");
        if let Some(only) = examined.first_mut() {
            only.accesses.push(Access::partly(NAME, seen, Vec::new()));
        }
    }
    for (host, access) in examined.iter_mut().zip(tried) {
        host.accesses.push(access);
    }
}

/// An access in lines for a terminal of this width; its cure in lines to copy, which are not wrapped.
fn lines(access: &Access, width: usize) -> String {
    let word = match access.state {
        AccessState::Works => "ok",
        AccessState::Partly => "partly",
        AccessState::Missing => "missing",
    };
    let lead = format!("  {word:<8} {:<15} ", access.name);
    let indent = " ".repeat(lead.len());
    let mut text = wrap::fill(&access.seen, &lead, &indent, width);
    text.push('\n');
    for line in &access.cure {
        text.extend([" ".repeat(11).as_str(), "→ ", line, "\n"]);
    }
    text
}
