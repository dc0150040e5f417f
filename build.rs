//! Builds the on-host program into a release of vmgate, so that one file is a whole installation.
//!
//! A debug build has none inside: it takes the one beside it, which `make build` puts there.

#![allow(clippy::expect_used, reason = "a build that cannot go on ends")]

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use flate2::{Compression, write::GzEncoder};
use sha2::{Digest as _, Sha256};

fn main() {
    println!("cargo::rustc-check-cfg=cfg(embedded)");
    if env::var("PROFILE").as_deref() != Ok("release") {
        println!("cargo::rerun-if-changed=build.rs");
        return;
    }
    for path in [
        "crates/onhost",
        "crates/probe",
        "crates/hook",
        "crates/facts",
        "crates/attest",
        "crates/process",
        "Cargo.lock",
    ] {
        println!("cargo::rerun-if-changed={path}");
    }
    let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let program = build(&folder);
    let bytes = fs::read(&program).expect("cargo wrote the on-host program");
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(&bytes).expect("memory takes what it is given");
    let packed = packed.finish().expect("memory takes what it is given");
    fs::write(folder.join("vmgate-probe.gz"), packed).expect("OUT_DIR can be written");
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    println!("cargo::rustc-env=VMGATE_ON_HOST_SHA256={digest}");
    println!("cargo::rustc-cfg=embedded");
}

/// Builds the on-host program with a target folder of its own: cargo holds the lock of the other.
fn build(folder: &Path) -> PathBuf {
    let cargo = env::var_os("CARGO").expect("cargo sets CARGO");
    let target = folder.join("on-host");
    let mut command = Command::new(cargo);
    command
        .args([
            "rustc",
            "--quiet",
            "--locked",
            "-p",
            "vmgate-onhost",
            "--bin",
            "vmgate-probe",
            "--profile",
            "on-host",
        ])
        .arg("--target-dir")
        .arg(&target)
        .args(["--", "-C", "target-feature=+crt-static", "-C", "strip=symbols"])
        .current_dir(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"))
        // Flags that cargo gives to this build are not the other one's.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTFLAGS");
    let status = command.status().expect("cargo runs");
    assert!(status.success(), "the on-host program could not be built: {status}");
    target.join("on-host/vmgate-probe")
}
