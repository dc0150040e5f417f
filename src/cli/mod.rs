//! The command line: one file per command, and no logic beyond parsing options and choosing an exit code.

mod anchor;
#[cfg(feature = "libvirt")]
mod audit;
#[cfg(feature = "libvirt")]
mod campaign;
mod check;
#[cfg(feature = "libvirt")]
mod collect;
mod diff;
#[cfg(feature = "libvirt")]
mod doctor;
mod evacuate;
mod explain;
mod generate;
mod hook;
#[cfg(feature = "libvirt")]
mod init;
#[cfg(feature = "libvirt")]
mod isolate;
mod key_files;
mod ledger;
mod ledger_survey;
#[cfg(feature = "libvirt")]
mod many_moves;
#[cfg(feature = "libvirt")]
mod migrate;
#[cfg(feature = "libvirt")]
mod network;
#[cfg(feature = "libvirt")]
mod nova;
#[cfg(feature = "libvirt")]
mod observe;
mod options;
#[cfg(feature = "libvirt")]
mod orders;
mod output;
mod output_file;
mod probe;
#[cfg(feature = "libvirt")]
mod recover;
#[cfg(feature = "libvirt")]
mod rehearse;
mod report;
mod rules;
#[cfg(feature = "libvirt")]
mod run;
mod self_test;
#[cfg(feature = "libvirt")]
mod serve;
mod session;
mod site;
#[cfg(feature = "libvirt")]
mod trial;
mod verdict;

use std::process;

use clap::{CommandFactory, Parser, Subcommand};
use vmgate_facts::text::ShownCommand;
use vmgate_verdict::ExitCode;

/// Go or no-go for the live migration of a KVM/QEMU virtual machine.
///
/// Facts are measured on the guest, on both hosts and on the path between them; rules in YAML decide.
#[derive(Debug, Parser)]
#[command(name = "vmgate", version, propagate_version = true, max_term_width = 100, help_template = help_template())]
#[command(after_long_help = exit_codes())]
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
    /// Serve a read-only page and metrics of checks and of a campaign
    #[cfg(feature = "libvirt")]
    Serve(serve::Serve),
    /// Pause, resume or stop a change that runners execute
    #[cfg(feature = "libvirt")]
    Campaign(campaign::CampaignCommand),
    /// Rehearse a move with an empty copy of the VM, there and back
    #[cfg(feature = "libvirt")]
    Rehearse(rehearse::Rehearse),
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
    /// Create, read and verify the ledger
    Ledger(ledger::LedgerCommand),
    /// Sign, send, withdraw or verify a verdict
    Verdict(verdict::VerdictCommand),
    /// List, explain and test rules
    Rules(rules::Rules),
    /// Let migrations into a host only with a signed verdict
    Hook(hook::Hook),
    /// Try each access that a check needs, and say how to get it
    #[cfg(feature = "libvirt")]
    Doctor(doctor::Doctor),
    /// Write vmgate.yaml and an inventory from what the hosts tell
    #[cfg(feature = "libvirt")]
    Init(init::Init),
    /// Prove that this installation works
    SelfTest(self_test::SelfTest),
    /// Print the facts of this host or guest as JSON
    Probe(probe::Probe),
    /// Generate man pages, shell completions and the command reference
    #[command(hide = true)]
    Generate(generate::Generate),
}

/// Commands in `vmgate --help`, grouped by what people come for. Every visible command is in exactly one group.
const GROUPS: [(&str, &[&str]); 6] = [
    ("Begin", &["init", "doctor"]),
    ("Look at moves and hosts", &["check", "rehearse", "collect", "audit", "observe", "probe"]),
    ("Plan maintenance", &["evacuate"]),
    ("Move VMs", &["migrate", "run", "status", "serve", "campaign", "recover", "isolate"]),
    ("Prove decisions", &["report", "diff", "explain", "verdict", "ledger"]),
    ("Administer", &["rules", "hook", "self-test"]),
];

/// Template of `vmgate --help` with the commands in their [`GROUPS`]: clap has no headings for subcommands. A command
/// that this build lacks is left out.
fn help_template() -> String {
    let commands = Command::augment_subcommands(clap::Command::new("vmgate"));
    let (header, literal) = (commands.get_styles().get_header(), commands.get_styles().get_literal());
    let mut text = String::from("{before-help}{about-with-newline}\n{usage-heading} {usage}\n");
    for (title, names) in GROUPS {
        let rows = names.iter().filter_map(|name| {
            let about = commands.find_subcommand(name)?.get_about()?;
            Some(format!("  {literal}{name:<9}{literal:#}  {about}\n"))
        });
        let rows: String = rows.collect();
        if !rows.is_empty() {
            text.extend(["\n", &format!("{header}{title}:{header:#}\n"), &rows]);
        }
    }
    text + &format!(
        "\nRun `vmgate help COMMAND` for the options of a command.\n\n{header}Options of every command:{header:#}\n\
         {{options}}{{after-help}}"
    )
}

/// Every exit code with its meaning.
fn exit_codes() -> String {
    let header = clap::builder::Styles::styled().get_header().to_owned();
    let rows = ExitCode::ALL.map(|code| {
        let lead = format!("  {:>2}  ", code.code());
        textwrap::fill(
            code.meaning(),
            textwrap::Options::new(78).initial_indent(&lead).subsequent_indent("      "),
        )
    });
    format!("{header}Exit codes:{header:#}\n{}", rows.join("\n"))
}

/// Runs the command that the process's arguments name.
pub fn main() -> process::ExitCode {
    output::start_panics();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(problem) => {
            output::say_of_arguments(&problem);
            if let Some(way_out) = way_out(&problem) {
                output::say_failure(&Failure::usage(way_out));
            }
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
        Command::Rehearse(command) => command.run(&cli.shared),
        #[cfg(feature = "libvirt")]
        Command::Observe(command) => command.run(&cli.shared),
        Command::Report(command) => command.run(&cli.shared),
        Command::Diff(command) => command.run(&cli.shared),
        Command::Explain(command) => command.run(&cli.shared),
        Command::Ledger(command) => command.run(&cli.shared),
        Command::Verdict(command) => command.run(&cli.shared),
        Command::Rules(command) => command.run(&cli.shared),
        Command::Hook(command) => command.run(&cli.shared),
        #[cfg(feature = "libvirt")]
        Command::Doctor(command) => command.run(&cli.shared),
        #[cfg(feature = "libvirt")]
        Command::Init(command) => command.run(&cli.shared),
        Command::SelfTest(command) => command.run(&cli.shared),
        Command::Probe(command) => command.run(),
        Command::Generate(command) => command.run(),
    };
    ended(done)
}

/// Next step after a mistake in the arguments that clap cannot know.
fn way_out(problem: &clap::Error) -> Option<String> {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let given = |kind| match problem.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    let usage = problem.get(ContextKind::Usage).map(ToString::to_string).unwrap_or_default();
    let names_a_vm = || usage.contains("[VM]") || usage.contains("<VM>");
    let is_missing = |wanted: &str| match problem.get(ContextKind::InvalidArg) {
        Some(ContextValue::Strings(names)) => names.iter().any(|name| name == wanted),
        _ => false,
    };
    match problem.kind() {
        ErrorKind::UnknownArgument if given(ContextKind::InvalidArg) == "--at" => Some(
            "--at is for commands that look: check, audit, evacuate and explain. Whatever acts uses the machine's clock"
                .to_owned(),
        ),
        ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand | ErrorKind::MissingRequiredArgument
            if !cfg!(feature = "libvirt") =>
        {
            Some(
                "this build has no libvirt and judges files of facts only: for commands and options that reach hosts, \
                 install a package or build without --no-default-features"
                    .to_owned(),
            )
        }
        ErrorKind::UnknownArgument if !given(ContextKind::InvalidArg).starts_with('-') && names_a_vm() => {
            Some("hosts are named by options, as in `vmgate check web1 --to hv2`".to_owned())
        }
        ErrorKind::MissingRequiredArgument if is_missing("--to <HOST>") => Some(
            "`--to hv2` names the destination; with `vmgate check`, `--to any` ranks all hosts of the site".to_owned(),
        ),
        ErrorKind::InvalidSubcommand if problem.get(ContextKind::SuggestedSubcommand).is_none() => {
            let check = ShownCommand::new("vmgate check").value(given(ContextKind::InvalidSubcommand));
            Some(format!("to check a VM of that name: `{}`", check.words("--to HOST")))
        }
        _ => None,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_in_one_group_of_the_help_and_every_line_of_a_group_fits_80_columns() {
        let root = command();
        let grouped: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        for command in root.get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = command.get_name();
            assert_eq!(grouped.iter().filter(|grouped| **grouped == name).count(), 1, "{name}");
        }
        let help = command().term_width(80).render_help().to_string();
        for line in help.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        for (title, names) in GROUPS {
            let built: Vec<&&str> =
                names.iter().filter(|name| root.find_subcommand(name).is_some()).collect();
            let (_, group) = help.split_once(&format!("{title}:\n")).unwrap_or_default();
            for (name, row) in built.iter().zip(group.lines()) {
                assert!(row.starts_with(&format!("  {name:<9}  ")), "{row}");
            }
            assert!(built.is_empty() || !group.is_empty(), "{title}");
        }
    }

    #[test]
    #[cfg(feature = "libvirt")]
    fn every_name_in_a_group_of_the_help_is_a_command() {
        let root = command();
        for name in GROUPS.iter().flat_map(|(_, names)| names.iter()) {
            assert!(root.find_subcommand(name).is_some(), "{name}");
        }
    }
}
