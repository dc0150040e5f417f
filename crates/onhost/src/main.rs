//! The program that vmgate sends to hosts and guests, and installs as a destination's hook.
//!
//! Without arguments it reads one question in JSON from standard input and writes one answer ([`vmgate_probe::wire`]).
//! `hook run -- NAME OPERATION SUB-OPERATION EXTRA` is called by libvirt through vmgate's script, with the domain XML on
//! standard input; `hook host` is the same wire for questions about the hook. `network` carries out an order about a guest's
//! network for as long as standard input lasts.

#![forbid(unsafe_code)]

mod network;

use std::{env, io, process::ExitCode};

use vmgate_facts::text::{Colours, harmless};

/// Exit code of a question that cannot be read, as `vmgate` has it for invalid input.
const INVALID: u8 = 2;

fn main() -> ExitCode {
    let words: Vec<String> = env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let version = env!("CARGO_PKG_VERSION");
    let done = match words.as_slice() {
        [] => vmgate_probe::wire::serve(io::stdin(), io::stdout(), version).map_err(|why| why.to_string()),
        ["network"] => network::serve(io::stdin(), io::stdout()),
        ["hook", "host"] => vmgate_hook::serve(io::stdin(), io::stdout()),
        // A VM may be called --help: everything after `run` is libvirt's.
        ["hook", "run", "--", arguments @ ..] | ["hook", "run", arguments @ ..] => {
            let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
            return admit(&arguments);
        }
        ["--version"] => {
            println!("vmgate-probe {version}");
            Ok(())
        }
        _ => Err(format!(
            "this is vmgate-probe {version}, which takes no arguments, but one question in JSON on standard input. If vmgate \
             called it, that vmgate is older: update it, or remove VMGATE_PROBE so that it sends its own program"
        )),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("vmgate: {}", harmless(&why, Colours::Escaped));
            ExitCode::from(INVALID)
        }
    }
}

fn admit(arguments: &[String]) -> ExitCode {
    let answer = vmgate_hook::run(vmgate_hook::Layout::default(), arguments, io::stdin());
    if let Some(message) = answer.message {
        // It names the VM, and whoever began the migration reads it, perhaps in the log of a CI system.
        eprintln!("{}", harmless(&message, Colours::Escaped));
    }
    if answer.let_in { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
