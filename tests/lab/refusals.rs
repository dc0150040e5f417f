//! Predictions of vmgate, and the answers of libvirt and QEMU: one guest per case, on two real hosts. The table in
//! docs/refusals-measured.md is written by this test.

mod destination;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use serde_json::Value;

use crate::harness::{Guest, a_to_b, b_to_a, lab, setting, vmgate, words};

/// One obstacle to a move.
#[derive(Clone)]
struct Case {
    /// Description for people.
    what: &'static str,
    guest: &'static str,
    /// Host of the guest: `a` or `b`.
    on: &'static str,
    options: &'static [&'static str],
    /// Changes to the guest's XML before it is started: a text and its replacement.
    edits: &'static [(&'static str, &'static str)],
    /// Commands on hosts (or of the lab itself, or here) before the changed guest is started, after that, and in the end.
    before: &'static [(&'static str, &'static str)],
    after: &'static [(&'static str, &'static str)],
    cleanup: &'static [(&'static str, &'static str)],
    /// Additional arguments of `vmgate check`.
    arguments: &'static [&'static str],
    /// The rules that block.
    foretold: &'static [&'static str],
    /// The rules that only make a remark, where the case is about them.
    noted: &'static [&'static str],
    /// Expected answer of libvirt.
    answer: Answer,
}

/// Answer of libvirt to the move.
#[derive(Clone)]
enum Answer {
    /// libvirt refuses; its message contains this text.
    Refuses(&'static str),
    /// libvirt moves the VM: there is no obstacle, or libvirt does not check it.
    Moves,
}

const PLAIN: Case = Case {
    what: "",
    guest: "",
    on: "a",
    options: &[],
    edits: &[],
    before: &[],
    after: &[],
    cleanup: &[],
    arguments: &[],
    foretold: &[],
    noted: &[],
    answer: Answer::Moves,
};

const DISK: &str = "<disk type='file' device='disk'><driver name='qemu' type='raw' cache='writethrough'/>\
    <source file='/lab/guests/@NAME@/disk.img'/><target dev='vda' bus='virtio'/>@MORE@</disk></devices>";

/// QEMU's own user writes to it, and to what libvirt puts beside it.
const MAKE_DISK: (&str, &str) = (
    "a",
    "cd /lab/guests/@NAME@ && truncate -s 64M disk.img copy.img && chmod 666 disk.img copy.img && chmod 777 .",
);

/// A storage pool in the guest's folder, which both hosts see.
const POOL: &str =
    "virsh -q pool-define-as local dir --target /lab/guests/@NAME@ && virsh -q pool-start local";

/// libvirt looks for mounted huge pages when it starts; `lab up` starts it again.
const STOP_LIBVIRTD: &str = "p=$(cat /run/libvirtd.pid); kill $p; while [ -e /proc/$p ]; do sleep 0.1; done";

#[expect(clippy::too_many_lines, reason = "it is a table")]
fn cases() -> Vec<Case> {
    vec![
        Case { what: "nothing", guest: "free", ..PLAIN },
        Case {
            what: "bridge missing at the destination",
            guest: "no-bridge",
            before: &[("a", "ip link add br7 type bridge && ip link set br7 up")],
            cleanup: &[("a", "ip link del br7")],
            edits: &[("bridge='br0'", "bridge='br7'")],
            foretold: &["destination-networks-exist"],
            answer: Answer::Refuses("br7"),
            ..PLAIN
        },
        Case {
            what: "huge pages that the destination does not have free",
            guest: "huge",
            before: &[
                ("a", "mkdir -p /dev/hugepages && mount -t hugetlbfs hugetlbfs /dev/hugepages"),
                ("b", "mkdir -p /dev/hugepages && mount -t hugetlbfs hugetlbfs /dev/hugepages"),
                ("a", "echo 68 >/proc/sys/vm/nr_hugepages"),
                ("a", STOP_LIBVIRTD),
                ("b", STOP_LIBVIRTD),
            ],
            cleanup: &[("a", "echo 0 >/proc/sys/vm/nr_hugepages")],
            edits: &[("</memory>", "</memory><memoryBacking><hugepages/></memoryBacking>")],
            foretold: &["destination-huge-pages-fit"],
            answer: Answer::Refuses("unable to map backing store"),
            ..PLAIN
        },
        Case {
            what: "shared memory with another process (shmem)",
            guest: "shmem",
            edits: &[(
                "</devices>",
                "<shmem name='vmgate'><model type='ivshmem-plain'/><size unit='M'>1</size></shmem></devices>",
            )],
            foretold: &["devices-migratable"],
            answer: Answer::Refuses("ivshmem"),
            ..PLAIN
        },
        Case {
            what: "a folder shared by 9p, which this guest has not mounted (QEMU refuses once it has; unknown until QEMU is asked)",
            guest: "plan9",
            edits: &[(
                "</devices>",
                "<filesystem type='mount' accessmode='mapped'><source dir='/srv'/><target dir='x'/></filesystem></devices>",
            )],
            ..PLAIN
        },
        Case {
            what: "the same folder, with --allow-monitor",
            guest: "plan9-asked",
            edits: &[(
                "</devices>",
                "<filesystem type='mount' accessmode='mapped'><source dir='/srv'/><target dir='x'/></filesystem></devices>",
            )],
            arguments: &["--allow-monitor"],
            ..PLAIN
        },
        Case {
            what: "shared memory whose master this VM is",
            guest: "shmem-master",
            edits: &[(
                "</devices>",
                "<shmem name='vmgate-m' role='master'><model type='ivshmem-plain'/><size unit='M'>1</size></shmem></devices>",
            )],
            ..PLAIN
        },
        Case {
            what: "a SPICE agent of QEMU's own (qemu-vdagent), with --allow-monitor",
            guest: "vdagent",
            edits: &[(
                "</devices>",
                "<channel type='qemu-vdagent'><target type='virtio' name='com.redhat.spice.0'/></channel></devices>",
            )],
            arguments: &["--allow-monitor"],
            foretold: &["devices-migratable", "no-migration-blocker"],
            answer: Answer::Refuses("vdagent"),
            ..PLAIN
        },
        Case {
            what: "a snapshot",
            guest: "snapped",
            after: &[(
                "a",
                "printf '<domainsnapshot><name>s1</name><creationTime>1</creationTime><state>running</state>\
                 %s</domainsnapshot>' \"$(virsh dumpxml @NAME@)\" >/tmp/s.xml && virsh -q snapshot-create @NAME@ \
                 /tmp/s.xml --redefine",
            )],
            foretold: &["vm-has-no-snapshots"],
            answer: Answer::Refuses("snapshot"),
            ..PLAIN
        },
        Case {
            what: "a transient disk",
            guest: "transient",
            before: &[MAKE_DISK],
            edits: &[
                ("</devices>", DISK),
                ("@MORE@", "<transient/>"),
                // libvirt makes the overlay as root.
                (
                    "</domain>",
                    "<seclabel type='static' model='dac' relabel='no'><label>+0:+0</label></seclabel></domain>",
                ),
            ],
            foretold: &["disk-filesystem-shared", "disks-not-transient"],
            answer: Answer::Refuses("transient"),
            ..PLAIN
        },
        Case {
            what: "a block job on a disk",
            guest: "copying",
            before: &[MAKE_DISK],
            edits: &[("</devices>", DISK), ("@MORE@", "")],
            after: &[(
                "a",
                "virsh -q blockcopy @NAME@ vda --dest /lab/guests/@NAME@/copy.img --format raw --transient-job --bytes \
                 --bandwidth 65536 --reuse-external",
            )],
            foretold: &["disk-filesystem-shared", "no-block-job-on-disks"],
            answer: Answer::Refuses("block job"),
            ..PLAIN
        },
        Case {
            what: "a disk that both hosts see and write, on no file system that libvirt knows as shared",
            guest: "bind-mount",
            before: &[MAKE_DISK],
            edits: &[("</devices>", DISK), ("@MORE@", "")],
            foretold: &["disk-filesystem-shared"],
            answer: Answer::Refuses("without shared storage"),
            ..PLAIN
        },
        Case {
            what: "a disk that both hosts see, and the guest only reads",
            guest: "only-read",
            before: &[MAKE_DISK],
            edits: &[("</devices>", DISK), ("@MORE@", "<readonly/>")],
            ..PLAIN
        },
        Case {
            what: "an ISO that only the source has",
            guest: "iso",
            before: &[("a", "truncate -s 1M /srv/only-a.iso")],
            edits: &[(
                "</devices>",
                "<disk type='file' device='cdrom'><source file='/srv/only-a.iso'/><target dev='sda' bus='sata'/>\
                 <readonly/></disk></devices>",
            )],
            foretold: &["destination-storage-reachable"],
            answer: Answer::Refuses("/srv/only-a.iso"),
            ..PLAIN
        },
        Case {
            what: "a kernel for direct boot that only the source has",
            guest: "kernel",
            before: &[("a", "for k in /lab/cache/guest-*/vmlinuz; do cp $k /srv/only-a-vmlinuz; done")],
            edits: &[("<kernel>*</kernel>", "<kernel>/srv/only-a-vmlinuz</kernel>")],
            foretold: &["destination-has-boot-files"],
            answer: Answer::Refuses("only-a-vmlinuz"),
            ..PLAIN
        },
        Case {
            what: "a display that listens at an address of the source",
            guest: "listens",
            edits: &[("</devices>", "<graphics type='vnc' autoport='yes' listen='10.77.2.1'/></devices>")],
            foretold: &["destination-has-listen-addresses"],
            answer: Answer::Refuses("Cannot assign requested address"),
            ..PLAIN
        },
        Case {
            what: "a serial port that writes to a folder of the source",
            guest: "logs",
            before: &[("a", "mkdir -p /var/log/only-at-a && chmod 777 /var/log/only-at-a")],
            cleanup: &[("a", "rm -r /var/log/only-at-a")],
            edits: &[(
                "</devices>",
                "<serial type='file'><source path='/var/log/only-at-a/c.log'/><target port='1'/></serial></devices>",
            )],
            foretold: &["destination-has-boot-files"],
            answer: Answer::Refuses("only-at-a"),
            ..PLAIN
        },
        Case {
            what: "an encrypted disk whose secret only the source has",
            guest: "luks",
            before: &[
                (
                    "here",
                    "chmod 777 . && qemu-img create -q --object secret,id=s,data=vmgate -f luks -o \
                     key-secret=s,iter-time=10 disk.img 16M && chmod 666 disk.img",
                ),
                (
                    "a",
                    "echo \"<secret ephemeral='no' private='no'><uuid>6a1f3d0e-1111-4222-8333-000000000009</uuid></secret>\" \
                     >/tmp/s.xml && virsh -q secret-define /tmp/s.xml && virsh -q secret-set-value \
                     6a1f3d0e-1111-4222-8333-000000000009 $(printf vmgate | base64)",
                ),
            ],
            cleanup: &[("a", "virsh -q secret-undefine 6a1f3d0e-1111-4222-8333-000000000009")],
            edits: &[(
                "</devices>",
                "<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/>\
                 <source file='/lab/guests/@NAME@/disk.img'><encryption format='luks'><secret type='passphrase' \
                 uuid='6a1f3d0e-1111-4222-8333-000000000009'/></encryption></source><target dev='vda' bus='virtio'/>\
                 <readonly/></disk></devices>",
            )],
            foretold: &["destination-has-secrets"],
            answer: Answer::Refuses("secret"),
            ..PLAIN
        },
        Case {
            what: "a disk in a format that blocks migration (vdi)",
            guest: "vdi",
            before: &[(
                "here",
                "chmod 777 . && qemu-img create -q -f vdi disk.img 16M && chmod 666 disk.img",
            )],
            edits: &[(
                "</devices>",
                "<disk type='file' device='disk'><driver name='qemu' type='vdi' cache='none'/>\
                 <source file='/lab/guests/@NAME@/disk.img'/><target dev='vda' bus='virtio'/><readonly/></disk></devices>",
            )],
            foretold: &["components-migratable"],
            answer: Answer::Refuses("does not support live migration"),
            ..PLAIN
        },
        Case {
            what: "a disk below whose image lies one of such a format (vmdk)",
            guest: "vmdk-below",
            before: &[(
                "here",
                "chmod 777 . && qemu-img create -q -f vmdk base.img 16M && \
                 qemu-img create -q -f qcow2 -b base.img -F vmdk disk.img && chmod 666 base.img disk.img",
            )],
            edits: &[(
                "</devices>",
                "<disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none'/>\
                 <source file='/lab/guests/@NAME@/disk.img'/><target dev='vda' bus='virtio'/><readonly/></disk></devices>",
            )],
            foretold: &["components-migratable"],
            answer: Answer::Refuses("does not support live migration"),
            ..PLAIN
        },
        Case {
            what: "a virtio crypto device",
            guest: "crypto",
            on: "b",
            edits: &[(
                "</devices>",
                "<crypto model='virtio' type='qemu'><backend model='builtin' queues='1'/></crypto></devices>",
            )],
            foretold: &["components-migratable"],
            answer: Answer::Refuses("non-migratable"),
            ..PLAIN
        },
        Case {
            what: "a USB sound card and a USB serial port",
            guest: "usb-sound",
            edits: &[
                ("<controller type='usb' model='none'/>", "<controller type='usb' model='qemu-xhci'/>"),
                (
                    "</devices>",
                    "<sound model='usb'/><serial type='pty'><target type='usb-serial' port='1'/></serial></devices>",
                ),
            ],
            foretold: &["components-migratable"],
            answer: Answer::Refuses("non-migratable"),
            ..PLAIN
        },
        Case {
            what: "a watchdog that the machine type does not take, which the older libvirt does not check",
            guest: "watchdog",
            edits: &[("</devices>", "<watchdog model='ib700' action='none'/></devices>")],
            foretold: &["destination-accepts-configuration"],
            answer: Answer::Refuses("ib700 model of watchdog"),
            ..PLAIN
        },
        Case {
            what: "two cores a socket, which give the CPU a flag more from QEMU 10 on",
            guest: "threads",
            options: &["--vcpus", "2"],
            edits: &[(
                "<cpu *</cpu>",
                "<cpu mode='custom' match='exact' check='none'><model fallback='forbid'>Nehalem</model>\
                 <topology sockets='1' dies='1' cores='2' threads='1'/></cpu>",
            )],
            foretold: &["cpu-topology-flag-agrees"],
            answer: Answer::Refuses("ht"),
            ..PLAIN
        },
        Case {
            what: "a QXL video card, which the destination's QEMU lacks",
            guest: "qxl",
            edits: &[("</devices>", "<video><model type='qxl'/></video></devices>")],
            foretold: &["destination-has-device-models"],
            answer: Answer::Refuses("qxl"),
            ..PLAIN
        },
        Case {
            what: "a volume of a storage pool in a local folder",
            guest: "volume",
            before: &[MAKE_DISK, ("a", POOL)],
            cleanup: &[("a", "virsh -q pool-destroy local; virsh -q pool-undefine local")],
            edits: &[(
                "</devices>",
                "<disk type='volume' device='disk'><driver name='qemu' type='raw' cache='none'/>\
                 <source pool='local' volume='disk.img'/><target dev='vda' bus='virtio'/></disk></devices>",
            )],
            foretold: &["destination-has-storage-pools", "disk-filesystem-shared"],
            answer: Answer::Refuses("without shared storage"),
            ..PLAIN
        },
        Case {
            what: "address space for memory that may be plugged in later, more than the destination has memory",
            guest: "max-memory",
            edits: &[
                ("<memory", "<maxMemory slots='16' unit='GiB'>64</maxMemory><memory"),
                ("<cpu *</cpu>", "<cpu><numa><cell id='0' cpus='0' memory='128' unit='MiB'/></numa></cpu>"),
            ],
            ..PLAIN
        },
        Case {
            what: "a firewall before the migration ports, with --probe-path",
            guest: "walled",
            before: &[("lab", "firewall b reject")],
            cleanup: &[("lab", "firewall b off")],
            arguments: &["--probe-path"],
            foretold: &["migration-ports-reachable"],
            answer: Answer::Refuses("unable to connect to server at 'lab-b:49152'"),
            ..PLAIN
        },
        Case {
            what: "another VM of the same name at the destination",
            guest: "namesake",
            after: &[(
                "b",
                "sed 's|<uuid>.*</uuid>|<uuid>5e7c9b3e-0000-4000-8000-000000000001</uuid>|' /lab/guests/@NAME@/domain.xml >/tmp/d.xml && virsh -q define /tmp/d.xml",
            )],
            cleanup: &[("b", "virsh -q undefine @NAME@")],
            foretold: &["vm-name-free-at-destination"],
            answer: Answer::Refuses("already exists with uuid"),
            ..PLAIN
        },
        Case {
            what: "another VM of the same UUID at the destination",
            guest: "twin",
            after: &[(
                "b",
                "sed 's/<name>twin</<name>other</' /lab/guests/@NAME@/domain.xml >/tmp/d.xml && virsh -q define /tmp/d.xml",
            )],
            cleanup: &[("b", "virsh -q undefine other")],
            foretold: &["vm-name-free-at-destination"],
            answer: Answer::Refuses("already defined with uuid"),
            ..PLAIN
        },
        Case {
            what: "the VM running at the destination already",
            guest: "running-twice",
            after: &[("b", "virsh -q create /lab/guests/@NAME@/domain.xml --paused")],
            cleanup: &[("b", "virsh -q destroy @NAME@")],
            foretold: &["vm-runs-once"],
            answer: Answer::Refuses("already active"),
            ..PLAIN
        },
        Case {
            what: "a machine type that the destination does not have",
            guest: "machine",
            on: "b",
            options: &["--machine", "pc-q35-10.0"],
            foretold: &["machine-type-supported"],
            answer: Answer::Refuses("machine type"),
            ..PLAIN
        },
        Case {
            what: "a CPU feature that the destination does not have",
            guest: "cpu",
            on: "b",
            edits: &[(
                "<cpu *</cpu>",
                "<cpu mode='custom' match='exact' check='partial'><model fallback='forbid'>Nehalem</model>\
                 <feature policy='require' name='sha-ni'/></cpu>",
            )],
            foretold: &["destination-cpu-offers-guest-features"],
            answer: Answer::Refuses("sha-ni"),
            ..PLAIN
        },
        Case {
            what: "a destination in maintenance",
            guest: "maintained",
            before: &[("b", "mkdir -p /etc/vmgate && echo 'kernel update' >/etc/vmgate/maintenance")],
            cleanup: &[("b", "rm /etc/vmgate/maintenance")],
            foretold: &["destination-accepts-moves"],
            ..PLAIN
        },
    ]
}

#[test]
#[ignore = "needs the lab: make lab-test"]
fn libvirt_refuses_what_vmgate_foretells_and_for_that_reason() {
    // One case alone, by the name of its guest; its row takes the place of the old one.
    let only = std::env::var("VMGATE_REFUSAL").ok();
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/refusals-measured.md");
    let cases = [cases(), destination::cases()].concat();
    let mut wrong = Vec::new();
    for case in cases.iter().filter(|case| only.as_deref().is_none_or(|guest| guest == case.guest)) {
        let begin = Instant::now();
        let result = run(case);
        let short = result.as_ref().map_or_else(String::as_str, |_| "ok");
        println!("{:5.1} s  {}: {short}", begin.elapsed().as_secs_f64(), case.what);
        match result {
            Ok(row) => write_row(&file, &cases, &row),
            Err(why) => wrong.push(format!("{}: {why}", case.what)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A line of the table.
struct Row {
    what: &'static str,
    direction: &'static str,
    foretold: String,
    answered: String,
}

fn run(case: &Case) -> Result<Row, String> {
    let _undo = Undo(case);
    let guest = start(case)?;
    for command in case.after {
        on_host(command, case.guest)?;
    }
    let (there, direction, uri) = match case.on {
        "a" => (a_to_b(), "a → b", "qemu+tcp://lab-b/system"),
        _ => (b_to_a(), "b → a", "qemu+tcp://lab-a/system"),
    };
    let first =
        [&["check", guest.name, "--guest", "none", "--output", "json", "--timeout", "60"], case.arguments]
            .concat();
    let verdict = vmgate(&words(&first, &there)).json();
    let foretold = failed(&verdict, "block");
    let noted = failed(&verdict, "note");
    if let Some(missing) = case.noted.iter().find(|rule| !noted.iter().any(|(noted, _)| noted == *rule)) {
        return Err(format!("vmgate did not remark on {missing}, but on {noted:?}"));
    }
    if foretold.iter().map(|(rule, _)| rule.as_str()).collect::<Vec<_>>() != case.foretold {
        return Err(format!("vmgate foretold {foretold:?}, not {:?}", case.foretold));
    }
    let said = lab(&["host", case.on, "virsh", "migrate", "--live", guest.name, uri]);
    let text = said.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    let answered = match (&case.answer, said.code) {
        (Answer::Moves, 0) => "moves the VM".to_owned(),
        (Answer::Refuses(reason), code) if code != 0 && text.contains(reason) => refusal(&text),
        _ => return Err(format!("libvirt answered with {}: {text}", said.code)),
    };
    let shown = |(rule, message): &(String, String)| format!("`{rule}`: {message}");
    let remarks = noted.iter().filter(|(rule, _)| case.noted.contains(&rule.as_str()));
    let remarks = remarks.map(|remark| format!("only a remark: {}", shown(remark)));
    let foretold = foretold.iter().map(shown).chain(remarks).collect::<Vec<_>>().join("<br>");
    Ok(Row {
        what: case.what,
        direction,
        foretold: if foretold.is_empty() { "nothing against it".to_owned() } else { foretold },
        answered,
    })
}

/// Starts the guest as the lab makes them, prepares the hosts, and starts it again with its XML changed. It is not waited
/// for: a migration needs no guest that has booted.
fn start(case: &Case) -> Result<Guest, String> {
    let options = ["--on", case.on, "--agent", "none", "--memory", "128", "--wait", "0"];
    let guest = Guest::start(case.guest, &[&options, case.options].concat());
    for command in case.before {
        on_host(command, case.guest)?;
    }
    if case.before.iter().any(|(_, command)| command.contains("libvirtd.pid")) {
        lab(&["up"]).exits(0);
    }
    if !case.edits.is_empty() {
        let folder = PathBuf::from(setting("VMGATE_LAB_STATE")).join("guests").join(case.guest);
        let file = folder.join("domain.xml");
        let mut xml = fs::read_to_string(&file).map_err(|error| error.to_string())?;
        for (old, new) in case.edits {
            xml = edited(&xml, old, &named(new, case.guest))?;
        }
        fs::write(&file, xml).map_err(|error| error.to_string())?;
        let again = "virsh -q destroy @NAME@ && virsh -q define /lab/guests/@NAME@/domain.xml && virsh -q start @NAME@";
        on_host(&(case.on, again), case.guest)?;
    }
    Ok(guest)
}

/// Replaces a text; a `*` in it matches anything.
fn edited(xml: &str, old: &str, new: &str) -> Result<String, String> {
    let (begin, end) = old.split_once('*').unwrap_or((old, ""));
    let missing = || format!("`{old}` is not in the guest's XML");
    let from = xml.find(begin).ok_or_else(missing)?;
    let to = from + begin.len() + xml[from + begin.len()..].find(end).ok_or_else(missing)? + end.len();
    Ok(format!("{}{new}{}", &xml[..from], &xml[to..]))
}

fn named(text: &str, guest: &str) -> String {
    text.replace("@NAME@", guest)
}

fn on_host((host, command): &(&str, &str), guest: &str) -> Result<(), String> {
    let said = match *host {
        "lab" => lab(&command.split(' ').collect::<Vec<_>>()),
        // On this machine, in the folder of the guest that the hosts have as /lab/guests/NAME.
        "here" => {
            let folder = PathBuf::from(setting("VMGATE_LAB_STATE")).join("guests").join(guest);
            Command::new("sh").args(["-c", command]).current_dir(folder).output().unwrap().into()
        }
        host => lab(&["host", host, "sh", "-c", &named(command, guest)]),
    };
    if said.code == 0 { Ok(()) } else { Err(format!("on {host}: {command}: {}", said.stderr)) }
}

/// Undoes the changes of a case on the hosts, also after a failure.
struct Undo<'a>(&'a Case);

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        for command in self.0.cleanup {
            let _ = on_host(command, self.0.guest);
        }
    }
}

/// Violated rules with that effect, each once, with their messages.
fn failed(verdict: &Value, effect: &str) -> Vec<(String, String)> {
    let outcomes = verdict["outcomes"].as_array().expect("a verdict has outcomes");
    let mut found: Vec<(String, String)> = outcomes
        .iter()
        .filter(|outcome| outcome["status"] == "fail" && outcome["effect_now"] == effect)
        .map(|outcome| {
            (outcome["rule"].as_str().unwrap().to_owned(), outcome["message"].as_str().unwrap().to_owned())
        })
        .collect();
    found.sort();
    found.dedup_by(|a, b| a.0 == b.0);
    found
}

/// libvirt's last error, without the parts that differ from run to run.
fn refusal(text: &str) -> String {
    let error = text.rsplit_once("error: ").map_or(text, |(_, error)| error);
    let error = error.split("qemu-system-x86_64: ").last().unwrap_or(error);
    format!("refuses: {}", error.chars().take(200).collect::<String>())
}

const HEAD: &str = "# What vmgate foretells, and what libvirt answers

Written by the lab's test `libvirt_refuses_what_vmgate_foretells_and_for_that_reason`, which makes each obstacle on two real
hosts (a: QEMU 7.2, libvirt 9.0; b: QEMU 10.0, libvirt 11.3), asks `vmgate check`, and then has libvirt try. Where libvirt moves a
VM that vmgate stops, libvirt does not look at that at all.

| in the way | move | vmgate foretold | libvirt answered |
|---|---|---|---|
";

/// Puts the row of a case with the predicted result into the table; the other rows stay. The order is that of the cases.
fn write_row(file: &Path, cases: &[Case], row: &Row) {
    let cell = |text: &str| text.replace('|', "\\|");
    let Row { what, direction, foretold, answered } = row;
    let line = format!("| {what} | {direction} | {} | {} |", cell(foretold), cell(answered));
    let old = fs::read_to_string(file).unwrap_or_default();
    let mut page = String::from(HEAD);
    for case in cases {
        let begins = format!("| {} |", case.what);
        let kept = || old.lines().find(|line| line.starts_with(&begins)).map(str::to_owned);
        if let Some(line) = if case.what == *what { Some(line.clone()) } else { kept() } {
            let _ = writeln!(page, "{line}");
        }
    }
    fs::write(file, page).unwrap();
}
