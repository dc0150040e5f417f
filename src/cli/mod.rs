//! The command line: one file a command, and no logic beyond reading options and choosing an exit code.

#[cfg(feature = "libvirt")]
mod audit;
#[cfg(feature = "libvirt")]
mod campaign;
mod check;
#[cfg(feature = "libvirt")]
mod collect;
mod diff;
mod evacuate;
mod explain;
mod generate;
mod hook;
#[cfg(feature = "libvirt")]
mod isolate;
#[cfg(feature = "ledger")]
mod ledger;
#[cfg(feature = "libvirt")]
mod migrate;
#[cfg(feature = "libvirt")]
mod observe;
mod options;
mod output;
mod probe;
#[cfg(feature = "libvirt")]
mod recover;
mod report;
mod rules;
#[cfg(feature = "libvirt")]
mod run;
#[cfg(feature = "libvirt")]
mod serve;
mod session;
mod verdict;

use std::process;

use clap::{CommandFactory, Parser, Subcommand};

use crate::verdict::ExitCode;

/// Go or no-go for the live migration of a KVM/QEMU virtual machine.
///
/// Facts are measured on the guest, on both hosts and on the path between them; rules in YAML decide.
/// Exit codes: 0 GO, 1 vmgate failed, 2 usage or invalid file, 3 nothing evaluated, 10 GO with warnings (--strict),
/// 20 NO-GO by violation, 21 NO-GO by missing evidence, 30 migration not done and the VM runs where it was,
/// 31 somebody must look.
#[derive(Debug, Parser)]
#[command(name = "vmgate", version, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    shared: options::GlobalOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say GO or NO-GO for a move, and why
    Check(check::Check),
    /// Write what can be learnt of a move to a facts file
    #[cfg(feature = "libvirt")]
    Collect(collect::Collect),
    /// List every VM of some hosts with the hosts it could go to, and why not to the others
    #[cfg(feature = "libvirt")]
    Audit(audit::AuditCommand),
    /// Plan how hosts are emptied for maintenance: which VM goes where, in what order, and how long it takes
    Evacuate(evacuate::Evacuate),
    /// Check moves and carry them out if the verdict is GO
    #[cfg(feature = "libvirt")]
    Migrate(migrate::Migrate),
    /// Carry out a change, together with other runners that are started for it
    #[cfg(feature = "libvirt")]
    Run(run::Run),
    /// Show how far a change is that runners carry out
    #[cfg(feature = "libvirt")]
    Status(campaign::Status),
    /// Show that in a browser, and to Prometheus, read-only
    #[cfg(feature = "libvirt")]
    Serve(serve::Serve),
    /// Pause, resume or stop a change that runners carry out
    #[cfg(feature = "libvirt")]
    Campaign(campaign::CampaignCommand),
    /// End the moves that a crash left behind: find their VMs, and undo what was prepared
    #[cfg(feature = "libvirt")]
    Recover(recover::Recover),
    /// Cut a VM off the network at once and keep the evidence, or let it back
    #[cfg(feature = "libvirt")]
    Isolate(isolate::Isolate),
    /// Watch how VMs dirty their memory over a day, at low cost, and write it into the ledger
    #[cfg(feature = "libvirt")]
    Observe(observe::Observe),
    /// Write a saved verdict in other formats
    Report(report::Report),
    /// Tell what has become different between two saved verdicts
    Diff(diff::Diff),
    /// Walk from a verdict to one of its outcomes, its rule, the facts under it, and where each came from
    Explain(explain::Explain),
    /// Read and verify the ledger
    #[cfg(feature = "ledger")]
    Ledger(ledger::LedgerCommand),
    /// Sign a verdict, or check a signed one
    Verdict(verdict::VerdictCommand),
    /// List, show and test rules
    Rules(rules::Rules),
    /// Let migrations into a host only with a signed verdict, whatever tool starts them
    Hook(hook::Hook),
    /// Look at the host or guest this runs on, and print what was seen as JSON
    Probe(probe::Probe),
    /// Write what is made from the program itself: man pages, completions, the command reference
    #[command(hide = true)]
    Generate(generate::Generate),
}

/// What runs on other machines: the probe, and the hook of a destination.
#[derive(Debug, Parser)]
#[command(name = "vmgate-probe", version)]
struct ProbeCli {
    #[command(subcommand)]
    command: ProbeCommand,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one of it")]
enum ProbeCommand {
    /// Look at the host or guest this runs on, and print what was seen as JSON
    Probe(probe::Probe),
    /// Decide on incoming migrations of this host
    #[command(subcommand)]
    Hook(hook::OnHostCommand),
}

/// Runs the part of the static program that the process's arguments name.
pub fn probe_main() -> process::ExitCode {
    match ProbeCli::parse().command {
        ProbeCommand::Probe(command) => ended(command.run()),
        ProbeCommand::Hook(command) => ended(command.run()),
    }
}

/// Runs the command that the process's arguments name.
pub fn main() -> process::ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(problem) => {
            // A closed pipe is no reason to fail: whoever reads has read enough.
            let _ = problem.print();
            return if problem.use_stderr() { ExitCode::Invalid.into() } else { process::ExitCode::SUCCESS };
        }
    };
    output::start_log(&cli.shared);
    let done = match cli.command {
        Command::Check(command) => command.run(&cli.shared),
        #[cfg(feature = "libvirt")]
        Command::Collect(command) => command.run(&cli.shared),
        #[cfg(feature = "libvirt")]
        Command::Audit(command) => command.run(&cli.shared),
        Command::Evacuate(command) => command.run(&cli.shared),
        #[cfg(feature = "libvirt")]
        Command::Migrate(command) => command.run(&cli.shared),
        #[cfg(feature = "libvirt")]
        Command::Run(command) => command.run(&cli.shared),
        #[cfg(feature = "libvirt")]
        Command::Status(command) => command.run(&cli.shared),
        #[cfg(feature = "libvirt")]
        Command::Serve(command) => command.run(&cli.shared),
        #[cfg(feature = "libvirt")]
        Command::Campaign(command) => command.run(&cli.shared),
        #[cfg(feature = "libvirt")]
        Command::Isolate(command) => command.run(&cli.shared),
        #[cfg(feature = "libvirt")]
        Command::Recover(command) => command.run(&cli.shared),
        #[cfg(feature = "libvirt")]
        Command::Observe(command) => command.run(&cli.shared),
        Command::Report(command) => command.run(&cli.shared),
        Command::Diff(command) => command.run(&cli.shared),
        Command::Explain(command) => command.run(&cli.shared),
        #[cfg(feature = "ledger")]
        Command::Ledger(command) => command.run(&cli.shared),
        Command::Verdict(command) => command.run(&cli.shared),
        Command::Rules(command) => command.run(&cli.shared),
        Command::Hook(command) => command.run(&cli.shared),
        Command::Probe(command) => command.run(),
        Command::Generate(command) => command.run(),
    };
    ended(done)
}

fn ended(done: Result<ExitCode, Failure>) -> process::ExitCode {
    done.unwrap_or_else(|failure| {
        output::say_failure(&failure);
        failure.exit
    })
    .into()
}

/// The command tree, for generated documentation.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Why a command could not be carried out.
#[derive(Debug)]
struct Failure {
    exit: ExitCode,
    text: String,
}

// By value, so that they fit into `map_err`.
#[expect(clippy::needless_pass_by_value)]
impl Failure {
    /// A mistake in what the user gave: options or files.
    fn usage(text: impl ToString) -> Self {
        Self { exit: ExitCode::Invalid, text: text.to_string() }
    }

    /// vmgate could not do its work.
    fn failed(text: impl ToString) -> Self {
        Self { exit: ExitCode::Internal, text: text.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_whose_name_looks_like_an_option_is_asked_about_all_the_same() {
        for name in ["--help", "-h", "--version", "-V", "run"] {
            let words = ["vmgate-hook", "hook", "run", "--", name, "migrate", "begin", "-"];
            let ProbeCommand::Hook(hook::OnHostCommand::Run { arguments }) =
                ProbeCli::try_parse_from(words).unwrap().command
            else {
                panic!("{name} is something else");
            };
            assert_eq!(arguments, [name, "migrate", "begin", "-"]);
        }
    }
}
