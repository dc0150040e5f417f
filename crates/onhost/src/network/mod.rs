//! Orders about a guest's network ([`NetworkOrder`]): the one part of this program, besides the hook, that changes a host, and
//! only by an interface that ends with its process. No library holds it, so that nobody can do this but by an order.

mod frame;
mod listen;
mod rehearse;
mod station;

use std::{
    io::{self, BufRead, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use vmgate_facts::NetworkOrder;

/// Largest order, in bytes.
const ORDER_LIMIT: u64 = 1 << 16;

/// A flag that is set when standard input ends: whoever gave the order is done, or gone.
#[derive(Clone, Default)]
struct Ended(Arc<AtomicBool>);

impl Ended {
    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Reads an order from the first line of `input`, carries it out until it is done or the input ends, and writes the answer.
pub(super) fn serve(input: impl Read + Send + 'static, mut output: impl Write) -> Result<(), String> {
    let mut input = io::BufReader::new(input);
    let mut line = String::new();
    let unread = |error: io::Error| format!("the order cannot be read from standard input: {error}");
    input.by_ref().take(ORDER_LIMIT).read_line(&mut line).map_err(unread)?;
    let order: NetworkOrder =
        serde_json::from_str(&line).map_err(|error| format!("standard input holds no order: {error}"))?;
    let ended = Ended::default();
    let flag = ended.clone();
    thread::spawn(move || {
        let _ = io::copy(&mut input, &mut io::sink());
        flag.0.store(true, Ordering::Relaxed);
    });
    let answer = match order {
        NetworkOrder::Rehearse { role, port, session, limit_seconds } => {
            let rehearsal = rehearse::Rehearsal::new(&port, session, limit_seconds, &ended);
            serde_json::to_string(&rehearsal.play(role)?)
        }
        NetworkOrder::Listen { bridge, mac, addresses, patience_seconds } => {
            serde_json::to_string(&listen::listen(&bridge, &mac, &addresses, patience_seconds, &ended)?)
        }
    };
    let answer = answer.map_err(|error| error.to_string())?;
    writeln!(output, "{answer}").map_err(|error| format!("the answer cannot be written: {error}"))
}
