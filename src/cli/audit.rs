//! `vmgate audit`: every VM of some hosts, with its possible destinations and the reasons against the others.

use std::{collections::BTreeSet, fs, path::PathBuf};

use clap::Args;
use vmgate_collect::survey::{self, HostRequest, HostSummary};
use vmgate_facts::Uri;
use vmgate_judge::{EvidenceOrigin, VerdictRequest};
use vmgate_libvirt::ask_each;
use vmgate_verdict::{ExitCode, Verdict};

use super::{
    Failure,
    options::{EvaluationTime, GlobalOptions},
    output,
    session::Session,
};
use crate::audit::{self, AuditedHost, JudgedMove};

#[derive(Debug, Args)]
pub(super) struct AuditCommand {
    /// Hosts: names of vmgate.yaml or the inventory, hv1, root@hv1 or libvirt URIs; all of the site if none is given
    #[arg(value_name = "HOST")]
    hosts: Vec<String>,
    /// File of further hosts, one per line; text after a `#` is a comment
    #[arg(long, value_name = "FILE")]
    inventory: Option<PathBuf>,
    #[command(flatten)]
    time: EvaluationTime,
    #[command(flatten)]
    reports: output::Reports,
}

impl AuditCommand {
    pub(super) fn run(&self, shared: &GlobalOptions) -> Result<ExitCode, Failure> {
        let session = Session::open(shared)?;
        let policy = session.policy()?;
        let requests = self.requests(&session)?;
        let reports = self.reports.open()?;
        let now = self.time.now();
        let (simulated, evidence) = (self.time.is_simulated(), EvidenceOrigin::Live);
        let asked = VerdictRequest { simulated, evidence, ..VerdictRequest::default() };
        let bar = output::progress(shared, requests.len() as u64 * survey::STEPS_PER_HOST, "hosts");
        let survey =
            survey::survey(requests, session.manager_questions()?, session.timeout(), now, || bar.inc(1));
        bar.finish_and_clear();
        let moves = ask_each(&survey.moves(), |wanted| {
            let (source, destination) = survey.host_names(*wanted)?;
            let verdict = policy.judge(survey.facts(*wanted)?, now, &asked);
            Some(JudgedMove { source: source.to_owned(), destination: destination.to_owned(), verdict })
        });
        let moves: Vec<JudgedMove> = moves.into_iter().flatten().collect();
        let mut audit = audit::audit(survey.hosts().into_iter().map(audited).collect(), &moves, now);
        let verdicts: Vec<Verdict> = moves.into_iter().map(|judged| judged.verdict).collect();
        reports.write_audit(&mut audit, &verdicts, shared)?;
        Ok(audit.exit())
    }

    fn requests(&self, session: &Session) -> Result<Vec<HostRequest>, Failure> {
        let mut names = self.hosts.clone();
        if let Some(file) = &self.inventory {
            let text = fs::read_to_string(file).map_err(|error| output::unreadable(file, &error))?;
            names.extend(inventory(&text));
        }
        let uris = if names.is_empty() {
            session.site_hosts()?
        } else {
            let mut seen = BTreeSet::new();
            names.retain(|name| seen.insert(name.clone()));
            names.iter().map(|name| session.host_named(name)).collect::<Result<_, _>>()?
        };
        if uris.is_empty() {
            return Err(Failure::usage(
                "no host: name hosts (hv1, root@hv1 or a libvirt URI), or write them down once with `vmgate init HOST…`",
            ));
        }
        uris.into_iter().map(|uri| request_of(uri, session)).collect()
    }
}

/// Host names in an inventory file.
fn inventory(text: &str) -> impl Iterator<Item = String> {
    let lines = text.lines().map(|line| line.split_once(" #").map_or(line, |(host, _)| host).trim());
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned)
}

/// Survey request for a host, with what vmgate.yaml and the inventory say of it.
pub(super) fn request_of(uri: Uri, session: &Session) -> Result<HostRequest, Failure> {
    Ok(HostRequest {
        name: uri.name().map_or_else(|| uri.to_string(), str::to_owned),
        probe: session.probe(&uri)?,
        maintenance: session.maintenance(&uri)?,
        migrate_address: session.migrate_address(&uri)?,
        uri,
    })
}

fn audited(host: HostSummary) -> AuditedHost {
    AuditedHost {
        name: host.name,
        uri: host.uri,
        running: host.running,
        idle: host.idle,
        lost: host.unreachable.map(|why| why.reason),
    }
}
