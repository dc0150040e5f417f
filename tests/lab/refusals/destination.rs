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
    [opened(), Vec::new()].concat()
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
