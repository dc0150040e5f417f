//! The process that drives a run, and the check if that process still runs.

use std::fs;

use vmgate_ledger::entry::Driver;

/// State of the process that drives a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DriverState {
    /// The process runs.
    Alive,
    /// The process has ended.
    Gone,
    /// The process was started on another machine, which cannot be checked from here.
    Elsewhere,
}

/// Identity of this process.
pub(super) fn this_process() -> Driver {
    let pid = std::process::id();
    Driver { machine: machine(), boot: boot(), pid, started_ticks: started_ticks(pid).unwrap_or(0) }
}

/// State of the process that began a run.
pub(super) fn driver_state(driver: &Driver) -> DriverState {
    if driver.machine != machine() {
        DriverState::Elsewhere
    } else if driver.boot == boot() && started_ticks(driver.pid) == Some(driver.started_ticks) {
        DriverState::Alive
    } else {
        DriverState::Gone
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
        let me = this_process();
        assert!(me.started_ticks > 0);
        assert_eq!(driver_state(&me), DriverState::Alive);
        assert_eq!(
            driver_state(&Driver { started_ticks: me.started_ticks + 1, ..me.clone() }),
            DriverState::Gone
        );
        assert_eq!(driver_state(&Driver { boot: "another".to_owned(), ..me.clone() }), DriverState::Gone);
        assert_eq!(driver_state(&Driver { machine: "another".to_owned(), ..me }), DriverState::Elsewhere);
    }

    #[test]
    fn a_child_that_ended_is_gone_even_before_it_is_waited_for() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let mut driver = Driver { pid: child.id(), ..this_process() };
        driver.started_ticks = started_ticks(driver.pid).unwrap_or(1);
        for _ in 0..200 {
            if driver_state(&driver) == DriverState::Gone {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert_eq!(driver_state(&driver), DriverState::Gone);
        child.wait().unwrap();
    }
}
