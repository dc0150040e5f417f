//! Queues of a VM's virtio devices, as QEMU's monitor tells them.

use serde_json::{Value, json};
use vmgate_facts::{VirtioQueues, text::plain};

use super::{
    Domain,
    error::{LibvirtError, LibvirtErrorKind},
};

/// Most devices that are asked about.
const MOST_DEVICES: usize = 64;

/// Most queues of a device (VIRTIO_QUEUE_MAX).
const MOST_QUEUES: u32 = 1024;

/// Beginning of QEMU's words where a device has no such queue (qmp_x_query_virtio_queue_status).
const NO_SUCH_QUEUE: &str = "Invalid virtqueue number";

const ACTION: &str = "read the queues of the VM's virtio devices";

impl Domain {
    /// Sizes of the first and the last queue of every virtio device (x-query-virtio, since QEMU 7.2). Asks QEMU's monitor, for
    /// which libvirt marks the domain as tainted (custom-monitor).
    ///
    /// Never asks x-query-virtio-status, which would tell the number of queues: QEMU 11.1.3 ends with a failed assertion in it
    /// (visit_start_struct), and the guest with it.
    pub fn virtio_queues(&self) -> Result<Vec<VirtioQueues>, LibvirtError> {
        let devices = self.ask("x-query-virtio", &json!({}))?.map_err(|words| self.refused(&words))?;
        let listed = devices.as_array().into_iter().flatten().take(MOST_DEVICES);
        listed
            .filter_map(|device| Some((device.get("path")?.as_str()?, device.get("name")?.as_str()?)))
            .map(|(path, name)| {
                let sizes = ends(|queue| self.queue_size(path, queue))?;
                Ok(VirtioQueues { device: plain(path), name: plain(name), sizes })
            })
            .collect()
    }

    /// Size of a queue; none where the device has no queue of this number.
    fn queue_size(&self, path: &str, queue: u32) -> Result<Option<u32>, LibvirtError> {
        match self.ask("x-query-virtio-queue-status", &json!({ "path": path, "queue": queue }))? {
            Ok(status) => {
                let size = status.get("vring-num").and_then(Value::as_u64);
                size.and_then(|size| u32::try_from(size).ok())
                    .map(Some)
                    .ok_or_else(|| self.refused("its answer has no vring-num"))
            }
            Err(words) if words.contains(NO_SUCH_QUEUE) => Ok(None),
            Err(words) => Err(self.refused(&words)),
        }
    }

    /// Result of one of QEMU's own commands, or its words of refusal.
    fn ask(&self, command: &str, arguments: &Value) -> Result<Result<Value, String>, LibvirtError> {
        let request = json!({ "execute": command, "arguments": arguments }).to_string();
        let answer = self.call(ACTION, move |domain| domain.monitor(&request))?;
        let mut answer: Value = serde_json::from_str(&answer)
            .map_err(|error| self.refused(&format!("its answer is not valid JSON: {error}")))?;
        Ok(match answer.get_mut("return") {
            Some(found) => Ok(found.take()),
            None => Err(plain(&answer.to_string())),
        })
    }

    fn refused(&self, words: &str) -> LibvirtError {
        self.limit().error(ACTION, LibvirtErrorKind::Other(format!("QEMU: {words}")))
    }
}

/// Sizes of the first and the last of a device's queues, which are numbered without gaps. Asks as seldom as it can.
fn ends<E>(mut size_of: impl FnMut(u32) -> Result<Option<u32>, E>) -> Result<Vec<u32>, E> {
    let Some(first) = size_of(0)? else { return Ok(Vec::new()) };
    // The queue `last` exists, and `none` does not.
    let (mut last, mut size, mut none) = (0, first, 1);
    while none < MOST_QUEUES
        && let Some(found) = size_of(none)?
    {
        (last, size, none) = (none, found, none * 2);
    }
    while none - last > 1 {
        let middle = last + (none - last) / 2;
        match size_of(middle)? {
            Some(found) => (last, size) = (middle, found),
            None => none = middle,
        }
    }
    Ok(if last == 0 { vec![first] } else { vec![first, size] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_queue_is_found_with_few_questions() {
        for count in [0, 1, 2, 3, 5, 17, 64, 1023, 1024_u32] {
            let mut asked = 0;
            let sizes = ends(|queue| {
                asked += 1;
                Ok::<_, ()>((queue < count).then_some(if queue == 0 { 256 } else { queue }))
            });
            let expected = match count {
                0 => Vec::new(),
                1 => vec![256],
                _ => vec![256, count - 1],
            };
            assert_eq!(sizes.unwrap(), expected, "{count}");
            assert!(asked < 23, "{asked} questions for {count}");
        }
        assert_eq!(ends(|_| Err(())), Err(()));
    }
}
