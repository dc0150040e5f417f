//! Obstacles that lie in the destination's own setup: users and permissions, ports, devices, qemu.conf, hooks.

use super::{Answer, Case, MAKE_DISK, PLAIN, STOP_LIBVIRTD};

/// A disk that the guest only reads: libvirt asks for no shared file system then.
const READ_DISK: (&str, &str) = (
    "</devices>",
    "<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/>\
     <source file='/lab/guests/@NAME@/disk.img'/><target dev='vda' bus='virtio'/><readonly/></disk></devices>",
);

/// The source's QEMU has the disk open already; the destination's opens it anew.
const TO_ANOTHER_USER: (&str, &str) =
    ("a", "cd /lab/guests/@NAME@ && chown 999:999 disk.img && chmod 600 disk.img");

const GIVES_FILES: (&str, &str) =
    ("b", "sed -i 's/^dynamic_ownership = 0/dynamic_ownership = 1/' /etc/libvirt/qemu.conf");
const GIVES_NO_FILES: (&str, &str) =
    ("b", "sed -i 's/^dynamic_ownership = 1/dynamic_ownership = 0/' /etc/libvirt/qemu.conf");

pub(super) fn cases() -> Vec<Case> {
    [opened(), declared(), bound(), demanded()].concat()
}

/// What QEMU's user may open.
fn opened() -> Vec<Case> {
    vec![
        Case {
            what: "a disk that QEMU's user at the destination may not read",
            guest: "foreign-owner",
            before: &[MAKE_DISK],
            edits: &[READ_DISK],
            after: &[TO_ANOTHER_USER],
            foretold: &["destination-qemu-opens-files"],
            answer: Answer::Refuses("Permission denied"),
            ..PLAIN
        },
        Case {
            what: "the same disk, where libvirt at the destination makes QEMU's user its owner (dynamic_ownership)",
            guest: "given-owner",
            before: &[MAKE_DISK, GIVES_FILES, ("b", STOP_LIBVIRTD)],
            edits: &[READ_DISK],
            after: &[TO_ANOTHER_USER],
            cleanup: &[GIVES_NO_FILES, ("b", STOP_LIBVIRTD), ("lab", "up")],
            ..PLAIN
        },
        Case {
            what: "the same, of a VM whose own label forbids that (relabel='no')",
            guest: "kept-owner",
            before: &[MAKE_DISK, GIVES_FILES, ("b", STOP_LIBVIRTD)],
            edits: &[
                READ_DISK,
                (
                    "</domain>",
                    "<seclabel type='static' model='dac' relabel='no'><label>+64055:+64055</label></seclabel></domain>",
                ),
            ],
            after: &[TO_ANOTHER_USER],
            cleanup: &[GIVES_NO_FILES, ("b", STOP_LIBVIRTD), ("lab", "up")],
            foretold: &["destination-qemu-opens-files"],
            answer: Answer::Refuses("Permission denied"),
            ..PLAIN
        },
        Case {
            what: "a disk in a folder that QEMU's user may not pass, where libvirt makes it the owner of files",
            guest: "closed-folder",
            before: &[MAKE_DISK, GIVES_FILES, ("b", STOP_LIBVIRTD)],
            edits: &[READ_DISK],
            after: &[("a", "chown 999:999 /lab/guests/@NAME@ && chmod 700 /lab/guests/@NAME@")],
            cleanup: &[GIVES_NO_FILES, ("b", STOP_LIBVIRTD), ("lab", "up")],
            foretold: &["destination-qemu-opens-files"],
            answer: Answer::Refuses("Permission denied"),
            ..PLAIN
        },
        Case {
            what: "a disk of root that everybody may read",
            guest: "everybody-reads",
            before: &[MAKE_DISK],
            edits: &[READ_DISK],
            after: &[("a", "cd /lab/guests/@NAME@ && chown 0:0 disk.img && chmod 644 disk.img")],
            ..PLAIN
        },
        Case {
            what: "a disk of another user that a further group of QEMU's user may read",
            guest: "group-reads",
            before: &[MAKE_DISK],
            edits: &[READ_DISK],
            after: &[("b", "cd /lab/guests/@NAME@ && chown 999:kvm disk.img && chmod 640 disk.img")],
            ..PLAIN
        },
        Case {
            what: "a source of random numbers that only root may read at the destination, which libvirt never gives away",
            guest: "root-random",
            before: &[
                ("a", "mknod -m 666 /dev/lab-random c 1 9"),
                ("b", "mknod -m 600 /dev/lab-random c 1 9"),
                GIVES_FILES,
                ("b", STOP_LIBVIRTD),
            ],
            edits: &[(
                "</devices>",
                "<rng model='virtio'><backend model='random'>/dev/lab-random</backend></rng></devices>",
            )],
            cleanup: &[
                ("a", "rm /dev/lab-random"),
                ("b", "rm /dev/lab-random"),
                GIVES_NO_FILES,
                ("b", STOP_LIBVIRTD),
                ("lab", "up"),
            ],
            foretold: &["destination-qemu-opens-files"],
            answer: Answer::Refuses("Permission denied"),
            ..PLAIN
        },
    ]
}

/// A disk that the guest writes, as the lab's other cases have it.
const WRITTEN_DISK: (&str, &str) = (
    "</devices>",
    "<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/>\
     <source file='/lab/guests/@NAME@/disk.img'/><target dev='vda' bus='virtio'/></disk></devices>",
);

const DECLARES: (&str, &str) =
    ("b", "echo 'shared_filesystems = [ \"/lab/guests\" ]' >>/etc/libvirt/qemu.conf");
const DECLARES_NOTHING: (&str, &str) = ("b", "sed -i '/^shared_filesystems/d' /etc/libvirt/qemu.conf");

/// Folders that qemu.conf declares as shared.
fn declared() -> Vec<Case> {
    let declared = Case {
        on: "b",
        before: &[MAKE_DISK, DECLARES, ("b", STOP_LIBVIRTD)],
        edits: &[WRITTEN_DISK],
        cleanup: &[DECLARES_NOTHING, ("b", STOP_LIBVIRTD), ("lab", "up")],
        ..PLAIN
    };
    vec![
        Case {
            what: "a disk in a folder that qemu.conf of the source declares as shared",
            guest: "declared",
            ..declared.clone()
        },
        Case {
            what: "the same, which QEMU's user at the destination may read and not write",
            guest: "reads-only",
            after: &[("a", "cd /lab/guests/@NAME@ && chown 0:0 disk.img && chmod 644 disk.img")],
            foretold: &["destination-qemu-opens-files"],
            answer: Answer::Refuses("Permission denied"),
            ..declared
        },
    ]
}

/// Takes two ports of lab-b, and lets them go.
const TAKE_PORT: (&str, &str) = (
    "b",
    "setsid perl -MIO::Socket::INET -e 'my @s = map {IO::Socket::INET->new(LocalAddr => \"127.0.0.1:$_\", \
     Listen => 1, ReuseAddr => 1) or die} 5999, 6000; open my $f, \">\", \"/run/taker.pid\"; print $f $$; close $f; sleep 600' \
     </dev/null >/dev/null 2>&1 & while [ ! -s /run/taker.pid ]; do sleep 0.1; done",
);
const LEAVE_PORT: (&str, &str) = ("b", "kill $(cat /run/taker.pid); rm /run/taker.pid");

/// Ports of the destination.
fn bound() -> Vec<Case> {
    let taken = Case {
        after: &[TAKE_PORT],
        cleanup: &[LEAVE_PORT],
        answer: Answer::Refuses("Address already in use"),
        ..PLAIN
    };
    vec![
        Case {
            what: "a display with a fixed port that another program of the destination has",
            guest: "fixed-port",
            edits: &[(
                "</devices>",
                "<graphics type='vnc' port='5999' autoport='no' listen='127.0.0.1'/></devices>",
            )],
            foretold: &["destination-ports-free"],
            ..taken.clone()
        },
        Case {
            what: "a display whose port libvirt chooses, on the same port",
            guest: "chosen-port",
            edits: &[("</devices>", "<graphics type='vnc' autoport='yes' listen='127.0.0.1'/></devices>")],
            answer: Answer::Moves,
            ..taken.clone()
        },
        Case {
            what: "a display with a fixed port for browsers (websocket) that another program has",
            guest: "websocket",
            edits: &[(
                "</devices>",
                "<graphics type='vnc' autoport='yes' websocket='5999' listen='127.0.0.1'/></devices>",
            )],
            foretold: &["destination-ports-free"],
            ..taken.clone()
        },
        Case {
            what: "a serial port that is a TCP server on a port that another program has",
            guest: "serial-port",
            edits: &[(
                "</devices>",
                "<serial type='tcp'><source mode='bind' host='127.0.0.1' service='5999'/><target port='1'/></serial>\
                 </devices>",
            )],
            foretold: &["destination-ports-free"],
            ..taken.clone()
        },
        Case {
            what: "a display where the destination's range of ports for displays is used up",
            guest: "no-display-port",
            before: &[
                (
                    "b",
                    "printf 'remote_display_port_min = 5999\\nremote_display_port_max = 6000\\n' >>/etc/libvirt/qemu.conf",
                ),
                ("b", STOP_LIBVIRTD),
            ],
            edits: &[("</devices>", "<graphics type='vnc' autoport='yes' listen='127.0.0.1'/></devices>")],
            cleanup: &[
                LEAVE_PORT,
                ("b", "sed -i '/^remote_display_port/d' /etc/libvirt/qemu.conf"),
                ("b", STOP_LIBVIRTD),
                ("lab", "up"),
            ],
            foretold: &["destination-has-display-ports"],
            answer: Answer::Refuses("unused port"),
            ..taken
        },
    ]
}

/// What the destination demands, runs, or has not.
fn demanded() -> Vec<Case> {
    vec![
        Case {
            what: "a destination that takes migrations with TLS only (migrate_tls_force)",
            guest: "tls-forced",
            before: &[("b", "echo 'migrate_tls_force = 1' >>/etc/libvirt/qemu.conf"), ("b", STOP_LIBVIRTD)],
            cleanup: &[
                ("b", "sed -i '/^migrate_tls_force/d' /etc/libvirt/qemu.conf"),
                ("b", STOP_LIBVIRTD),
                ("lab", "up"),
            ],
            foretold: &["migration-tls-where-forced"],
            answer: Answer::Refuses("only with VIR_MIGRATE_TLS"),
            ..PLAIN
        },
        Case {
            what: "another program's hook at the destination, which refuses: only a trial can know",
            guest: "hooked",
            before: &[
                (
                    "b",
                    "mkdir -p /etc/libvirt/hooks && printf '#!/bin/sh\\n[ $2 != migrate ]\\n' >/etc/libvirt/hooks/qemu && \
                     chmod 755 /etc/libvirt/hooks/qemu",
                ),
                ("b", STOP_LIBVIRTD),
            ],
            cleanup: &[("b", "rm /etc/libvirt/hooks/qemu"), ("b", STOP_LIBVIRTD), ("lab", "up")],
            noted: &["destination-hooks-known"],
            answer: Answer::Refuses("Hook script execution failed"),
            ..PLAIN
        },
        Case {
            what: "a host without /dev/net/tun",
            guest: "no-tun",
            after: &[("b", "mv /dev/net/tun /dev/net/gone")],
            cleanup: &[("b", "mv /dev/net/gone /dev/net/tun")],
            foretold: &["destination-has-boot-files"],
            answer: Answer::Refuses("/dev/net/tun"),
            ..PLAIN
        },
        Case {
            what: "an interface with a script that only the source has",
            guest: "net-script",
            before: &[("a", "printf '#!/bin/sh\\n' >/srv/lab-ifup && chmod 755 /srv/lab-ifup")],
            edits: &[(
                "</devices>",
                "<interface type='ethernet'><script path='/srv/lab-ifup'/><model type='virtio'/></interface></devices>",
            )],
            foretold: &["destination-has-boot-files"],
            answer: Answer::Refuses("lab-ifup"),
            ..PLAIN
        },
    ]
}
