//! The `vmgate` command.

fn main() -> std::process::ExitCode {
    #[cfg(embedded)]
    vmgate_reach::embed(vmgate_reach::Embedded {
        packed: include_bytes!(concat!(env!("OUT_DIR"), "/vmgate-probe.gz")),
        sha256: env!("VMGATE_ON_HOST_SHA256"),
    });
    vmgate::cli::main()
}
