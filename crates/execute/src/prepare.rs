//! Preparation of a VM: stops services and runs commands before a move, and undoes all of it afterwards.

use std::{io, process::Command, time::Duration};

use vmgate_facts::text::shell_word;
use vmgate_judge::change::{Action, ActionKind, RunsOn};
use vmgate_ledger::entry::RunStarted;
use vmgate_libvirt::Domain;

use crate::hand::{ScriptResult, run_script};

/// Largest output of a command that is kept, in bytes.
const OUTPUT: usize = 64 << 10;

/// Operation on a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    IsActive,
    Stop,
    Start,
}

/// Preparation of one run's VM, on the host where it is.
pub(super) struct Preparation<'a> {
    pub(super) run: &'a RunStarted,
    pub(super) domain: &'a Domain,
}

impl Preparation<'_> {
    /// True if there is anything to do: a service that does not run is not stopped, and not started afterwards.
    pub(super) fn is_needed(&self, action: &Action) -> Result<bool, String> {
        match &action.deed {
            ActionKind::Run { .. } => Ok(true),
            ActionKind::StopService { service, .. } => {
                match self.in_guest(&service_script(service, Verb::IsActive), action)? {
                    0 => Ok(true),
                    127 => Err(format!("the guest has no service {service}")),
                    _ => Ok(false),
                }
            }
        }
    }

    /// Executes the action.
    pub(super) fn carry_out(&self, action: &Action) -> Result<(), String> {
        match &action.deed {
            ActionKind::StopService { service, .. } => self.service(service, Verb::Stop, action),
            ActionKind::Run { on, run, .. } => self.command(*on, run, action),
        }
    }

    /// Undoes the action.
    pub(super) fn undo(&self, action: &Action) -> Result<(), String> {
        match &action.deed {
            ActionKind::StopService { service, .. } => self.service(service, Verb::Start, action),
            ActionKind::Run { undo, .. } if undo.is_empty() => Ok(()),
            ActionKind::Run { on, undo, .. } => self.command(*on, undo, action),
        }
    }

    fn service(&self, service: &str, verb: Verb, action: &Action) -> Result<(), String> {
        match self.in_guest(&service_script(service, verb), action)? {
            0 => Ok(()),
            code => {
                Err(format!("the guest's service manager ended with exit code {code} for service {service}"))
            }
        }
    }

    fn command(&self, on: RunsOn, words: &[String], action: &Action) -> Result<(), String> {
        match on {
            RunsOn::Operator => self.on_this_machine(words, action),
            RunsOn::Guest => {
                let words: Vec<String> = words.iter().map(|word| shell_word(word)).collect();
                let variables =
                    self.variables().map(|(name, value)| format!("{name}={}", shell_word(&value)));
                let script = format!("exec 2>&1; {} exec {}", variables.join(" "), words.join(" "));
                match self.in_guest(&script, action)? {
                    0 => Ok(()),
                    code => Err(format!("the command ended with exit code {code} in the guest")),
                }
            }
        }
    }

    fn on_this_machine(&self, words: &[String], action: &Action) -> Result<(), String> {
        let Some((program, arguments)) = words.split_first() else { return Ok(()) };
        let mut command = Command::new(program);
        command.args(arguments).envs(self.variables());
        // Ctrl-C is for vmgate: a command that undoes something must not die of it.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let limit = Duration::from_secs_f64(action.time_limit_seconds);
        vmgate_process::run(command, io::empty(), limit, OUTPUT)
            .map(drop)
            .map_err(|failure| format!("`{program}`: {failure}"))
    }

    fn in_guest(&self, script: &str, action: &Action) -> Result<i64, String> {
        let limit = Duration::from_secs_f64(action.time_limit_seconds);
        match run_script(self.domain.clone(), script, limit, &|| false) {
            Ok(ScriptResult::Exited { code, output }) => {
                if code != 0 && !output.is_empty() {
                    tracing::info!("the guest says: {output}");
                }
                Ok(code)
            }
            Ok(ScriptResult::StillRunning | ScriptResult::Abandoned) => {
                Err(format!("it did not end within {} s in the guest", action.time_limit_seconds))
            }
            Err(why) => Err(why.reason),
        }
    }

    fn variables(&self) -> [(&'static str, String); 5] {
        let run = self.run;
        [
            ("VMGATE_VM", run.vm.label().to_owned()),
            ("VMGATE_VM_UUID", run.vm.uuid.as_ref().map(ToString::to_string).unwrap_or_default()),
            ("VMGATE_FROM", run.from.clone()),
            ("VMGATE_TO", run.to.clone()),
            ("VMGATE_CHANGE", run.change.clone().unwrap_or_default()),
        ]
    }
}

/// Shell script for the guest's service manager: systemd, `OpenRC`, or the scripts of /etc/init.d. Exit code 127 means
/// that none of them has the service.
fn service_script(service: &str, verb: Verb) -> String {
    let (systemd, script) = match verb {
        Verb::IsActive => ("is-active --quiet", "status"),
        Verb::Stop => ("stop", "stop"),
        Verb::Start => ("start", "start"),
    };
    format!(
        "exec 2>&1; s={service}; if [ -d /run/systemd/system ]; then \
         systemctl cat \"$s\" >/dev/null 2>&1 || exit 127; systemctl {systemd} \"$s\"; \
         elif command -v rc-service >/dev/null && rc-service -e \"$s\"; then rc-service \"$s\" {script}; \
         elif [ -x \"/etc/init.d/$s\" ]; then \"/etc/init.d/$s\" {script}; else exit 127; fi",
        service = shell_word(service)
    )
}
