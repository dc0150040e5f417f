//! Changes of settings that the advice compares: what each sets, which QEMU takes it, and what it costs.

use serde::{Deserialize, Serialize};
use vmgate_facts::{Accelerator, MigrationTransport, Version};

use super::{
    AutoConverge, Compression, Conditions, MigrationParameters, PredictedMigration, ScheduledAction,
};

/// Connections of multifd, and libvirt's size of the XBZRLE cache.
const CHANNELS: u32 = 4;
const XBZRLE_CACHE_BYTES: u64 = 64 << 20;
/// Throttle that begins where auto-converge by default arrives after several rounds.
const SOONER: AutoConverge = AutoConverge { initial: 60.0, increment: 20.0, most: 99.0 };
/// QEMU's default of vcpu-dirty-limit, in bytes per second for one vCPU.
const VCPU_DIRTY_LIMIT: f64 = 1_048_576.0;
/// Margin of a longer downtime limit over the least rest of the replays.
const LONGER: f64 = 1.15;

/// A change of settings, or of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SettingsChange {
    /// A path of twice the goodput.
    TwiceTheGoodput,
    /// No bandwidth limit.
    NoBandwidthLimit,
    /// The goodput of the path told to QEMU as avail-switchover-bandwidth, where a limit makes it expect less.
    SwitchoverBandwidth,
    /// QEMU's own connection in place of libvirt's.
    NotTunnelled,
    /// No encryption by QEMU.
    NoTls,
    /// Encryption by QEMU.
    Tls,
    /// Several parallel connections (multifd).
    Multifd,
    /// Multifd that the kernel sends without copying.
    ZeroCopy,
    /// Multifd compressed with Zstandard.
    MultifdZstd,
    /// Multifd compressed with zlib.
    MultifdZlib,
    /// Differences instead of whole pages (XBZRLE).
    Xbzrle,
    /// Throttling of the vCPUs where needed (auto-converge).
    AutoConverge,
    /// Auto-converge that begins with a strong throttle.
    AutoConvergeSooner,
    /// Limit on what each vCPU writes (dirty-limit).
    DirtyLimit,
    /// Downtime limit with which the present load converges.
    LongerLimit,
    /// Suspension of the guest once pre-copy has shown that it does not end.
    Suspend,
    /// Switchover to post-copy after the first pass: always completes, but a failure after the switchover loses the
    /// guest.
    PostCopy,
}

impl SettingsChange {
    /// All changes, the mildest first.
    const ALL: [Self; 17] = [
        Self::TwiceTheGoodput,
        Self::NoBandwidthLimit,
        Self::SwitchoverBandwidth,
        Self::NotTunnelled,
        Self::NoTls,
        Self::Tls,
        Self::Multifd,
        Self::ZeroCopy,
        Self::MultifdZstd,
        Self::MultifdZlib,
        Self::Xbzrle,
        Self::AutoConverge,
        Self::AutoConvergeSooner,
        Self::DirtyLimit,
        Self::LongerLimit,
        Self::Suspend,
        Self::PostCopy,
    ];

    /// Changes to try, the mildest first.
    pub(super) fn of(settings: &MigrationParameters, as_it_is: &PredictedMigration) -> Vec<Self> {
        Self::ALL.into_iter().filter(|change| change.is_possible(settings, as_it_is)).collect()
    }

    /// True if this QEMU takes the change beside the present settings, and it changes anything.
    fn is_possible(self, settings: &MigrationParameters, as_it_is: &PredictedMigration) -> bool {
        let from = |major, minor| settings.qemu >= Version { major, minor, micro: 0 };
        let sure = as_it_is.converges_ratio >= super::advise::SURE;
        let single = settings.multifd_channels.is_none();
        // QEMU refuses multifd beside XBZRLE, and beside post-copy before 10.1.
        let multifd = single && settings.xbzrle_cache_bytes.is_none() && (!settings.post_copy || from(10, 1));
        let braked = settings.auto_converge.is_some() || settings.dirty_limit().is_some();
        match self {
            Self::TwiceTheGoodput => true,
            Self::NoBandwidthLimit => settings.bandwidth_limit_bytes_per_second.is_some(),
            Self::SwitchoverBandwidth => {
                let told = settings.switchover_bandwidth_bytes_per_second.is_some();
                settings.bandwidth_limit_bytes_per_second.is_some() && !told && from(8, 2)
            }
            Self::NotTunnelled => settings.transport == MigrationTransport::Tunnelled,
            Self::NoTls => settings.transport == MigrationTransport::Tls,
            Self::Tls => settings.transport == MigrationTransport::Tcp,
            Self::Multifd | Self::MultifdZstd | Self::MultifdZlib => multifd,
            Self::ZeroCopy => multifd && settings.transport == MigrationTransport::Tcp,
            Self::Xbzrle => single && settings.xbzrle_cache_bytes.is_none(),
            Self::AutoConverge => !braked,
            Self::AutoConvergeSooner => !braked && !sure,
            Self::DirtyLimit => !braked && !sure && from(8, 1) && settings.accelerator == Accelerator::Kvm,
            Self::LongerLimit => !sure && as_it_is.least_left_seconds.is_some(),
            Self::Suspend => !sure && !settings.post_copy,
            Self::PostCopy => !settings.post_copy && (single || from(10, 1)),
        }
    }

    /// True if a change file can order it: only then is it recommended. Less encryption never is.
    pub fn can_be_ordered(self) -> bool {
        matches!(
            self,
            Self::NoBandwidthLimit | Self::Multifd | Self::Xbzrle | Self::AutoConverge | Self::PostCopy
        )
    }

    /// Name of the change, in words that fit after "with".
    pub fn words(self) -> &'static str {
        match self {
            Self::TwiceTheGoodput => "a path of twice the goodput",
            Self::NoBandwidthLimit => "no bandwidth limit",
            Self::SwitchoverBandwidth => "avail-switchover-bandwidth",
            Self::NotTunnelled => "QEMU's own connection",
            Self::NoTls => "no TLS",
            Self::Tls => "TLS",
            Self::Multifd => "4 parallel connections (multifd)",
            Self::ZeroCopy => "multifd with zero-copy",
            Self::MultifdZstd => "multifd with zstd",
            Self::MultifdZlib => "multifd with zlib",
            Self::Xbzrle => "XBZRLE",
            Self::AutoConverge => "auto-converge",
            Self::AutoConvergeSooner => "auto-converge from 60 %",
            Self::DirtyLimit => "dirty-limit",
            Self::LongerLimit => "a longer downtime limit",
            Self::Suspend => "a suspended guest",
            Self::PostCopy => "post-copy",
        }
    }

    /// Costs of the change for the guest, the hosts or others, by its forecast.
    pub fn costs(self, replay: &PredictedMigration) -> String {
        let throttle = || {
            let pause = replay.throttle_pause_seconds * 1e3;
            match replay.throttle_percent {
                ..1.0 => "nothing: no throttle is needed".to_owned(),
                percent => format!("slows the vCPUs by up to {percent:.0} %, in pauses of {pause:.0} ms"),
            }
        };
        match self {
            Self::TwiceTheGoodput => "a faster network".to_owned(),
            Self::NoBandwidthLimit => "leaves other traffic no share of the path".to_owned(),
            Self::SwitchoverBandwidth => "a longer blackout if the path then carries less".to_owned(),
            Self::NotTunnelled => "a port of QEMU open between the hosts".to_owned(),
            Self::NoTls => "memory crosses the network unencrypted".to_owned(),
            Self::Tls => "a core at each host; its speed is assumed".to_owned(),
            Self::Multifd => "4 connections and threads at each host".to_owned(),
            Self::ZeroCopy => "locks the VM's memory at the source (memlock)".to_owned(),
            Self::MultifdZstd | Self::MultifdZlib => {
                "4 cores at the source; their speed is assumed".to_owned()
            }
            Self::Xbzrle => "CPU time and 64 MiB at the source".to_owned(),
            Self::AutoConverge | Self::AutoConvergeSooner => throttle(),
            Self::DirtyLimit => "slows vCPUs that write above 1 MiB/s; QMP alone sets it; from QEMU's \
                                   source, not tried"
                .to_owned(),
            Self::LongerLimit => "the longer blackout".to_owned(),
            Self::Suspend => "the guest is silent from the suspension on".to_owned(),
            Self::PostCopy => match (replay.remote_bytes, replay.remote_seconds) {
                (Some(bytes), Some(seconds)) => format!(
                    "for {:.1} s a failure of host or link loses the guest, which waits for pages: {:.0} MiB \
                     come over the network",
                    seconds.p95,
                    bytes.p95 / f64::from(1 << 20)
                ),
                _ => "a failure of host or link meanwhile loses the guest".to_owned(),
            },
        }
    }

    /// The migration with this change. `as_it_is` is the migration without it.
    pub(super) fn apply(
        self,
        settings: &MigrationParameters,
        conditions: &Conditions,
        as_it_is: &PredictedMigration,
    ) -> (MigrationParameters, Conditions) {
        let (mut settings, mut conditions) = (settings.clone(), conditions.clone());
        let goodput = conditions.goodput_bytes_per_second;
        match self {
            Self::TwiceTheGoodput => conditions.goodput_bytes_per_second *= 2.0,
            Self::NoBandwidthLimit => settings.bandwidth_limit_bytes_per_second = None,
            Self::SwitchoverBandwidth => settings.switchover_bandwidth_bytes_per_second = Some(goodput),
            Self::NotTunnelled | Self::NoTls => settings.transport = MigrationTransport::Tcp,
            Self::Tls => settings.transport = MigrationTransport::Tls,
            Self::Multifd => settings.multifd_channels = Some(CHANNELS),
            Self::ZeroCopy => (settings.multifd_channels, settings.zero_copy) = (Some(CHANNELS), true),
            Self::MultifdZstd | Self::MultifdZlib => {
                let zstd = self == Self::MultifdZstd;
                settings.multifd_channels = Some(CHANNELS);
                settings.compression = Some(if zstd { Compression::Zstd } else { Compression::Zlib });
            }
            Self::Xbzrle => settings.xbzrle_cache_bytes = Some(XBZRLE_CACHE_BYTES),
            Self::AutoConverge => settings.auto_converge = Some(AutoConverge::default()),
            Self::AutoConvergeSooner => settings.auto_converge = Some(SOONER),
            Self::DirtyLimit => {
                settings.dirty_limit_bytes_per_second =
                    Some(VCPU_DIRTY_LIMIT * f64::from(conditions.vcpus.max(1)));
            }
            Self::LongerLimit => {
                // QEMU holds the rest against the speed that a bandwidth limit lets it see.
                let seen =
                    settings.bandwidth_limit_bytes_per_second.map_or(goodput, |limit| limit.min(goodput));
                let least =
                    as_it_is.least_left_seconds.map_or(0.0, |left| left.p95 * goodput / seen.max(1.0));
                settings.downtime_limit_seconds = settings.downtime_limit_seconds.max(least * LONGER);
            }
            Self::Suspend => {
                // The rounds that show that it does not end: two after the first pass.
                let rounds = &as_it_is.round_ends_seconds;
                let shown = rounds.get(2).or(rounds.last()).copied().unwrap_or(0.0);
                settings.schedule = settings.schedule.and(shown, ScheduledAction::Pause);
            }
            Self::PostCopy => settings.post_copy = true,
        }
        (settings, conditions)
    }

    /// True if the change is about the downtime limit itself, which is then not fitted to the goal.
    pub(super) fn sets_the_limit(self) -> bool {
        matches!(self, Self::LongerLimit | Self::Suspend)
    }
}
