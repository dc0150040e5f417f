//! Rows of the fault test: the fault, the step of the move, and the expected result.

use std::{thread, time::Duration};

use vmgate_ledger::entry::RunStep;

use super::{
    bench::{Bench, Side},
    strikes::{DEFINITIONS, STARTING},
};
use crate::harness::lab;

/// Row of the test: a fault and its expected result.
pub(super) struct Row {
    pub(super) name: &'static str,
    /// Step in which the fault happens; none for before vmgate starts.
    pub(super) at: Option<RunStep>,
    pub(super) strike: fn(&mut Bench),
    /// Repair after vmgate has ended.
    pub(super) heal: fn(&mut Bench),
    /// Expected exit codes; -1 if vmgate itself is killed.
    pub(super) exits: &'static [i32],
    /// Text that vmgate must print.
    pub(super) says: &'static str,
    /// True if the VM must run on the destination; none if both hosts are right.
    pub(super) moves: Option<bool>,
    pub(super) twist: Twist,
}

/// Special property of the move itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Twist {
    None,
    /// Its hook in the guest does not end.
    EndlessHook,
    /// Its hook in the guest fails.
    HookObjects,
    /// Nothing undoes the service's stop in time.
    ShortDeadline,
    /// The ledger is on a small disk of its own.
    SmallDisk,
    /// The VM's QEMU dies with the fault.
    VmDies,
    /// Its agent does not answer; vmgate waits for it no longer than 15 s.
    DeafGuest,
}

fn nothing(_: &mut Bench) {}

fn up(_: &mut Bench) {
    lab(&["up"]).exits(0);
}

fn row(name: &'static str, at: RunStep, strike: fn(&mut Bench), exits: &'static [i32]) -> Row {
    Row { name, at: Some(at), strike, heal: up, exits, says: "", moves: None, twist: Twist::None }
}

fn kill_vmgate(bench: &mut Bench) {
    bench.kill_vmgate();
}

fn kill_source_daemon(bench: &mut Bench) {
    bench.signal_daemon(Side::Source, "KILL");
}

fn kill_destination_daemon(bench: &mut Bench) {
    bench.signal_daemon(Side::Destination, "KILL");
}

/// All rows.
pub(super) fn rows() -> Vec<Row> {
    use RunStep::{Gate, Migrate, Notify, Prepare, Recheck, Restore, Verify};
    let mut rows = vec![Row {
        at: None,
        moves: Some(true),
        says: "and nowhere else",
        ..row("no fault", Gate, nothing, &[0])
    }];
    for (name, state, moves) in [
        ("vmgate killed: gate", Gate, Some(false)),
        ("vmgate killed: notify", Notify, Some(false)),
        ("vmgate killed: prepare", Prepare, Some(false)),
        ("vmgate killed: recheck", Recheck, Some(false)),
        ("vmgate killed: migrate", Migrate, None),
        ("vmgate killed: verify", Verify, Some(true)),
        ("vmgate killed: restore", Restore, Some(true)),
    ] {
        rows.push(Row { moves, ..row(name, state, kill_vmgate, &[-1]) });
    }
    for (name, state, exits) in [
        ("source libvirtd killed: notify", Notify, &[0, 1, 20, 21, 30, 31] as &[i32]),
        ("source libvirtd killed: prepare", Prepare, &[0, 1, 20, 21, 30, 31]),
        ("source libvirtd killed: migrate", Migrate, &[30, 31]),
        ("source libvirtd killed: verify", Verify, &[0, 31]),
    ] {
        rows.push(row(name, state, kill_source_daemon, exits));
    }
    for (name, state, exits) in [
        ("destination libvirtd killed: prepare", Prepare, &[0, 20, 21, 30, 31] as &[i32]),
        ("destination libvirtd killed: migrate", Migrate, &[30, 31]),
        ("destination libvirtd killed: verify", Verify, &[0, 31]),
    ] {
        rows.push(row(name, state, kill_destination_daemon, exits));
    }
    rows.extend([
        row(
            "source libvirtd stopped 15 s: migrate",
            Migrate,
            |bench| bench.stop_daemon(Side::Source, 15),
            &[0, 30, 31],
        ),
        row(
            "destination libvirtd stopped 15 s: migrate",
            Migrate,
            |bench| bench.stop_daemon(Side::Destination, 15),
            &[0, 30, 31],
        ),
        Row {
            twist: Twist::VmDies,
            ..row("source QEMU killed: migrate", Migrate, |bench| bench.kill_qemu(Side::Source), &[31])
        },
        Row {
            moves: Some(false),
            says: "the VM still runs on",
            ..row(
                "destination QEMU killed: migrate",
                Migrate,
                |bench| bench.kill_qemu(Side::Destination),
                &[30],
            )
        },
        Row {
            moves: Some(false),
            says: "migration link",
            heal: |bench| bench.link(true),
            ..row("migration link cut", Migrate, |bench| bench.link(false), &[30])
        },
        Row {
            moves: Some(true),
            heal: |bench| bench.link(true),
            ..row(
                "migration link flaps",
                Migrate,
                |bench| {
                    for up in [false, true, false, true] {
                        bench.link(up);
                        thread::sleep(Duration::from_secs(2));
                    }
                },
                &[0],
            )
        },
        Row {
            moves: Some(false),
            says: "are sent",
            twist: Twist::ShortDeadline,
            heal: |_| {
                lab(&["link", "rate", super::bench::RATE]).exits(0);
            },
            ..row(
                "migration link slow",
                Migrate,
                |_| {
                    lab(&["link", "rate", "4mbit"]).exits(0);
                },
                &[30],
            )
        },
        row("management link cut 40 s: migrate", Migrate, |bench| bench.cut_management(40), &[0, 30, 31]),
        Row {
            moves: Some(true),
            twist: Twist::EndlessHook,
            ..row("guest's hook never ends", Gate, nothing, &[0])
        },
        Row {
            moves: Some(false),
            says: "the guest objects",
            twist: Twist::HookObjects,
            ..row("guest's hook objects", Gate, nothing, &[30])
        },
        Row {
            moves: Some(false),
            says: "on request",
            ..row("Ctrl-C: prepare", Prepare, |bench| bench.signal_vmgate(libc::SIGINT), &[30])
        },
        Row {
            moves: Some(false),
            says: "on request",
            ..row("Ctrl-C: migrate", Migrate, |bench| bench.signal_vmgate(libc::SIGINT), &[30])
        },
        Row {
            moves: Some(true),
            ..row("two vmgates on one VM", Notify, |bench| bench.second_vmgate_is_refused(), &[0])
        },
        Row {
            at: None,
            moves: Some(false),
            says: "disk under the ledger is full",
            twist: Twist::SmallDisk,
            heal: |bench| bench.free_disk(),
            ..row("ledger's disk full: before", Gate, |bench| bench.fill_disk(), &[1])
        },
        Row {
            moves: None,
            twist: Twist::SmallDisk,
            heal: |bench| bench.free_disk(),
            ..row("ledger's disk full: prepare", Prepare, |bench| bench.fill_disk(), &[0, 1])
        },
        Row {
            moves: Some(false),
            says: "the VM still runs on",
            heal: |bench| bench.give_memory(),
            ..row(
                "destination out of memory",
                Prepare,
                |bench| bench.take_memory(Side::Destination, 96),
                &[30],
            )
        },
        Row {
            moves: Some(false),
            says: "the VM still runs on",
            heal: |bench| bench.free_host_disks(),
            ..row(
                "destination's disk full: nothing starts",
                Prepare,
                |bench| bench.fill_host_disk(Side::Destination, STARTING),
                &[30],
            )
        },
        Row {
            heal: |bench| bench.free_host_disks(),
            ..row(
                "destination's disk full: no definition",
                Migrate,
                |bench| bench.fill_host_disk(Side::Destination, DEFINITIONS),
                &[0, 30],
            )
        },
        Row {
            at: None,
            moves: Some(false),
            says: "evidence is missing",
            twist: Twist::DeafGuest,
            heal: |bench| bench.wait_for_agent(),
            ..row("guest's agent hangs: before", Gate, |bench| bench.deafen(90), &[20, 21])
        },
        Row {
            twist: Twist::DeafGuest,
            heal: |bench| bench.wait_for_agent(),
            ..row(
                "guest's agent hangs 60 s: prepare",
                Prepare,
                |bench| bench.deafen(60),
                &[0, 20, 21, 30, 31],
            )
        },
        Row {
            heal: |bench| bench.wait_for_agent(),
            ..row("guest's agent hangs 30 s: migrate", Migrate, |bench| bench.deafen(30), &[0, 31])
        },
        Row {
            moves: Some(false),
            says: "expired",
            ..row("clock jumps past the verdict's end", Gate, nothing, &[21])
        },
    ]);
    rows
}
