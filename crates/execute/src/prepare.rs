//! Preparation of a VM: stops services and runs commands before a move, and undoes all of it afterwards.

use std::{io, process::Command, time::Duration};

use vmgate_collect::HostedVm;
use vmgate_facts::text::shell_word;
use vmgate_judge::change::{Action, ActionKind, RunsOn};
use vmgate_ledger::entry::RunStarted;

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
    pub(super) vm: &'a HostedVm,
}

impl Preparation<'_> {
    /// True if there is anything to do: a service that does not run is not stopped, and not started afterwards.
    pub(super) fn is_needed(&self, action: &Action) -> Result<bool, String> {
        match &action.deed {
            ActionKind::Run { .. } => Ok(true),
            ActionKind::StopService { service, .. } => {
                match self.in_guest(&service_script(service, Verb::IsActive), action)?.0 {
                    0 => Ok(true),
                    127 => Err(format!("the guest has no service {service}")),
                    _ => Ok(false),
                }
            }
            ActionKind::TakeOut { software, proof, processes, .. } => {
                if self.in_guest(&runs_script(processes), action)?.0 != 0 {
                    return Ok(false);
                }
                self.script(proof, action).map(|()| true).map_err(|why| {
                    format!("the others cannot do without this member of {software} now, or it cannot be proven: {why}")
                })
            }
        }
    }

    /// Executes the action.
    pub(super) fn carry_out(&self, action: &Action) -> Result<(), String> {
        match &action.deed {
            ActionKind::StopService { service, .. } => self.service(service, Verb::Stop, action),
            ActionKind::TakeOut { stop, .. } => self.script(stop, action),
            ActionKind::Run { on, run, .. } => self.command(*on, run, action),
        }
    }

    /// Undoes the action.
    pub(super) fn undo(&self, action: &Action) -> Result<(), String> {
        match &action.deed {
            ActionKind::StopService { service, .. } => self.service(service, Verb::Start, action),
            ActionKind::TakeOut { start, .. } => self.script(start, action),
            ActionKind::Run { undo, .. } if undo.is_empty() => Ok(()),
            ActionKind::Run { on, undo, .. } => self.command(*on, undo, action),
        }
    }

    fn service(&self, service: &str, verb: Verb, action: &Action) -> Result<(), String> {
        match self.in_guest(&service_script(service, verb), action)? {
            (0, _) => Ok(()),
            (code, words) => Err(format!(
                "the guest's service manager ended with exit code {code} for service {service}{}",
                after_colon(&words)
            )),
        }
    }

    /// Runs a script of the catalogue in the guest.
    fn script(&self, script: &str, action: &Action) -> Result<(), String> {
        match self.in_guest(&format!("{PREAMBLE}{script}"), action)? {
            (0, _) => Ok(()),
            (code, words) if words.is_empty() => Err(format!("the guest says exit code {code}")),
            (_, words) => Err(format!("the guest says: {words}")),
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
                    (0, _) => Ok(()),
                    (code, words) => Err(format!(
                        "the command ended with exit code {code} in the guest{}",
                        after_colon(&words)
                    )),
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

    /// Exit code and words of a script in the guest.
    fn in_guest(&self, script: &str, action: &Action) -> Result<(i64, String), String> {
        let limit = Duration::from_secs_f64(action.time_limit_seconds);
        match run_script(self.vm.clone(), script, limit, &|| false) {
            Ok(ScriptResult::Exited { code, output }) => Ok((code, output)),
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

/// Beginning of every script of the catalogue.
const PREAMBLE: &str = "\
exec 2>&1
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$PATH LC_ALL=C HOME=${HOME:-/root}
export PATH LC_ALL HOME
refuse() { echo \"$*\"; exit 1; }
runs() { grep -qx \"$1\" /proc/[0-9]*/comm 2>/dev/null; }
unit() {
  for comm in $(grep -lx \"$1\" /proc/[0-9]*/comm 2>/dev/null); do
    found=$(sed -n 's|.*/\\([^/]*\\.service\\)$|\\1|p' \"${comm%comm}cgroup\" | head -n 1)
    [ -z \"$found\" ] || { mkdir -p /run/vmgate && echo \"$found\" >\"/run/vmgate/unit.$1\"; break; }
  done
  cat \"/run/vmgate/unit.$1\" 2>/dev/null || echo \"$2\"
}
within() {
  left=$1
  shift
  until \"$@\" >/dev/null 2>&1; do
    left=$((left - 1))
    [ \"$left\" -gt 0 ] || { echo \"not within the time: $*\"; return 1; }
    sleep 1
  done
}
";

fn after_colon(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!(": {words}") }
}

/// Shell script that succeeds if one of these processes runs.
fn runs_script(processes: &[String]) -> String {
    let names = processes.iter().map(|name| {
        let (start, rest) = name.strip_suffix('*').map_or((name.as_str(), ""), |start| (start, ".*"));
        format!(" -e {}", shell_word(&format!("{}{rest}", start.replace('.', "\\."))))
    });
    format!("cat /proc/[0-9]*/comm 2>/dev/null | grep -qx{}", names.collect::<String>())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> (i32, String) {
        let output = Command::new("sh").args(["-c", script]).output().unwrap();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn in_catalogue(script: &str) -> (i32, String) {
        sh(&format!("{PREAMBLE}{script}"))
    }

    #[test]
    fn the_words_of_the_catalogue_mean_what_it_says() {
        assert_eq!(in_catalogue("refuse \"no: $((1 + 1)) of 3\"; echo more"), (1, "no: 2 of 3\n".to_owned()));
        assert_eq!(in_catalogue("within 3 true && echo there").1, "there\n");
        let (code, words) = in_catalogue("never() { return 1; }; within 2 never");
        assert_eq!((code, words.as_str()), (1, "not within the time: never\n"));
        // Words on standard error are the guest's answer too.
        assert_eq!(in_catalogue("echo bad >&2; exit 4"), (4, "bad\n".to_owned()));
        assert_eq!(
            in_catalogue("runs sh && ! runs no-such-process && unit no-such-process etcd").1,
            "etcd\n"
        );
    }

    #[test]
    fn a_process_is_found_by_its_name_or_its_beginning_and_not_by_a_part() {
        let runs = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            sh(&runs_script(&names)).0 == 0
        };
        let own = std::fs::read_to_string("/proc/self/comm").unwrap();
        let own = own.trim();
        assert!(runs(&[own]) && runs(&["no-such-process", &format!("{}*", &own[..4])]));
        assert!(!runs(&[&own[1..]]) && !runs(&["no.such*", "'; exit 0; '"]));
    }
}
