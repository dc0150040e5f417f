//! Orders of moves that were left behind: what the operator said of them, in change files and on the command line.
//!
//! The ledger's record of a move says which change it belongs to, by digest. Commands and hosts are those of that change file;
//! a record that names none has no commands, and its hosts pass the rules for documents.

use std::path::{Path, PathBuf};

use vmgate_execute::RunOrder;
use vmgate_facts::{HostUri, Uri, Uuid, text::plain};
use vmgate_judge::change::{ChangeFile, LARGEST_BYTES, MovePlan, Notify};
use vmgate_ledger::entry::RunStarted;

use super::{
    Failure,
    session::{Session, read_order},
};

/// Orders that the operator gave, now or in configured folders.
pub(super) struct KnownOrders<'a> {
    session: &'a Session<'a>,
    changes: Vec<ChangeFile>,
    /// VM, source and destination from the command line.
    named: Option<(&'a str, Uri, Uri)>,
}

impl<'a> KnownOrders<'a> {
    /// Reads these change files, and those of the folders in the configuration.
    pub(super) fn read(
        session: &'a Session<'a>,
        files: &[PathBuf],
        named: Option<(&'a str, &str, &str)>,
    ) -> Result<Self, Failure> {
        let hosts = |(vm, from, to)| Ok((vm, session.host_named(from)?, session.host_named(to)?));
        let named = named.map(hosts).transpose()?;
        let mut changes = files.iter().map(|file| read_order(file)).collect::<Result<Vec<_>, _>>()?;
        for folder in &session.config.changes {
            changes.extend(in_folder(folder)?);
        }
        Ok(Self { session, changes, named })
    }

    /// Source and destination from the command line.
    pub(super) fn named_hosts(&self) -> Option<(&Uri, &Uri)> {
        self.named.as_ref().map(|(_, from, to)| (from, to))
    }

    /// The order of a run; the error says what is missing, and how it is given.
    pub(super) fn of(&self, run: &RunStarted) -> Result<RunOrder, String> {
        if run.change_digest.is_some() { self.of_change(run) } else { self.of_single_move(run) }
    }

    fn of_change(&self, run: &RunStarted) -> Result<RunOrder, String> {
        let change = self.changes.iter().find(|change| Some(change.digest) == run.change_digest);
        let Some(change) = change else {
            let digest = run.change_digest.map(|digest| digest.to_string()).unwrap_or_default();
            return Err(format!(
                "the move belongs to the change {} ({digest}), whose file is needed as it was executed: give it with --change \
                 FILE, or name its folder under `changes` in vmgate.yaml",
                plain(run.change.as_deref().unwrap_or("without an id"))
            ));
        };
        let hosts = |uri: &HostUri| self.session.connection(uri).map_err(|failure| failure.text);
        let mut orders = Vec::new();
        for planned in change.moves.iter().filter(|planned| run.is_of(&planned.vm)) {
            let (from, to) = (hosts(&planned.from)?, hosts(&planned.to)?);
            let (vm, plan) = (planned.vm.clone(), planned.plan.clone());
            orders.push(RunOrder { vm, from, to, change: Some(change.id.clone()), plan });
        }
        if orders.len() > 1 {
            orders.retain(|order| order.from.to_string() == run.from);
        }
        match (orders.pop(), orders.is_empty()) {
            (Some(order), true) => Ok(order),
            _ => Err(format!("the change {} has no such move, whatever the record says", change.id)),
        }
    }

    /// Order of a move without a change file: `vmgate migrate` takes no commands on its command line.
    fn of_single_move(&self, run: &RunStarted) -> Result<RunOrder, String> {
        if !run.plan.actions.is_empty() {
            return Err(
                "the record has commands but names no change file, so vmgate did not write it; its commands are \
                        not run. Look at it with `vmgate ledger list`"
                    .to_owned(),
            );
        }
        let uuid = run.vm.uuid.as_ref().map(Uuid::as_str);
        let vm = uuid.or(run.vm.name.as_deref()).unwrap_or_default().to_owned();
        let plan = MovePlan {
            settings: run.plan.settings.clone(),
            notify: run.plan.notify.as_ref().map(|_| Notify::default()),
            ..MovePlan::default()
        };
        if let Some((_, from, to)) = self.named.as_ref().filter(|(vm, ..)| run.is_of(vm)) {
            return Ok(RunOrder { vm, from: from.clone(), to: to.clone(), change: None, plan });
        }
        Ok(RunOrder { vm, from: self.recorded(&run.from)?, to: self.recorded(&run.to)?, change: None, plan })
    }

    /// The URI to connect with, for one that a record names: the site's, or one that a document may name.
    pub(super) fn recorded(&self, text: &str) -> Result<Uri, String> {
        for host in self.session.config.hosts.keys() {
            let site = self.session.site_uri(host).map_err(|failure| failure.text)?;
            if let Some(site) = site.filter(|site| site.to_string() == text) {
                return Ok(site);
            }
        }
        match text.parse::<HostUri>() {
            Ok(named) => self.session.connection(&named).map_err(|failure| failure.text),
            Err(why) => Err(format!(
                "{}. Or give the hosts again, as they were given to `vmgate migrate`: vmgate recover VM --from URI --to URI",
                plain(&why.to_string())
            )),
        }
    }
}

/// The change files of a folder in which nobody else can put any. What is no change file is left out.
fn in_folder(folder: &Path) -> Result<Vec<ChangeFile>, Failure> {
    let unusable = |why: vmgate_trust::UntrustedFile| Failure::usage(format!("vmgate.yaml: changes: {why}"));
    let mut changes = Vec::new();
    for file in vmgate_trust::list(folder).map_err(unusable)? {
        if !file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            continue;
        }
        let bytes = vmgate_trust::read(&file, LARGEST_BYTES).map_err(unusable)?;
        match ChangeFile::parse(&file.display().to_string(), &bytes) {
            Ok(change) => changes.push(change),
            Err(why) => tracing::info!("not a change file: {why}"),
        }
    }
    Ok(changes)
}
