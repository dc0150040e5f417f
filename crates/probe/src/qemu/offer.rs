//! Offer of an installed QEMU to a VM: versions, machine types, CPU models and features, asked of a QEMU that runs no VM.
//!
//! libvirt learns them in the same way: it starts QEMU without a machine, asks its monitor, and ends it.

use std::{io::Cursor, os::unix::fs::MetadataExt as _, path::Path, process::Command, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use vmgate_facts::{Cause, Fact, MachineType, Unknown, Version, text::plain};
use vmgate_process::run;

use crate::qemu::{monitor::result_of, vm::version_in};

/// Longest run of that QEMU, and most bytes that it answers.
const LIMIT: Duration = Duration::from_secs(8);
const LONGEST_ANSWER: usize = 16 << 20;
/// Its answers, in the order in which it is asked.
const COMMANDS: [&str; 4] = ["query-version", "query-machines", "query-cpu-definitions", "query-tpm-types"];

/// QEMU that a VM needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferQuestions {
    /// Path of the program.
    pub program: String,
    /// True if the VM runs under KVM, false under QEMU's emulation.
    pub kvm: bool,
    /// Named model of the CPU; none for the host's own CPU, and for the machine's default.
    pub cpu_model: Option<String>,
    /// Features that the VM demands beside those of the model.
    pub cpu_features: Vec<String>,
}

/// Offer of a QEMU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QemuOffer {
    /// Its version.
    pub version: Fact<Version>,
    /// Its machine types.
    pub machine_types: Vec<MachineType>,
    /// Most vCPUs of each machine type, in the same order.
    pub most_vcpus: Vec<u32>,
    /// Models of CPUs that it knows.
    pub cpu_models: Vec<String>,
    /// Features of the VM's CPU that this host cannot give; unknown where its QEMU does not know the model.
    pub missing_cpu_features: Fact<Vec<String>>,
    /// Back ends of a TPM.
    pub tpm_backends: Vec<String>,
}

/// Asks the QEMU of this host.
pub(crate) fn offer(questions: &OfferQuestions) -> Result<QemuOffer, Unknown> {
    let failed = |cause, why: String| Unknown::new(cause, format!("{}: {why}", questions.program));
    if !Path::new(&questions.program).exists() {
        return Err(failed(Cause::NotSupported, "this host has no such program".to_owned()));
    }
    // The path comes from the source host, and the probe mostly runs as root.
    if !is_of_root_alone(Path::new(&questions.program)) {
        return Err(failed(
            Cause::NotSupported,
            "not run, since others than root could have written it or a folder above it".to_owned(),
        ));
    }
    let mut command = Command::new(&questions.program);
    let accelerator = if questions.kvm { "kvm" } else { "tcg" };
    command.args(["-S", "-no-user-config", "-nodefaults", "-display", "none", "-machine"]);
    command.arg(format!("none,accel={accelerator}")).args(["-qmp", "stdio"]).env_clear();
    let output = run(command, Cursor::new(script().into_bytes()), LIMIT, LONGEST_ANSWER);
    let output = output.map_err(|failure| failed(Cause::NotSupported, failure.to_string()))?;
    let lines = output.stdout.split(|&byte| byte == b'\n');
    let answers: Vec<Value> = lines
        .filter_map(|line| serde_json::from_slice(line).ok())
        .filter_map(|line| result_of(line, "QMP"))
        .map(|answer| answer.unwrap_or(Value::Null))
        .collect();
    // The first answer is that to qmp_capabilities.
    match answers.as_slice() {
        [_, version, machines, cpus, features, tpms, ..] => {
            Ok(read(questions, version, machines, cpus, features, tpms))
        }
        _ => Err(failed(Cause::Malformed, "its monitor did not answer".to_owned())),
    }
}

/// True if nobody but root can write a program, the links to it, or a folder above it.
fn is_of_root_alone(program: &Path) -> bool {
    let Ok(real) = program.canonicalize() else { return false };
    let safe = |path: &Path| {
        path.symlink_metadata().is_ok_and(|at| at.uid() == 0 && (at.is_symlink() || at.mode() & 0o022 == 0))
    };
    program.is_absolute() && program.ancestors().chain(real.ancestors()).all(safe)
}

fn script() -> String {
    let [version, machines, cpus, tpms] = COMMANDS.map(|name| json!({ "execute": name }));
    let features = json!({ "execute": "query-cpu-model-expansion", "arguments": { "type": "full", "model": { "name": "max" } } });
    let begin = json!({ "execute": "qmp_capabilities" });
    let end = json!({ "execute": "quit" });
    [begin, version, machines, cpus, features, tpms, end].map(|one| format!("{one}\n")).concat()
}

fn read(
    questions: &OfferQuestions,
    version: &Value,
    machines: &Value,
    cpus: &Value,
    features: &Value,
    tpms: &Value,
) -> QemuOffer {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(plain);
    let (mut machine_types, mut most_vcpus) = (Vec::new(), Vec::new());
    for machine in list(machines) {
        let deprecated = machine.get("deprecated").and_then(Value::as_bool) == Some(true);
        let most = machine.get("cpu-max").and_then(Value::as_u64).and_then(|most| u32::try_from(most).ok());
        if let Some(name) = text(&machine, "name") {
            machine_types.push(MachineType { name, deprecated });
            most_vcpus.push(most.unwrap_or(0));
        }
    }
    let cpus = list(cpus);
    QemuOffer {
        version: version_in(version),
        machine_types,
        most_vcpus,
        missing_cpu_features: missing(questions, &cpus, features),
        cpu_models: cpus.iter().filter_map(|cpu| text(cpu, "name")).collect(),
        tpm_backends: list(tpms).iter().filter_map(Value::as_str).map(plain).collect(),
    }
}

/// Features of the model that the accelerator cannot give here, and demanded ones that it does not have.
fn missing(questions: &OfferQuestions, cpus: &[Value], features: &Value) -> Fact<Vec<String>> {
    let Some(model) = &questions.cpu_model else { return Fact::Known(Vec::new()) };
    let named = |cpu: &&Value| cpu.get("name").and_then(Value::as_str) == Some(model);
    let Some(cpu) = cpus.iter().find(named) else {
        return Fact::unknown(
            Cause::NotSupported,
            format!("{} knows no CPU model {model}", questions.program),
        );
    };
    let Some(has) = features.pointer("/model/props").and_then(Value::as_object) else {
        return Fact::unknown(
            Cause::NotSupported,
            format!("{} does not tell this host's CPU features", questions.program),
        );
    };
    let lacks = |feature: &&String| {
        let spelled = [feature.replace('_', "-"), feature.replace('-', "_"), (*feature).clone()];
        !spelled.iter().any(|name| has.get(name).and_then(Value::as_bool) == Some(true))
    };
    let unavailable = cpu.get("unavailable-features").and_then(Value::as_array);
    let mut missing: Vec<String> =
        unavailable.into_iter().flatten().filter_map(Value::as_str).map(plain).collect();
    missing.extend(questions.cpu_features.iter().filter(lacks).cloned());
    missing.sort();
    missing.dedup();
    Fact::Known(missing)
}

#[cfg(test)]
mod tests {
    use crate::qemu::{monitor::ALLOWED, offer::*};

    #[test]
    fn a_program_that_others_could_have_written_is_not_run() {
        assert!(is_of_root_alone(Path::new("/usr/bin/env")));
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("qemu-system-x86_64");
        std::fs::write(&program, "#!/bin/sh\n").unwrap();
        assert!(!is_of_root_alone(&program), "anybody can write the folder for temporary files");
        assert!(!is_of_root_alone(Path::new("qemu-system-x86_64")));
    }

    #[test]
    fn only_questions_are_asked_before_it_is_ended() {
        let asked: Vec<Value> = script().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let names: Vec<&str> = asked.iter().map(|one| one["execute"].as_str().unwrap()).collect();
        assert_eq!((names[0], names[names.len() - 1]), ("qmp_capabilities", "quit"));
        assert!(names[1..names.len() - 1].iter().all(|name| ALLOWED.contains(name)), "{names:?}");
    }

    #[test]
    fn what_a_host_cannot_give_is_named() {
        let cpus = [
            json!({ "name": "EPYC", "unavailable-features": ["svm", "sha-ni"] }),
            json!({ "name": "kvm64" }),
        ];
        let features = json!({ "model": { "props": { "aes": true, "kvm-pv-eoi": true, "pcid": false } } });
        let ask = |model: Option<&str>, demanded: &[&str]| {
            let questions = OfferQuestions {
                program: "/usr/bin/kvm".to_owned(),
                kvm: true,
                cpu_model: model.map(str::to_owned),
                cpu_features: demanded.iter().map(|name| (*name).to_owned()).collect(),
            };
            missing(&questions, &cpus, &features)
        };
        let known = |names: &[&str]| Fact::Known(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(ask(Some("kvm64"), &["kvm_pv_eoi", "aes"]), known(&[]));
        assert_eq!(ask(Some("kvm64"), &["pcid"]), known(&["pcid"]));
        assert_eq!(ask(Some("EPYC"), &[]), known(&["sha-ni", "svm"]));
        assert!(ask(Some("Turin"), &[]).known().is_none());
        assert_eq!(ask(None, &[]), known(&[]));
    }

    #[test]
    fn a_host_without_that_program_says_so() {
        let questions = OfferQuestions {
            program: "/nonexistent/kvm".to_owned(),
            kvm: true,
            cpu_model: None,
            cpu_features: Vec::new(),
        };
        assert!(offer(&questions).unwrap_err().reason.contains("no such program"));
    }
}
