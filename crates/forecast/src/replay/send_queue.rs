//! Model of the socket between the two QEMUs: a queue that the path empties at its goodput.
//!
//! QEMU's send returns when the bytes are queued, so QEMU measures the rate at which bytes enter the queue; bytes
//! queued when the vCPUs stop still have to travel. A sender that found the queue full is woken when a third of it is
//! free (sk_stream_write_space in Linux), which makes the bandwidth that QEMU measures jitter.

/// Send queue of one connection.
#[derive(Debug, Clone)]
pub(super) struct SendQueue {
    goodput: f64,
    queued: f64,
    capacity: f64,
}

impl SendQueue {
    pub(super) fn new(goodput: f64, capacity: f64) -> Self {
        Self { goodput: goodput.max(1.0), queued: 0.0, capacity: capacity.max(1.0) }
    }

    /// Lets time pass in which nothing is sent.
    pub(super) fn pass(&mut self, seconds: f64) {
        self.queued = (self.queued - seconds * self.goodput).max(0.0);
    }

    /// Sends bytes that took `cpu` seconds to prepare, the queue emptying meanwhile; returns the time until QEMU continues.
    pub(super) fn send(&mut self, bytes: f64, cpu: f64) -> f64 {
        self.queued = (self.queued + bytes - cpu * self.goodput).max(0.0);
        if self.queued <= self.capacity {
            return cpu;
        }
        let woken_at = self.capacity * 2.0 / 3.0;
        let waited = (self.queued - woken_at) / self.goodput;
        self.queued = woken_at;
        cpu + waited
    }

    /// Empties the queue; returns the time until all queued bytes have arrived.
    pub(super) fn drain(&mut self) -> f64 {
        let seconds = self.queued / self.goodput;
        self.queued = 0.0;
        seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_stream_goes_at_the_goodput_and_leaves_a_queue() {
        let mut link = SendQueue::new(1e6, 3e4);
        let seconds: f64 = (0..10_000).map(|_| link.send(1e3, 1e-5)).sum();
        let (sent, queued) = (1e7, link.queued);
        assert!((seconds - (sent - queued) / 1e6).abs() < 1e-4, "{seconds}");
        assert!((1.99e4..3.01e4).contains(&queued), "{queued}");
        assert!((link.drain() - queued / 1e6).abs() < 1e-12);
    }

    #[test]
    fn many_pages_at_once_take_as_long_as_one_by_one() {
        for (goodput, cpu) in [(1e6, 2e-4), (1e6, 2e-3), (1e8, 2e-5)] {
            let (mut one, mut all) = (SendQueue::new(goodput, 3e4), SendQueue::new(goodput, 3e4));
            let seconds: f64 = (0..1000).map(|_| one.send(1e3, cpu)).sum();
            let at_once = all.send(1e6, cpu * 1e3);
            assert!((seconds / at_once - 1.0).abs() < 0.02, "{seconds} {at_once}");
        }
    }

    #[test]
    fn a_slow_sender_never_waits() {
        let mut link = SendQueue::new(1e6, 3e4);
        assert!((0..1000).all(|_| (link.send(1e3, 2e-3) - 2e-3).abs() < 1e-12));
    }
}
