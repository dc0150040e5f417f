//! Managers of VMs (OpenStack Nova, oVirt, Pacemaker …): their marks in a VM's configuration and on its host, and what follows.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Fact, Names};

/// Marks that the program which defined a VM left in its configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct VmMarks {
    /// Elements of the metadata, each with its text; elements without a namespace are left out.
    pub metadata: Vec<MetadataElement>,
    /// Product name that the guest reads from its firmware (SMBIOS); absent where the configuration sets none.
    #[schemars(example = &"OpenStack Nova", extend("x-names" = Names::FREE))]
    pub product: Option<String>,
    /// Socket of QEMU's monitor (QMP), for a VM that was reached by it; absent for one that libvirt has.
    #[schemars(example = &"/run/qemu-server/100.qmp", extend("x-names" = Names::FREE))]
    pub monitor: Option<String>,
}

/// Element in the metadata of a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct MetadataElement {
    /// XML namespace, which says whose element it is.
    #[schemars(example = &"http://openstack.org/xmlns/libvirt/nova/1.1", extend("x-names" = Names::FREE))]
    pub namespace: String,
    /// Names of the elements from the metadata to this one.
    #[schemars(example = &"instance/owner/project", extend("x-names" = Names::FREE))]
    pub path: String,
    /// Text of the element.
    #[schemars(example = &"web", extend("x-names" = Names::FREE))]
    pub text: String,
}

/// Managers of VMs as a host shows them: their programs, their settings of migrations, and the VMs of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct HostManagers {
    /// Programs of managers that run on the host.
    #[schemars(example = vec!["nova-compute"], extend("x-names" = Names::FREE))]
    pub programs: Fact<Vec<String>>,
    /// Settings of migrations that the managers' files on the host contain.
    pub settings: Fact<Vec<ManagerSetting>>,
    /// VMs that are resources of a Pacemaker cluster (VirtualDomain), from the cluster's configuration on this host.
    pub cluster_vms: Fact<Vec<ClusterVm>>,
}

/// Setting of a manager, as its file on the host has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ManagerSetting {
    /// File that contains it.
    #[schemars(example = &"/etc/nova/nova.conf", extend("x-names" = Names::FREE))]
    pub file: String,
    /// Name of the setting, with its section where the file has sections.
    #[schemars(example = &"libvirt/live_migration_downtime", extend("x-names" = Names::FREE))]
    pub name: String,
    /// Value as it is written there.
    #[schemars(example = &"500", extend("x-names" = Names::FREE))]
    pub value: String,
}

/// VM that is a resource of a Pacemaker cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ClusterVm {
    /// Id of the resource in the cluster.
    #[schemars(example = &"vm-web1", extend("x-names" = Names::FREE))]
    pub resource: String,
    /// Name of the domain in the file that the resource names.
    #[schemars(example = &"web1", extend("x-names" = Names::FREE))]
    pub domain: String,
}

/// Manager to which a VM belongs: it keeps a record of the VM's host, and starts or moves the VM by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct VmManager {
    /// Id of the manager in the catalogue.
    #[schemars(example = &"nova", extend("x-names" = Names::CATALOGUE))]
    pub kind: String,
    /// Name of the manager.
    #[schemars(example = &"OpenStack Nova", extend("x-names" = Names::FREE))]
    pub title: String,
    /// Name of the VM in the manager.
    #[schemars(example = &"web-7", extend("x-names" = Names::FREE))]
    pub vm: String,
    /// Project, namespace or account of the VM in the manager; absent where the marks name none.
    #[schemars(example = &"web", extend("x-names" = Names::FREE))]
    pub project: Option<String>,
    /// Strength of the evidence.
    #[schemars(example = &"certain")]
    pub confidence: ManagerConfidence,
    /// Evidence in words.
    #[schemars(example = &"its metadata have nova:instance", extend("x-names" = Names::FREE))]
    pub evidence: String,
    /// Way to move the VM through the manager.
    #[schemars(example = &"`openstack server migrate --live-migration --host HOST web-7`")]
    #[schemars(extend("x-names" = Names::FREE))]
    pub way_out: String,
}

/// Strength of the evidence that a VM belongs to a manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ManagerConfidence {
    /// The manager's own record of this VM: its metadata, or the configuration of its cluster.
    Certain,
    /// A mark that this manager alone sets, or a name as it gives them on a host where it runs.
    Likely,
}
