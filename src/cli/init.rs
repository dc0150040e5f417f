//! `vmgate init`: vmgate.yaml and an inventory from what the hosts tell, written after the operator has seen them.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    net::{IpAddr, ToSocketAddrs as _},
    path::PathBuf,
};

use clap::Args;
use jiff::Timestamp;
use vmgate_collect::survey;
use vmgate_facts::{Fact, Host, HostUri, Uri, text::ShownCommand};
use vmgate_probe::host::ManagerQuestions;
use vmgate_verdict::ExitCode;

use super::{Failure, audit::request_of, options::GlobalOptions, output, session::Session};
use crate::{
    config::{Config, DEFAULT_FILE},
    fleet::inventory::{FoundHost, Inventory, draft},
};

/// File name of the inventory.
const INVENTORY: &str = "inventory.yaml";

#[derive(Debug, Args)]
pub(super) struct Init {
    /// Hosts of the site: hv1, root@hv1 or libvirt URIs
    #[arg(value_name = "HOST", required = true)]
    hosts: Vec<String>,
    /// Folder for the two files
    #[arg(long, value_name = "DIR", default_value = ".")]
    folder: PathBuf,
    /// Write without asking
    #[arg(long)]
    yes: bool,
}

impl Init {
    pub(super) fn run(&self, shared: &GlobalOptions) -> Result<ExitCode, Failure> {
        let session = Session::open(shared)?;
        let files = [DEFAULT_FILE, INVENTORY].map(|name| self.folder.join(name));
        if let Some(there) = files.iter().find(|file| file.symlink_metadata().is_ok()) {
            return Err(Failure::usage(format!(
                "{}: exists already, and stays as it is: edit it, or write elsewhere with --folder DIR",
                there.display()
            )));
        }
        let hosts = self.found(&session)?;
        let inventory = draft(&hosts);
        let config = config_text(&hosts);
        Inventory::parse(INVENTORY, inventory.as_bytes()).map_err(Failure::failed)?;
        Config::parse(DEFAULT_FILE, config.as_bytes()).map_err(Failure::failed)?;
        let [config_file, inventory_file] = &files;
        output::to_stdout(|out| {
            for (file, text) in [(config_file, &config), (inventory_file, &inventory)] {
                writeln!(out, "# {}\n{text}", file.display())?;
            }
            Ok(())
        })?;
        if !self.yes && !agreed()? {
            return Err(Failure::usage("nothing is written: give --yes to write these two files"));
        }
        for (file, text) in [(config_file, &config), (inventory_file, &inventory)] {
            output::OpenFile::open(file)?.write(|out| out.write_all(text.as_bytes()))?;
        }
        let next = ShownCommand::new("vmgate doctor");
        output::say(
            shared,
            &format!("both files are written; next, `{next}` tries every access to these hosts"),
        );
        let silent = hosts.iter().any(|host| host.host.known().is_none());
        Ok(if silent { ExitCode::EvidenceMissing } else { ExitCode::Go })
    }

    /// The hosts with what they told, by libvirt and by their probes.
    fn found(&self, session: &Session) -> Result<Vec<FoundHost>, Failure> {
        let uris = self.hosts.iter().map(|host| session.host_named(host)).collect::<Result<Vec<Uri>, _>>()?;
        let requests =
            uris.iter().map(|uri| request_of(uri.clone(), session)).collect::<Result<Vec<_>, _>>()?;
        let bar = output::progress(session.shared, requests.len() as u64 * survey::STEPS_PER_HOST, "hosts");
        let survey = survey::survey(
            requests,
            ManagerQuestions::default(),
            session.timeout(),
            Timestamp::now(),
            || bar.inc(1),
        );
        bar.finish_and_clear();
        let mut found: Vec<FoundHost> = Vec::new();
        for (uri, host) in uris.into_iter().zip(survey.host_facts()) {
            let mut name = name_of(&uri, &host);
            while found.iter().any(|other| other.name == name) {
                name.push('x');
            }
            found.push(FoundHost { name, reached_at: addresses_of(&uri), uri, host });
        }
        Ok(found)
    }
}

/// Name of a host: as it was given, or as the host calls itself where it was given by its address or not at all.
fn name_of(uri: &Uri, host: &Fact<Host>) -> String {
    let given = uri.name().filter(|name| name.parse::<IpAddr>().is_err());
    let own = host.known().and_then(|host| host.hostname.known()).and_then(|name| name.split('.').next());
    given.or(own).or(uri.name()).unwrap_or("this-machine").to_owned()
}

/// Addresses by which this machine reaches a host.
fn addresses_of(uri: &Uri) -> Vec<IpAddr> {
    let Some(host) = &uri.host else { return Vec::new() };
    (host.as_str(), 22)
        .to_socket_addrs()
        .map(|found| found.map(|place| place.ip()).collect())
        .unwrap_or_default()
}

/// Text of vmgate.yaml. A URI that no document may hold, since it names a key or a program, stands here.
fn config_text(hosts: &[FoundHost]) -> String {
    let mut text = format!("schema: vmgate/config/v1\ninventory: {INVENTORY}\n");
    text.push_str(
        "# Checks and moves are recorded here, and later forecasts learn from them.\nledger: ledger.db\n",
    );
    let mut own = hosts.iter().filter(|host| host.uri.to_string().parse::<HostUri>().is_err()).peekable();
    if own.peek().is_some() {
        text.push_str("hosts:\n");
    }
    for host in own {
        let value = |text: &str| serde_json::Value::from(text).to_string();
        text.extend(["  ", &value(&host.name), ": {uri: ", &value(&host.uri.to_string()), "}\n"]);
    }
    text
}

/// Asks on the terminal; without one nobody can agree.
fn agreed() -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Ok(false);
    }
    let _ = write!(io::stderr(), "Write these two files? [y/N] ");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(Failure::failed)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
