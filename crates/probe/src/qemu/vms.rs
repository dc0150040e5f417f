//! VMs of a host by their QEMU processes, where no libvirt tells them.

use procfs::process::Process;
use serde::{Deserialize, Serialize};
use vmgate_facts::{Cause, Fact, HostJob, HostVm, MemoryClaims, Unknown, Uuid, text::plain};

use crate::qemu::{MONITOR, process::Qemu};

/// VMs that run on a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunningVms {
    /// VMs with a UUID.
    pub vms: Vec<HostVm>,
    /// Jobs on them.
    pub jobs: Vec<HostJob>,
    /// Their claims on memory; unknown where the memory of one is not known.
    pub claims: Fact<MemoryClaims>,
    /// Their monitors for programs (QMP), in the order of the VMs' names; a VM without one is absent.
    #[serde(default)]
    pub monitors: Vec<VmMonitor>,
}

/// Monitor of a VM for programs (QMP).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VmMonitor {
    /// Name of the VM.
    pub vm: String,
    /// UUID of the VM; absent where its command line has none.
    pub uuid: Option<Uuid>,
    /// Path of the socket on the host.
    pub socket: String,
}

impl VmMonitor {
    /// Name of the VM by its monitor, `qmp:SOCKET`.
    pub fn handle(&self) -> String {
        format!("{MONITOR}{}", self.socket)
    }

    /// True if `vm` is the name or UUID of the VM, or names it by this monitor.
    pub fn is_of(&self, vm: &str) -> bool {
        self.vm == vm || self.handle() == vm || (self.uuid.is_some() && vm.parse().ok() == self.uuid)
    }
}

/// VMs that run here.
pub(crate) fn running() -> Result<RunningVms, Unknown> {
    Ok(of(processes()?.map(|qemu| (resident(&qemu), qemu.is_busy(), qemu))))
}

/// QEMU processes of VMs. Fails where this user does not see all of them.
pub(crate) fn processes() -> Result<impl Iterator<Item = Qemu>, Unknown> {
    // With hidepid a user sees only their own processes, so that a list proves nothing.
    if std::fs::read("/proc/1/cmdline").is_err() {
        let why = "the host hides other users' processes from this user (hidepid), so its VMs cannot be seen";
        return Err(Unknown::new(Cause::PermissionDenied, why));
    }
    let found = Qemu::running().map_err(|error| Unknown::new(Cause::PermissionDenied, error.to_string()))?;
    Ok(found.filter(runs_a_vm))
}

/// False for a QEMU that was only started to be asked.
fn runs_a_vm(qemu: &Qemu) -> bool {
    !qemu.values("-machine").chain(qemu.values("-M")).any(|machine| machine.split(',').next() == Some("none"))
}

fn resident(qemu: &Qemu) -> u64 {
    let status = Process::new(qemu.pid.cast_signed()).and_then(|process| process.status());
    status.ok().and_then(|status| status.vmrss).unwrap_or(0).saturating_mul(1024)
}

fn of(processes: impl Iterator<Item = (u64, bool, Qemu)>) -> RunningVms {
    let (mut vms, mut jobs, mut monitors) = (Vec::new(), Vec::new(), Vec::new());
    let mut claims = Ok(MemoryClaims::default());
    for (resident, is_busy, qemu) in processes {
        let name = plain(&qemu.name().unwrap_or_else(|| format!("process {}", qemu.pid)));
        let bytes: u64 = qemu.backends().iter().map(|backend| backend.bytes).sum();
        if is_busy {
            jobs.push(HostJob { vm: name.clone(), operation: "other".to_owned() });
        }
        match &mut claims {
            Ok(_) if bytes == 0 => {
                claims = Err(Unknown::new(
                    Cause::NotSupported,
                    format!(
                        "the command line of {name}'s QEMU (process {}) does not tell its memory",
                        qemu.pid
                    ),
                ));
            }
            Ok(claims) => {
                claims.running_bytes = claims.running_bytes.saturating_add(bytes);
                // It may still be coming in, or have come long ago: what it has not taken yet counts as promised.
                if qemu.is_incoming() {
                    claims.incoming_bytes =
                        claims.incoming_bytes.saturating_add(bytes.saturating_sub(resident));
                    claims.vms.push(name.clone());
                }
            }
            Err(_) => {}
        }
        let uuid = qemu.uuid();
        monitors.extend(qemu.monitor().map(|socket| VmMonitor {
            vm: name.clone(),
            uuid: uuid.clone(),
            socket: plain(&socket),
        }));
        vms.extend(uuid.map(|uuid| HostVm { name, uuid, active: true }));
    }
    vms.sort_by(|a, b| a.name.cmp(&b.name));
    monitors.sort();
    RunningVms { vms, jobs, claims: claims.into(), monitors }
}

#[cfg(test)]
mod tests {
    use crate::qemu::vms::*;

    fn qemu(arguments: &str) -> Qemu {
        Qemu::called(1, format!("/usr/bin/kvm {arguments}").split(' ').map(str::to_owned).collect())
    }

    #[test]
    fn vms_and_their_memory_are_read_from_command_lines() {
        let uuid = "5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d11";
        let found = of([
            (
                64 << 20,
                false,
                qemu(&format!(
                    "-name web1,debug-threads=on -smbios type=1,uuid={uuid} -m 512 \
                     -chardev socket,id=event,path=/run/event,reconnect=5 -mon chardev=event,mode=control \
                     -chardev socket,id=qmp,path=/run/web1.qmp,server=on,wait=off -mon chardev=qmp,mode=control"
                )),
            ),
            (
                64 << 20,
                true,
                qemu("-name guest=db -m 256 -incoming defer -monitor unix:/run/db.hmp,server -qmp unix:/run/db.qmp,server,nowait"),
            ),
        ]
        .into_iter());
        assert_eq!(found.vms.len(), 1);
        assert_eq!((found.vms[0].name.as_str(), found.vms[0].uuid.as_str()), ("web1", uuid));
        assert_eq!(found.jobs[0].vm, "db");
        let handles: Vec<String> = found.monitors.iter().map(VmMonitor::handle).collect();
        assert_eq!(handles, ["qmp:/run/db.qmp", "qmp:/run/web1.qmp"]);
        let called = |vm: &str| found.monitors.iter().map(|monitor| monitor.is_of(vm)).collect::<Vec<_>>();
        assert_eq!(called("db"), [true, false]);
        assert_eq!(called("qmp:/run/db.qmp"), [true, false]);
        assert_eq!(called(&uuid.to_uppercase()), [false, true]);
        assert_eq!(called("web"), [false, false]);
        let claims = found.claims.known().unwrap();
        assert_eq!((claims.running_bytes, claims.incoming_bytes), (768 << 20, 192 << 20));
    }

    #[test]
    fn a_vm_whose_memory_is_not_told_makes_the_sum_unknown() {
        let found = of([(0, false, qemu("-name x -readconfig /etc/x.cfg"))].into_iter());
        assert!(matches!(found.claims, Fact::Unknown(why) if why.reason.contains('x')));
    }

    #[test]
    fn a_qemu_that_is_only_asked_is_no_vm() {
        assert!(!runs_a_vm(&qemu("-S -machine none,accel=kvm -qmp stdio")));
        assert!(runs_a_vm(&qemu("-machine type=pc+pve0")));
    }
}
