//! Builds the on-host program into a release of vmgate, so that one file is a whole installation.
//!
//! A debug build has none inside: it takes the one beside it, which `make build` puts there.

#![allow(clippy::expect_used, reason = "a build that cannot go on ends")]

use std::{
    collections::BTreeSet,
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use flate2::{Compression, write::GzEncoder};
use sha2::{Digest as _, Sha256};

fn main() {
    println!("cargo::rustc-check-cfg=cfg(embedded)");
    println!("cargo::rerun-if-changed=build.rs");
    if env::var("PROFILE").as_deref() != Ok("release") {
        return;
    }
    let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let program = build(&folder);
    for path in sources(&program) {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    let bytes = fs::read(&program).expect("cargo wrote the on-host program");
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(&bytes).expect("memory takes what it is given");
    let packed = packed.finish().expect("memory takes what it is given");
    fs::write(folder.join("vmgate-probe.gz"), packed).expect("OUT_DIR can be written");
    let digest =
        Sha256::digest(&bytes).iter().fold(String::new(), |digest, byte| digest + &format!("{byte:02x}"));
    println!("cargo::rustc-env=VMGATE_ON_HOST_SHA256={digest}");
    println!("cargo::rustc-cfg=embedded");
}

/// Builds the on-host program with a target folder of its own: cargo holds the lock of the other. Builds with and without
/// libvirt share it (OUT_DIR is PROFILE/build/NAME/out). It is for the same machines as vmgate, and cargo hands on the flags
/// of this build (CARGO_ENCODED_RUSTFLAGS), such as mapped paths.
fn build(folder: &Path) -> PathBuf {
    let cargo = env::var_os("CARGO").expect("cargo sets CARGO");
    let machine = env::var("TARGET").expect("cargo sets TARGET");
    let target = folder.ancestors().nth(3).expect("OUT_DIR is deep").join("on-host");
    let mut command = Command::new(cargo);
    command
        .args(["rustc", "--quiet", "--locked", "-p", "vmgate-onhost", "--bin", "vmgate-probe"])
        .args(["--profile", "on-host", "--target", &machine])
        .arg("--target-dir")
        .arg(&target)
        .args(["--", "-C", "target-feature=+crt-static", "-C", "strip=symbols"])
        .current_dir(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let status = command.status().expect("cargo runs");
    assert!(status.success(), "the on-host program could not be built: {status}");
    target.join(machine).join("on-host/vmgate-probe")
}

/// The files that the program is made of: those that cargo has written down beside it, the manifests of their crates, and the
/// lock file.
fn sources(program: &Path) -> BTreeSet<PathBuf> {
    let written =
        fs::read_to_string(program.with_extension("d")).expect("cargo wrote what the program depends on");
    let (_, files) = written.trim().split_once(": ").expect("a rule of make");
    // A space in a path is written with a backslash before it.
    let files = files.replace("\\ ", "\0");
    let files: Vec<PathBuf> = files.split(' ').map(|file| PathBuf::from(file.replace('\0', " "))).collect();
    let manifest = |file: &PathBuf| {
        file.ancestors().skip(1).map(|folder| folder.join("Cargo.toml")).find(|manifest| manifest.exists())
    };
    let manifests = files.iter().filter_map(manifest).collect::<Vec<_>>();
    files
        .into_iter()
        .chain(manifests)
        .chain([PathBuf::from("Cargo.lock"), PathBuf::from("Cargo.toml")])
        .collect()
}
