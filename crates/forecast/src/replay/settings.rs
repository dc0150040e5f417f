//! Inputs of a replay besides the trace: migration parameters, conditions of path and hosts, and the operator's goal.

use serde::{Deserialize, Serialize};
use vmgate_facts::{Accelerator, MigrationTransport, Version};

use super::{schedule::Schedule, stall::StallRule};

/// Pages that fill the vector of a QEMUFile: 64 entries (MAX_IOV_SIZE), two of a page.
const FLUSHED_PAGES: f64 = 32.0;
/// Pages of a packet of multifd (MULTIFD_PACKET_SIZE).
const MULTIFD_PACKET_PAGES: f64 = 128.0;

/// Migration parameters of QEMU. The defaults are libvirt's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MigrationParameters {
    /// Version of the QEMU on the source, which runs the loop.
    pub qemu: Version,
    /// Accelerator of the guest, which decides from when on a page counts as dirty again.
    pub accelerator: Accelerator,
    /// QEMU's downtime-limit.
    pub downtime_limit_seconds: f64,
    /// QEMU's max-bandwidth; none for no limit, as libvirt sets it.
    pub bandwidth_limit_bytes_per_second: Option<f64>,
    /// QEMU's avail-switchover-bandwidth (from 8.2): taken for the measured bandwidth; none to measure.
    pub switchover_bandwidth_bytes_per_second: Option<f64>,
    /// Throttle the vCPUs when memory is dirtied too fast (auto-converge); none for never.
    pub auto_converge: Option<AutoConverge>,
    /// Send differences from the second pass on, with a cache of this size (XBZRLE); none for whole pages.
    pub xbzrle_cache_bytes: Option<u64>,
    /// Send pages over this many connections (multifd); none for one.
    pub multifd_channels: Option<u32>,
    /// Compress what multifd sends; none for whole pages.
    pub compression: Option<Compression>,
    /// Let the kernel send the guest's pages without a copy (zero-copy-send; multifd without compression and TLS).
    pub zero_copy: bool,
    /// Carrier of the pages between the two QEMUs.
    pub transport: MigrationTransport,
    /// Slow vCPUs that write more than this, in bytes per second of all together (dirty-limit, from 8.1); none for never.
    pub dirty_limit_bytes_per_second: Option<f64>,
    /// Switch to post-copy when all of the RAM was sent once.
    pub post_copy: bool,
    /// Changes to the running migration; empty for none.
    #[serde(default)]
    pub schedule: Schedule,
    /// Steps against a migration that makes no progress; none for nothing.
    #[serde(default)]
    pub stall: Option<StallRule>,
}

impl Default for MigrationParameters {
    fn default() -> Self {
        Self {
            qemu: Version { major: 10, minor: 0, micro: 0 },
            accelerator: Accelerator::Kvm,
            downtime_limit_seconds: 0.3,
            bandwidth_limit_bytes_per_second: None,
            switchover_bandwidth_bytes_per_second: None,
            auto_converge: None,
            xbzrle_cache_bytes: None,
            multifd_channels: None,
            compression: None,
            zero_copy: false,
            transport: MigrationTransport::Tcp,
            dirty_limit_bytes_per_second: None,
            post_copy: false,
            schedule: Schedule::default(),
            stall: None,
        }
    }
}

/// Compression of multifd (multifd-compression), at QEMU's default level 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// zlib.
    Zlib,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// Speed of one thread, in bytes of memory per second: assumed, since hosts differ.
    pub(super) const fn thread_bytes_per_second(self) -> Interval {
        match self {
            Self::Zlib => Interval { low: 4.0e7, high: 1.2e8 },
            Self::Zstd => Interval { low: 2.5e8, high: 6.0e8 },
        }
    }
}

impl MigrationParameters {
    /// True if this QEMU synchronises the dirty bitmap every 5 s while it throttles (from 9.2: cpu-throttle.c).
    pub(super) fn syncs_while_throttling(&self) -> bool {
        self.auto_converge.is_some() && self.qemu >= Version { major: 9, minor: 2, micro: 0 }
    }

    /// Synchronisations that QEMU does not count: one fewer in 11.1 than in 7.2 and 10.0, as seen in every migration.
    pub(super) fn uncounted_syncs(&self) -> u32 {
        u32::from(self.qemu >= Version { major: 11, minor: 1, micro: 0 })
    }

    /// Bytes that QEMU counts against its bandwidth limit at a time: from 8.2 what it flushes to the socket (32 pages of a
    /// full iovec, or a packet of multifd), before that each page.
    pub(super) fn counted_bytes(&self, page_bytes: f64) -> f64 {
        match self.multifd_channels {
            Some(_) => MULTIFD_PACKET_PAGES * page_bytes,
            None if self.qemu >= Version { major: 8, minor: 2, micro: 0 } => FLUSHED_PAGES * page_bytes,
            None => page_bytes,
        }
    }

    /// Dirty limit, if QEMU is new enough for it and the guest runs under KVM, whose dirty ring it needs.
    pub(super) fn dirty_limit(&self) -> Option<f64> {
        let can =
            self.qemu >= Version { major: 8, minor: 1, micro: 0 } && self.accelerator == Accelerator::Kvm;
        self.dirty_limit_bytes_per_second.filter(|_| can)
    }

    /// Bandwidth configured for QEMU's switchover decision, if QEMU is new enough to support it.
    pub(super) fn switchover_bandwidth(&self) -> Option<f64> {
        let listens = self.qemu >= Version { major: 8, minor: 2, micro: 0 };
        self.switchover_bandwidth_bytes_per_second.filter(|_| listens)
    }
}

/// QEMU's cpu-throttle parameters, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AutoConverge {
    /// First throttle (cpu-throttle-initial).
    pub initial: f64,
    /// Increment at each step (cpu-throttle-increment).
    pub increment: f64,
    /// Strongest throttle (max-cpu-throttle).
    pub most: f64,
}

impl Default for AutoConverge {
    fn default() -> Self {
        Self { initial: 20.0, increment: 10.0, most: 99.0 }
    }
}

/// Goodput, CPU costs and fixed delays of the path and the two hosts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Conditions {
    /// Goodput: payload that one TCP stream carries per second.
    pub goodput_bytes_per_second: f64,
    /// Coefficient of variation of the goodput from one migration to the next.
    pub goodput_cv: f64,
    /// Part of it that other moves take meanwhile, in bytes per second.
    #[serde(default = "Interval::none")]
    pub others_bytes_per_second: Interval,
    /// Capacity of the socket's queue before QEMU has to wait: unsent and unacknowledged bytes.
    pub socket_queue_bytes: Interval,
    /// Number of the guest's vCPUs.
    pub vcpus: u32,
    /// CPU time that QEMU takes to send a page.
    pub page_seconds: f64,
    /// CPU time that QEMU takes to detect and send a zero page.
    pub zero_page_seconds: f64,
    /// Bytes per second that one thread encrypts and sends under TLS: the speed of a core.
    pub tls_bytes_per_second: Interval,
    /// Factor by which libvirt's daemons, which copy all of it, slow a tunnelled migration.
    pub tunnelled_slower: Interval,
    /// Time of one synchronisation of the dirty bitmap, for each GiB of RAM.
    pub sync_seconds_per_gib: f64,
    /// Pages that the guest's kernel rewrites all the time with their previous content, such as locks and counters. A
    /// trace of contents does not see them. Linux guests had 110 to 150, others none.
    pub silent_pages: Interval,
    /// Time from the order to migrate to the first page: libvirt's preparation, the destination's QEMU, the connection.
    pub setup_seconds: Interval,
    /// Bytes sent besides the guest's RAM: other RAM blocks, device state.
    pub other_bytes: Interval,
    /// Time from the stop of the vCPUs to the first byte of the rest: the last sync, libvirt's round trips.
    pub stop_seconds: Interval,
    /// Time from the last byte's arrival to a running guest: device state, lock hand-over, libvirt's round trips.
    pub start_seconds: Interval,
    /// Time from a running guest to the end of the migration as libvirt reports it.
    pub finish_seconds: Interval,
    /// Share of zero pages among those that the evidence takes for content: pages that the host holds for the guest, and
    /// that nothing was ever written to.
    #[serde(default = "Interval::none")]
    pub resident_zero_ratio: Interval,
    /// Load of the guest relative to that of the evidence.
    pub load_ratio: Interval,
    /// End of the guest's load; none for a load that lasts.
    #[serde(default)]
    pub load_end: Option<LoadEnd>,
}

/// End of the guest's load during the migration.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadEnd {
    /// Time of the end, from the order to migrate.
    pub at_seconds: Interval,
    /// Part of the load that remains, in [0, 1].
    pub remaining_ratio: f64,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            goodput_bytes_per_second: 1.17e8,
            goodput_cv: 0.01,
            others_bytes_per_second: Interval::none(),
            socket_queue_bytes: Interval { low: 1.0e6, high: 3.0e6 },
            vcpus: 1,
            page_seconds: 2.0e-6,
            zero_page_seconds: 0.7e-6,
            tls_bytes_per_second: Interval { low: 4.0e8, high: 1.2e9 },
            // Measured in 4,627 migrations of an OpenStack cloud.
            tunnelled_slower: Interval { low: 1.9, high: 2.2 },
            sync_seconds_per_gib: 0.5e-3,
            silent_pages: Interval { low: 0.0, high: 150.0 },
            setup_seconds: Interval { low: 0.05, high: 1.6 },
            other_bytes: Interval { low: 5.0e4, high: 6.0e5 },
            stop_seconds: Interval { low: 0.002, high: 0.03 },
            start_seconds: Interval { low: 0.004, high: 0.08 },
            finish_seconds: Interval { low: 0.02, high: 0.1 },
            resident_zero_ratio: Interval::none(),
            // Runs of the same server under the same load differed by that (the public set of KVM migrations).
            load_ratio: Interval { low: 0.96, high: 1.04 },
            load_end: None,
        }
    }
}

impl Conditions {
    /// The same for one of so many moves over the path at once, each with this bandwidth limit. Each other one takes its limit or
    /// its equal part of the path, or nothing: it waits until its limit lets it send again, or has not begun, or is over. All of
    /// them wait for the same two hosts when they begin and when they switch.
    #[must_use]
    pub fn shared_by(self, moves: u32, bandwidth_limit: Option<f64>) -> Self {
        let moves = f64::from(moves.max(1));
        let equal_part = self.goodput_bytes_per_second / moves;
        let each = bandwidth_limit.map_or(equal_part, |limit| limit.min(equal_part));
        let waiting = |alone: Interval| Interval { high: alone.high * moves, ..alone };
        Self {
            others_bytes_per_second: Interval { low: 0.0, high: each * (moves - 1.0) },
            setup_seconds: waiting(self.setup_seconds),
            stop_seconds: waiting(self.stop_seconds),
            start_seconds: waiting(self.start_seconds),
            ..self
        }
    }
}

/// Interval in which a figure lies.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// The interval of zero alone.
    pub const fn none() -> Self {
        Self { low: 0.0, high: 0.0 }
    }

    /// Its middle.
    pub fn middle(self) -> f64 {
        f64::midpoint(self.low, self.high)
    }
}

/// Goal of the operator for the migration.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Goal {
    /// Longest accepted blackout.
    pub longest_blackout_seconds: f64,
    /// Longest accepted duration of the whole migration; none for no limit.
    pub deadline_seconds: Option<f64>,
}
