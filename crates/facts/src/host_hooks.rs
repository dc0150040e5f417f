//! Hooks of libvirt's QEMU driver at a host.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Text that marks the scripts of vmgate's own hook.
pub const HOOK_MARK: &str = "# vmgate's hook";

/// Program that libvirt runs before it lets a VM in, and that may refuse it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct HostHook {
    /// Path of the program.
    #[schemars(example = &"/etc/libvirt/hooks/qemu.d/10-pinning")]
    pub path: String,
    /// True if it is vmgate's own hook.
    #[schemars(example = false)]
    pub own: bool,
}
