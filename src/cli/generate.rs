//! `vmgate generate`, hidden: man pages, shell completions, the command reference and the on-host program, from the program
//! itself so that they cannot be out of date.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use clap_complete::Shell;
use vmgate_verdict::ExitCode;

use super::{Failure, output};

#[derive(Debug, Args)]
pub(super) struct Generate {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Write a man page for each command
    Man {
        /// Folder to write them to
        folder: PathBuf,
    },
    /// Print the completions of a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the help of every command, the Markdown of docs/commands.md
    Commands,
    /// Print the static program that is sent to hosts, for a host that is to have it installed
    OnHostProgram,
}

impl Generate {
    pub(super) fn run(&self) -> Result<ExitCode, Failure> {
        match &self.action {
            Action::Man { folder } => man(folder).map_err(|error| {
                Failure::failed(format!(
                    "{}: cannot be written: {error}; choose another folder",
                    folder.display()
                ))
            })?,
            Action::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(*shell, &mut super::command(), "vmgate", &mut script);
                output::to_stdout_as_it_is(|out| out.write_all(&script))?;
            }
            Action::OnHostProgram => {
                let mut program = Vec::new();
                vmgate_reach::write_on_host_program(&mut program).map_err(Failure::failed)?;
                output::to_stdout_as_it_is(|out| out.write_all(&program))?;
            }
            Action::Commands => output::to_stdout_as_it_is(|out| out.write_all(commands().as_bytes()))?,
        }
        Ok(ExitCode::Go)
    }
}

/// Writes a man page for each command, such as vmgate-rules-test(1).
fn man(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    clap_mangen::generate_to(super::command().disable_help_subcommand(true), folder)
}

fn commands() -> String {
    let mut text = String::from("# Commands\n\nWritten by `make generate` from the program itself.\n");
    let mut root = super::command().term_width(100);
    root.build();
    help(&mut root, "vmgate", &mut text);
    text
}

fn help(command: &mut clap::Command, name: &str, text: &mut String) {
    let _ = write!(text, "\n## `{name}`\n\n```text\n{}```\n", command.render_long_help()); // into a String
    for below in
        command.get_subcommands_mut().filter(|below| !below.is_hide_set() && below.get_name() != "help")
    {
        let name = format!("{name} {}", below.get_name());
        help(below, &name, text);
    }
}
