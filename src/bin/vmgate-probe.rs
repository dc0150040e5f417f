//! The probe alone: what is copied to a host or guest, run there once and removed. `vmgate probe` is the same.

fn main() -> std::process::ExitCode {
    vmgate::cli::probe_main()
}
