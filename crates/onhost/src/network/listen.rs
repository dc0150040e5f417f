//! Listening to a guest during its move, from the bridge of the source host: the guest is asked by ARP, fifty times a second
//! and by its hardware address alone, as any neighbour may do.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use vmgate_facts::HeardGuest;
use vmgate_probe::listen::Listener;

use super::Ended;

/// Time between two questions.
const EVERY: Duration = Duration::from_millis(20);

/// Longest time after the input's end.
const MOST_PATIENCE_SECONDS: f64 = 300.0;

/// Asks and listens until the input has ended and the guest is heard, or has not been for the patience.
pub(super) fn listen(
    bridge: &str,
    mac: &str,
    addresses: &[Ipv4Addr],
    patience_seconds: f64,
    ended: &Ended,
) -> Result<HeardGuest, String> {
    let failed = |error: std::io::Error| format!("bridge {bridge} cannot be listened to: {error}");
    let mut listener = Listener::on(bridge, mac).map_err(failed)?;
    let patience = Duration::from_secs_f64(patience_seconds.clamp(0.0, MOST_PATIENCE_SECONDS));
    let mut ended_at = None::<Instant>;
    loop {
        if ended.is_set() {
            let since = *ended_at.get_or_insert_with(Instant::now);
            if since.elapsed() >= patience || !listener.is_waiting(5 * EVERY) {
                return Ok(listener.heard());
            }
        }
        listener.ask(addresses).map_err(failed)?;
        listener.hear(EVERY).map_err(failed)?;
    }
}
