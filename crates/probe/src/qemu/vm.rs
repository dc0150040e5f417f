//! A VM that libvirt does not have, from its monitor, its command line and its process.
//!
//! Facts that only libvirt has (persistent, snapshots) stay unknown with the cause `no-libvirt`. A command that this QEMU does not have
//! makes its facts unknown, and no others.

use std::{fs, path::Path, time::Duration};

use procfs::process::{Process, Status};
use rustix::fs::statfs;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use vmgate_facts::{
    Accelerator, BootFile, Cause, CpuMode, Fact, OpenedFile, Placement, QemuUser, Tpm, Unknown, Version, Vm,
    VmMarks, VmState, machine_version, text::plain,
};

use crate::{
    host::{numbers_in_list, online_cpus, program_build},
    qemu::{
        devices, disks,
        monitor::{Monitor, MonitorError},
        nics,
        offer::OfferQuestions,
        process::{MONITOR, Object, Qemu},
        sockets::Sockets,
    },
};

/// `f_type` of hugetlbfs (linux/magic.h).
const HUGETLBFS: u64 = 0x9584_58f6;
/// Options that name a file which QEMU opens when it starts, with the file's purpose.
const FILES: [(&str, &str); 5] = [
    ("-kernel", "kernel"),
    ("-initrd", "initrd"),
    ("-dtb", "dtb"),
    ("-bios", "bios"),
    ("-readconfig", "configuration"),
];
/// Parts of `-cpu` that are on or off and no features of the CPU.
const NO_FEATURES: [&str; 6] =
    ["enforce", "check", "migratable", "l3-cache", "host-cache-info", "host-phys-bits"];
/// Name of the channel on which QEMU's guest agent listens.
const AGENT_CHANNEL: &str = "org.qemu.guest_agent.0";

/// A VM that was reached by its monitor, and what else a check needs of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MonitoredVm {
    /// Facts of the VM.
    pub vm: Vm,
    /// User who runs its QEMU.
    pub user: Fact<QemuUser>,
    /// QEMU that the destination must have.
    pub needs: OfferQuestions,
    /// Bandwidth limit that its QEMU has now for a migration, in bytes a second; absent where it has none.
    pub bandwidth_limit: Fact<Option<u64>>,
}

/// Looks at the VM whose monitor listens on this socket, and waits for at most `patience` until other clients have left it.
pub fn of_monitor(socket: &str, patience: Duration) -> Result<MonitoredVm, Unknown> {
    let mut monitor = Monitor::open(socket, patience)?;
    let qemu = Qemu::of(&format!("{MONITOR}{socket}")).map_err(|_| {
        Unknown::new(
            Cause::NotSupported,
            format!(
                "no QEMU process on the host names {socket} on its command line: give the path as it stands there, or name a VM of \
                 libvirt by its name"
            ),
        )
    })?;
    let status = monitor.ask("query-status")?;
    let state = vm_state(status.get("status").and_then(Value::as_str).unwrap_or_default());
    let process = Process::new(qemu.pid.cast_signed()).and_then(|process| process.status());
    let process = process.map_err(|error| {
        Unknown::new(Cause::PermissionDenied, format!("cannot read the VM's QEMU process: {error}"))
    });
    look(socket, &qemu, state, &process, &mut monitor)
}

#[expect(clippy::too_many_lines, reason = "a line for each fact")]
fn look(
    socket: &str,
    qemu: &Qemu,
    state: VmState,
    process: &Result<Status, Unknown>,
    monitor: &mut Monitor,
) -> Result<MonitoredVm, Unknown> {
    let mut ask = |command: &str| Fact::from(monitor.ask(command).map_err(Unknown::from));
    let [block, jobs, migration, kvm] =
        ["query-block", "query-block-jobs", "query-migrate", "query-kvm"].map(&mut ask);
    let [cpus, memory, version] =
        ["query-cpus-fast", "query-memory-size-summary", "query-version"].map(&mut ask);
    let (balloon, limits) = (ask("query-balloon"), ask("query-migrate-parameters"));
    let (vnc, chardevs) = (ask("query-vnc"), ask("query-chardev"));
    let machine_type = machine_type(monitor);
    let devices = devices::list(monitor)?;
    let nics = nics::of(qemu, &devices, monitor);
    let host_devices = devices::of_the_host(&devices, monitor);
    let has_agent_channel = devices
        .iter()
        .filter(|device| device.driver == "virtserialport")
        .any(|port| port.text(monitor, "name").as_deref() == Some(AGENT_CHANNEL));
    let vsock = devices.iter().find(|device| device.driver == "vhost-vsock");
    let vsock_cid = vsock.and_then(|device| device.property(monitor, "guest-cid").as_u64());
    let blocks = block
        .as_ref()
        .and_then(|block| Fact::Known(disks::of(block, jobs.known().unwrap_or(&Value::Null), qemu)));
    let disks = blocks.as_ref().map(|found| found.disks.clone());
    let empty = Value::Null;
    let sockets = Sockets::of(vnc.known().unwrap_or(&empty), chardevs.known().unwrap_or(&empty), qemu);
    let images = disks.known().into_iter().flatten().flat_map(|disk| {
        disk.format.iter().chain(&disk.backing_formats).map(|format| ("image".to_owned(), format.clone()))
    });
    let memory_max = memory.and_then(|memory| match memory.get("base-memory").and_then(Value::as_u64) {
        Some(base) => Fact::Known(base + memory.get("plugged-memory").and_then(Value::as_u64).unwrap_or(0)),
        None => Fact::unknown(Cause::Malformed, "QEMU tells no size of the VM's memory"),
    });
    let actual = balloon.known().and_then(|balloon| balloon.get("actual")?.as_u64());
    let huge_page_bytes = huge_page_bytes(qemu);
    let qemu_version = version.and_then(|version| version_in(&version));
    let (cpu_mode, cpu_model, cpu_features, tsc) = cpu(qemu);
    let accelerator = kvm.map(|kvm| match kvm.get("enabled").and_then(Value::as_bool) {
        Some(true) => Accelerator::Kvm,
        _ => Accelerator::Tcg,
    });
    let emulator = emulator(qemu);
    let vcpus = cpus.as_ref().map(|cpus| count(cpus.as_array().map_or(0, Vec::len)));
    let no_libvirt =
        |of: &str| Unknown::new(Cause::NoLibvirt, format!("libvirt does not have this VM, and so no {of}"));
    let vm = Vm {
        name: Fact::Known(plain(&qemu.name().unwrap_or_else(|| format!("{MONITOR}{socket}")))),
        uuid: Fact::from(qemu.uuid().ok_or_else(|| {
            Unknown::new(Cause::NotSupported, "the VM's QEMU was started without a UUID (-uuid)")
        })),
        marks: Fact::Known(VmMarks {
            product: product(qemu),
            monitor: Some(plain(socket)),
            ..VmMarks::default()
        }),
        state: Fact::Known(state),
        persistent: Fact::Unknown(no_libvirt("stored configuration of it")),
        snapshots: Fact::Unknown(no_libvirt("snapshots of it")),
        memory_bytes: memory_max.clone().map(|most| actual.map_or(most, |actual| actual.min(most))),
        memory_max_bytes: memory_max,
        resident_bytes: resident(qemu, &huge_page_bytes, process),
        huge_page_bytes,
        most_vcpus: vcpus.clone().map(|online| most_vcpus(qemu).unwrap_or(online).max(online)),
        threads_per_socket: cpus.map(|cpus| threads_per_socket(&cpus)),
        vcpus,
        machine_version: machine_type.as_ref().and_then(|name| machine_version(name)),
        machine_type,
        memory_hard_limit_bytes: Fact::Known(None),
        placement: placement(qemu, process),
        cpu_mode: Fact::Known(cpu_mode),
        cpu_model: Fact::Known(cpu_model.clone()),
        cpu_features: Fact::Known(cpu_features.clone()),
        tsc_frequency_hertz: Fact::Known(tsc),
        firmware: blocks.map(|found| found.firmware),
        tpm: Fact::Known(tpm(qemu, &devices)),
        launch_security: Fact::Known(launch_security(qemu)),
        boot_files: Fact::Known(boot_files(qemu, &emulator)),
        opened_files: disks.clone().map(|disks| opened_files(&disks)),
        components: Fact::Known(devices::components(&devices, images)),
        security_models: Fact::Known(Vec::new()),
        secrets: Fact::Known(Vec::new()),
        listeners: Fact::Known(sockets.listeners()),
        fixed_ports: Fact::Known(sockets.ports),
        servers: Fact::Known(sockets.servers),
        automatic_displays: Fact::Known(0),
        vsock_cid: Fact::Known(vsock_cid.and_then(|cid| cid.try_into().ok())),
        migration_blockers: blockers(&migration, &qemu_version).map(Some),
        qemu_build: program_build(Path::new(&format!("/proc/{}/exe", qemu.pid))),
        started_here: Fact::Known(!qemu.is_incoming()),
        virtio_queues: Fact::unknown(
            Cause::NotCollected,
            "vmgate asks for the queues of virtio devices through libvirt alone",
        ),
        has_agent_channel: Fact::Known(has_agent_channel),
        job: migration.map(|migration| job(&migration, qemu, jobs.known())),
        nics,
        disks,
        host_devices: Fact::Known(host_devices),
        accelerator: accelerator.clone(),
        qemu_version,
        ..Vm::default()
    };
    Ok(MonitoredVm {
        vm,
        user: process
            .as_ref()
            .map(|status| QemuUser { uid: status.euid, gid: status.egid })
            .map_err(Clone::clone)
            .into(),
        needs: OfferQuestions {
            program: emulator,
            kvm: accelerator.known() != Some(&Accelerator::Tcg),
            cpu_model,
            cpu_features,
        },
        bandwidth_limit: limits
            .map(|limits| limits.get("max-bandwidth").and_then(Value::as_u64).filter(|&limit| limit > 0)),
    })
}

/// State for QEMU's own word, in libvirt's words.
pub(super) fn vm_state(status: &str) -> VmState {
    match status {
        "running" => VmState::Running,
        "shutdown" => VmState::ShuttingDown,
        "guest-panicked" | "internal-error" => VmState::Crashed,
        "suspended" => VmState::Suspended,
        _ => VmState::Paused,
    }
}

/// Job that runs on the VM, in libvirt's words.
fn job(migration: &Value, qemu: &Qemu, jobs: Option<&Value>) -> Option<String> {
    let over = [None, Some("none"), Some("completed"), Some("failed"), Some("cancelled")];
    let status = migration.get("status").and_then(Value::as_str);
    let comes_in = qemu.is_incoming() && migration.get("ram").is_none();
    let kind = |job: &Value| job.get("type").and_then(Value::as_str) == Some("backup");
    let backup = jobs.and_then(Value::as_array).is_some_and(|jobs| jobs.iter().any(kind));
    let migrates = !over.contains(&status);
    let named = match (migrates, comes_in) {
        (true, true) => Some("migration-in"),
        (true, false) => Some("migration-out"),
        (false, _) => backup.then_some("backup"),
    };
    named.map(str::to_owned)
}

/// Reasons of QEMU itself against a migration, which it tells since 6.0.
fn blockers(migration: &Fact<Value>, version: &Fact<Version>) -> Fact<Vec<String>> {
    let told = |version: &Version| "6.0".parse().is_ok_and(|since: Version| *version >= since);
    version.as_ref().and_then(|version| {
        if !told(version) {
            let why = format!("QEMU {version} tells no reasons against a migration; 6.0 and newer do");
            return Fact::unknown(Cause::NotSupported, why);
        }
        let reasons = |migration: &Value| {
            let listed = migration.get("blocked-reasons").and_then(Value::as_array);
            listed.into_iter().flatten().filter_map(Value::as_str).map(plain).collect()
        };
        migration.as_ref().map(reasons)
    })
}

pub(super) fn version_in(version: &Value) -> Fact<Version> {
    let part = |name: &str| version.pointer(&format!("/qemu/{name}")).and_then(Value::as_u64);
    let text = || Some(format!("{}.{}.{}", part("major")?, part("minor")?, part("micro")?));
    let parsed = text().and_then(|text| text.parse().ok());
    parsed.map_or_else(|| Fact::unknown(Cause::Malformed, "QEMU tells no version"), Fact::Known)
}

/// Versioned machine type, also where the command line has an alias.
fn machine_type(monitor: &mut Monitor) -> Fact<String> {
    let told = monitor.ask_with("qom-get", &json!({ "path": "/machine", "property": "type" }));
    let name = |told: Value| told.as_str().map(|name| plain(name.strip_suffix("-machine").unwrap_or(name)));
    let missing =
        || MonitorError::Refused { command: "qom-get".to_owned(), why: "no machine type".to_owned() };
    Fact::from(told.and_then(|told| name(told).ok_or_else(missing)).map_err(Unknown::from))
}

/// Path of the program as it was called, else of the file that runs.
fn emulator(qemu: &Qemu) -> String {
    let called = Some(qemu.program()).filter(|program| program.starts_with('/')).map(plain);
    let runs = || fs::read_link(format!("/proc/{}/exe", qemu.pid)).ok();
    called.or_else(|| Some(plain(&runs()?.to_string_lossy()))).unwrap_or_default()
}

/// Mode, model, demanded features and promised frequency of the CPU.
fn cpu(qemu: &Qemu) -> (CpuMode, Option<String>, Vec<String>, Option<u64>) {
    let Some(value) = qemu.values("-cpu").last() else { return (CpuMode::Default, None, Vec::new(), None) };
    let cpu = Object::parse(value);
    let mode = match cpu.kind.as_str() {
        "host" => CpuMode::HostPassthrough,
        "max" => CpuMode::Maximum,
        _ => CpuMode::Custom,
    };
    let feature = |part: &str| {
        let on = part.strip_prefix('+').or_else(|| part.strip_suffix("=on"))?;
        (!NO_FEATURES.contains(&on)).then(|| plain(on))
    };
    let features = value.split(',').skip(1).filter_map(feature).collect();
    let frequency = cpu.get("tsc-frequency").and_then(|hertz| hertz.parse().ok());
    (mode, (mode == CpuMode::Custom).then(|| plain(&cpu.kind)), features, frequency)
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn most_vcpus(qemu: &Qemu) -> Option<u32> {
    let smp = qemu.values("-smp").last().map(Object::parse)?;
    smp.get("maxcpus").or_else(|| smp.get("cpus")).unwrap_or(&smp.kind).parse().ok()
}

/// vCPUs of the socket that has the most.
fn threads_per_socket(cpus: &Value) -> u32 {
    let of = |cpu: &Value| cpu.pointer("/props/socket-id").and_then(Value::as_u64);
    let sockets: Vec<Option<u64>> = cpus.as_array().into_iter().flatten().map(of).collect();
    let alike = |socket: &Option<u64>| sockets.iter().filter(|other| *other == socket).count();
    count(sockets.iter().map(alike).max().unwrap_or(1))
}

/// Size of the huge pages that back the memory.
fn huge_page_bytes(qemu: &Qemu) -> Fact<Option<u64>> {
    let objects = || qemu.objects("-object").filter(|object| object.kind.starts_with("memory-backend-"));
    if objects().any(|object| object.get("hugetlb").is_some_and(|value| matches!(value, "on" | "true"))) {
        let why = "the VM's memory is a memfd of huge pages, whose size QEMU's monitor does not tell";
        return Fact::unknown(Cause::NotSupported, why);
    }
    let paths = objects().filter_map(|object| object.get("mem-path").map(str::to_owned));
    let paths = paths.chain(qemu.values("-mem-path").map(str::to_owned));
    let huge = paths
        .filter_map(|path| statfs(path).ok())
        .find(|system| u64::try_from(system.f_type) == Ok(HUGETLBFS));
    Fact::Known(huge.and_then(|system| u64::try_from(system.f_bsize).ok()))
}

/// Memory that the host holds for the VM; absent where that does not tell what the guest has touched.
fn resident(qemu: &Qemu, huge: &Fact<Option<u64>>, process: &Result<Status, Unknown>) -> Fact<Option<u64>> {
    let is_on = |value: &str, key: &str| {
        [format!("{key}=on"), format!("{key}=true")].iter().any(|on| value.contains(on))
    };
    let populated = qemu.has("-mem-prealloc")
        || qemu
            .values("-object")
            .any(|value| is_on(value, "prealloc") || value.contains("\"prealloc\":true"))
        || ["-overcommit", "-realtime"]
            .iter()
            .any(|option| qemu.values(option).any(|value| is_on(value, "mem-lock") || is_on(value, "mlock")));
    if populated || *huge != Fact::Known(None) {
        return Fact::Known(None);
    }
    let status = process.as_ref().map_err(Clone::clone);
    let kib = status.and_then(|status| {
        status.vmrss.ok_or_else(|| Unknown::new(Cause::NotSupported, "the kernel tells no resident memory"))
    });
    Fact::from(kib.map(|kib| Some(kib.saturating_mul(1024))))
}

/// NUMA nodes of the memory, and CPUs on which alone the process may run.
fn placement(qemu: &Qemu, process: &Result<Status, Unknown>) -> Fact<Placement> {
    let mut placement = Placement::default();
    for memory in qemu.objects("-object").filter(|object| object.get("host-nodes").is_some()) {
        let nodes = memory.get("host-nodes").unwrap_or_default().trim_matches(['[', ']']);
        let Some(nodes) = numbers_in_list(nodes) else {
            return Fact::unknown(Cause::Malformed, format!("cannot read host-nodes={nodes}"));
        };
        placement.numa_nodes.extend(nodes);
        placement.strict |= memory.get("policy") == Some("bind");
    }
    placement.numa_nodes.sort_unstable();
    placement.numa_nodes.dedup();
    let status = match process {
        Ok(status) => status,
        Err(why) => return Fact::Unknown(why.clone()),
    };
    let allowed: Vec<u32> =
        status.cpus_allowed_list.iter().flatten().flat_map(|&(first, last)| first..=last).collect();
    match online_cpus() {
        Ok(online) if online.iter().all(|cpu| allowed.contains(cpu)) => {}
        Ok(_) => placement.pinned_cpus = allowed,
        Err(why) => return Fact::Unknown(why),
    }
    Fact::Known(placement)
}

fn product(qemu: &Qemu) -> Option<String> {
    let mut tables = qemu.objects("-smbios").filter(|table| table.get("type") == Some("1"));
    tables.find_map(|table| table.get("product").map(plain))
}

fn tpm(qemu: &Qemu, devices: &[devices::Device]) -> Option<Tpm> {
    let model = devices.iter().find(|device| device.driver.starts_with("tpm-"))?.driver.clone();
    let back_end = qemu.objects("-tpmdev").next()?;
    let backend = plain(back_end.get("type").unwrap_or(&back_end.kind));
    Some(Tpm { model, backend, state_folder: None })
}

fn launch_security(qemu: &Qemu) -> Option<String> {
    let kinds = ["sev-snp-guest", "sev-guest", "tdx-guest", "s390-pv-guest"];
    let found = qemu.objects("-object").find(|object| kinds.contains(&object.kind.as_str()))?;
    found.kind.strip_suffix("-guest").map(str::to_owned)
}

fn boot_files(qemu: &Qemu, emulator: &str) -> Vec<BootFile> {
    let named =
        FILES.iter().flat_map(|(option, purpose)| qemu.values(option).map(move |path| (*purpose, path)));
    let all = [("emulator", emulator)].into_iter().chain(named).filter(|(_, path)| path.starts_with('/'));
    all.map(|(purpose, path)| BootFile { purpose: purpose.to_owned(), path: plain(path) }).collect()
}

fn opened_files(disks: &[vmgate_facts::VmDisk]) -> Vec<OpenedFile> {
    let mut found = Vec::new();
    for disk in disks.iter().filter(|disk| matches!(disk.kind.as_str(), "file" | "block")) {
        let opened = |path: &String, writes| OpenedFile {
            purpose: disk.target.clone(),
            path: path.clone(),
            writes,
            given: false,
        };
        found.push(opened(&disk.source, !disk.read_only));
        found.extend(disk.backing_files.iter().map(|path| opened(path, false)));
    }
    found
}
