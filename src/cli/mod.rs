//! The command line: one file per command, and no logic beyond parsing options and choosing an exit code.

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

use vmgate_verdict::ExitCode;

/// Go or no-go for the live migration of a KVM/QEMU virtual machine.
///
/// Facts are measured on the guest, on both hosts and on the path between them; rules in YAML decide.
/// Exit codes: 0 GO, 1 vmgate failed, 2 usage or invalid file, 3 nothing evaluated, 10 GO with warnings (--strict),
/// 20 NO-GO by violation, 21 NO-GO by missing evidence, 30 migration not done and the VM still runs on its source,
/// 31 somebody must look.
#[derive(Debug, Parser)]
#[command(name = "vmgate", version, propagate_version = true, max_term_width = 100, help_template = help_template())]
struct Cli {
    #[command(flatten)]
    shared: options::GlobalOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say GO or NO-GO for a move, with the reasons
    Check(check::Check),
    /// Write the facts of a move to a file
    #[cfg(feature = "libvirt")]
    Collect(collect::Collect),
    /// List every VM of some hosts with its possible destinations
    #[cfg(feature = "libvirt")]
    Audit(audit::AuditCommand),
    /// Plan how to empty hosts: destinations, order and duration
    Evacuate(evacuate::Evacuate),
    /// Check moves and execute them if the verdict is GO
    #[cfg(feature = "libvirt")]
    Migrate(migrate::Migrate),
    /// Execute a change, together with other runners
    #[cfg(feature = "libvirt")]
    Run(run::Run),
    /// Show the progress of a change that runners execute
    #[cfg(feature = "libvirt")]
    Status(campaign::Status),
    /// Serve a read-only page and metrics of a change that runners execute
    #[cfg(feature = "libvirt")]
    Serve(serve::Serve),
    /// Pause, resume or stop a change that runners execute
    #[cfg(feature = "libvirt")]
    Campaign(campaign::CampaignCommand),
    /// Finish the moves that a crash left behind
    #[cfg(feature = "libvirt")]
    Recover(recover::Recover),
    /// Cut a VM off the network and save evidence, or connect it again
    #[cfg(feature = "libvirt")]
    Isolate(isolate::Isolate),
    /// Measure the dirty rate of VMs over a day, at low cost
    #[cfg(feature = "libvirt")]
    Observe(observe::Observe),
    /// Write a saved verdict in other formats
    Report(report::Report),
    /// Compare two saved verdicts
    Diff(diff::Diff),
    /// Explain an outcome of a verdict: its rule, its facts, their origin
    Explain(explain::Explain),
    /// Read and verify the ledger
    Ledger(ledger::LedgerCommand),
    /// Sign, send or verify a verdict
    Verdict(verdict::VerdictCommand),
    /// List, explain and test rules
    Rules(rules::Rules),
    /// Let migrations into a host only with a signed verdict
    Hook(hook::Hook),
    /// Print the facts of this host or guest as JSON
    Probe(probe::Probe),
    /// Generate man pages, shell completions and the command reference
    #[command(hide = true)]
    Generate(generate::Generate),
}

/// Runs the command that the process's arguments name.
pub fn main() -> process::ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(problem) => {
            // A closed pipe is not an error: the reader has read enough.
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

/// Failure of a command.
#[derive(Debug)]
struct Failure {
    exit: ExitCode,
    text: String,
}

// By value, so that they fit into `map_err`.
#[expect(clippy::needless_pass_by_value)]
impl Failure {
    /// A mistake in the user's options or files.
    fn usage(text: impl ToString) -> Self {
        Self { exit: ExitCode::Invalid, text: text.to_string() }
    }

    /// A failure of vmgate, a host or the ledger.
    fn failed(text: impl ToString) -> Self {
        Self { exit: ExitCode::Internal, text: text.to_string() }
    }
}
