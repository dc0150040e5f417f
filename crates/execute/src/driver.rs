//! Which process drives a run, and whether it still does.

use std::fs;

use vmgate_ledger::entry::Driver;

/// Whether a driver is still at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// It runs.
    Alive,
    /// It is gone.
    Gone,
    /// It ran on another machine, which cannot be asked.
    Elsewhere,
}

/// This process.
pub(super) fn myself() -> Driver {
    let pid = std::process::id();
    Driver { machine: machine(), boot: boot(), pid, started_ticks: started_ticks(pid).unwrap_or(0) }
}

/// Whether the process that began a run still runs.
pub(super) fn life(driver: &Driver) -> Life {
    if driver.machine != machine() {
        Life::Elsewhere
    } else if driver.boot == boot() && started_ticks(driver.pid) == Some(driver.started_ticks) {
        Life::Alive
    } else {
        Life::Gone
    }
}

fn machine() -> String {
    read("/proc/sys/kernel/hostname")
}

fn boot() -> String {
    read("/proc/sys/kernel/random/boot_id")
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// Field 22 of /proc/PID/stat (proc_pid_stat(5)), counted from behind the name, which may hold anything. A process
/// that has ended and was not waited for does not run.
fn started_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_lives_and_others_with_its_number_do_not() {
        let me = myself();
        assert!(me.started_ticks > 0);
        assert_eq!(life(&me), Life::Alive);
        assert_eq!(life(&Driver { started_ticks: me.started_ticks + 1, ..me.clone() }), Life::Gone);
        assert_eq!(life(&Driver { boot: "another".to_owned(), ..me.clone() }), Life::Gone);
        assert_eq!(life(&Driver { machine: "another".to_owned(), ..me }), Life::Elsewhere);
    }

    #[test]
    fn a_child_that_ended_is_gone_even_before_it_is_waited_for() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let mut driver = Driver { pid: child.id(), ..myself() };
        driver.started_ticks = started_ticks(driver.pid).unwrap_or(1);
        for _ in 0..200 {
            if life(&driver) == Life::Gone {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert_eq!(life(&driver), Life::Gone);
        child.wait().unwrap();
    }
}
