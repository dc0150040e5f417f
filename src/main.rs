//! The `vmgate` command.

fn main() -> std::process::ExitCode {
    vmgate::cli::main()
}
