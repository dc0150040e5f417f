//! Queues of a VM's virtio devices, as QEMU's monitor tells them.

use serde_json::{Value, json};
use vmgate_facts::{VirtioQueues, text::plain};

use super::{
    Domain,
    error::{LibvirtError, LibvirtErrorKind},
};

/// Most devices that are asked about.
const MOST_DEVICES: usize = 64;

impl Domain {
    /// Sizes of the first and the last queue of every virtio device (x-query-virtio, since QEMU 7.2). Asks QEMU's monitor, for
    /// which libvirt marks the domain as tainted (custom-monitor).
    pub fn virtio_queues(&self) -> Result<Vec<VirtioQueues>, LibvirtError> {
        let devices = self.query("x-query-virtio", &json!({}))?;
        let listed = devices.as_array().into_iter().flatten().take(MOST_DEVICES);
        listed
            .filter_map(|device| Some((device.get("path")?.as_str()?, device.get("name")?.as_str()?)))
            .map(|(path, name)| {
                Ok(VirtioQueues { device: plain(path), name: plain(name), sizes: self.queue_sizes(path)? })
            })
            .collect()
    }

    fn queue_sizes(&self, path: &str) -> Result<Vec<u32>, LibvirtError> {
        let status = self.query("x-query-virtio-status", &json!({ "path": path }))?;
        let queues = status.get("num-vqs").and_then(Value::as_u64).unwrap_or(0);
        let mut ends = vec![0, queues.saturating_sub(1)];
        ends.dedup();
        let mut sizes = Vec::new();
        for queue in ends.into_iter().filter(|_| queues > 0) {
            let arguments = json!({ "path": path, "queue": queue });
            let queue = self.query("x-query-virtio-queue-status", &arguments)?;
            let size = queue.get("vring-num").and_then(Value::as_u64);
            sizes.extend(size.and_then(|size| u32::try_from(size).ok()));
        }
        Ok(sizes)
    }

    /// Result of one of QEMU's own commands.
    fn query(&self, command: &str, arguments: &Value) -> Result<Value, LibvirtError> {
        let action = "read the queues of the VM's virtio devices";
        let request = json!({ "execute": command, "arguments": arguments }).to_string();
        let answer = self.call(action, move |domain| domain.monitor(&request))?;
        let failed = |why: String| self.limit().error(action, LibvirtErrorKind::Other(why));
        let mut answer: Value = serde_json::from_str(&answer)
            .map_err(|error| failed(format!("QEMU's answer is not valid JSON: {error}")))?;
        match answer.get_mut("return") {
            Some(found) => Ok(found.take()),
            None => Err(failed(format!("QEMU refuses {command}: {}", plain(&answer.to_string())))),
        }
    }
}
