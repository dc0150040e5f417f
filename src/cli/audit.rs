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
    session::{self, Session},
};
use crate::audit::{self, AuditedHost, JudgedMove};

#[derive(Debug, Args)]
pub(super) struct AuditCommand {
    /// Hosts: libvirt URIs, or names under `hosts` in vmgate.yaml that have a `uri`; all of those if none is given
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
        let configured = || {
            let hosts = session.config.hosts.iter();
            hosts.filter(|(_, host)| host.uri.is_some()).map(|(name, _)| name.clone()).collect()
        };
        let mut names = self.hosts.clone();
        if let Some(file) = &self.inventory {
            let text = fs::read_to_string(file).map_err(|error| output::unreadable(file, &error))?;
            names.extend(inventory(&text));
        } else if names.is_empty() {
            names = configured();
        }
        let mut seen = BTreeSet::new();
        names.retain(|name| seen.insert(name.clone()));
        if names.is_empty() {
            return Err(Failure::usage(
                "no host: give libvirt URIs, or name hosts with a `uri` under `hosts` in vmgate.yaml",
            ));
        }
        names.iter().map(|name| request(name, session)).collect()
    }
}

/// Host names in an inventory file.
fn inventory(text: &str) -> impl Iterator<Item = String> {
    let lines = text.lines().map(|line| line.split_once(" #").map_or(line, |(host, _)| host).trim());
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned)
}

/// Survey request for a host, given by its URI or by its name in the configuration.
fn request(named: &str, session: &Session) -> Result<HostRequest, Failure> {
    let uri = match session.site_uri(named)? {
        Some(uri) => uri,
        None if named.contains("://") => {
            Uri::from_operator(named).map_err(|error| Failure::usage(format!("{named}: {error}")))?
        }
        None => {
            return Err(Failure::usage(format!(
                "{named}: not a libvirt URI, and vmgate.yaml has no hosts.{named}.uri; add it there, or give \
                 qemu+ssh://{named}/system"
            )));
        }
    };
    request_of(named, uri, session)
}

/// Survey request for the host `named`, with its settings in the configuration.
pub(super) fn request_of(named: &str, uri: Uri, session: &Session) -> Result<HostRequest, Failure> {
    let configured = session.config.hosts.get(named);
    let by_uri = || uri.name().and_then(|host| session.config.hosts.get(host));
    let settings = configured.or_else(by_uri);
    let name = match (named.contains("://"), uri.name()) {
        (false, _) => named.to_owned(),
        (true, Some(host)) => host.to_owned(),
        (true, None) => uri.to_string(),
    };
    Ok(HostRequest {
        probe: settings.map_or(Ok(None), |settings| session::probe_way(&name, settings))?,
        maintenance: settings.and_then(|settings| settings.maintenance.clone()),
        migrate_address: settings.and_then(|settings| settings.migrate_address),
        name,
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
