//! The switch: stop-and-copy, post-copy, and a guest that is paused until the rest is there.

use super::{super::run::ReplayResult, PAGE, Run};

/// Time to tell the destination one range of pages that it has to drop before post-copy (ram_postcopy_send_discard_bitmap).
const DISCARD_SECONDS: f64 = 0.27e-6;

impl Run<'_> {
    /// Stop-and-copy: the vCPUs stop, the rest is sent, the guest starts at the destination. QEMU lifts its bandwidth limit
    /// for the rest (migration_switchover_start).
    pub(super) fn complete(mut self) -> ReplayResult {
        let stopped_at = self.paused_at.unwrap_or(self.now);
        self.read_dirty_log();
        self.send_queue.pass(self.inputs.stop_seconds);
        let sending = self.send_rest() + self.send_other_state();
        let end = self.now + self.inputs.stop_seconds + sending + self.inputs.start_seconds;
        let blackout = end - stopped_at;
        let end = end + self.inputs.finish_seconds;
        self.result(true, blackout, end)
    }

    /// Post-copy: the guest continues at the destination at once, and the rest follows without a bandwidth limit: page by
    /// page in the order of the cursor, and at once what the guest touches first (in a channel of its own with postcopy-preempt).
    /// The blackout grows with the ranges of pages that the destination must drop, one for each dirty page among clean ones.
    pub(super) fn post_copy(mut self) -> ReplayResult {
        let stopped_at = self.paused_at.unwrap_or(self.now);
        self.read_dirty_log();
        let dirty = self.left() / PAGE;
        let ranges = dirty * (1.0 - dirty * PAGE / (self.guest.ram_gib * 1024.0_f64.powi(3))).max(0.0);
        let discard = ranges * DISCARD_SECONDS;
        self.send_queue.pass(self.inputs.stop_seconds + discard);
        let sending = self.send_other_state();
        let running = self.now + self.inputs.stop_seconds + discard + sending + self.inputs.start_seconds;
        let remote_bytes = self.left();
        let remote_seconds = self.send_rest();
        let end = running + remote_seconds + self.inputs.finish_seconds;
        ReplayResult { remote_bytes, remote_seconds, ..self.result(true, running - stopped_at, end) }
    }

    /// Sends all dirty pages; returns the time it took.
    fn send_rest(&mut self) -> f64 {
        let mut sending = 0.0;
        while let Some(at) = self.seek() {
            let (bytes, cpu) = self.page_cost(at);
            sending += self.send_queue.send(at.left * bytes, at.left * cpu);
            self.bytes += at.left * bytes;
            self.sent(at, at.left);
            self.cache(at.page);
        }
        sending
    }

    fn send_other_state(&mut self) -> f64 {
        let bytes = self.inputs.other_bytes;
        self.bytes += bytes;
        self.send_queue.send(bytes, 0.0) + self.send_queue.drain()
    }
}
