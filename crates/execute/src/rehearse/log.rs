//! QEMU's log of a twin on a host: the words of a QEMU that ended.

use vmgate_facts::text::plain;

use super::HostConnection;

/// Files of both hosts. The way to a shell there belongs to the command line.
pub trait HostFiles: Sync {
    /// End of QEMU's log of the domain of this name on a host; `None` if it cannot be read.
    fn log(&self, host: &HostConnection, domain: &str) -> Option<String>;

    /// Build id of a program on a host; `None` if it cannot be read.
    fn build(&self, host: &HostConnection, program: &str) -> Option<String>;
}

/// Most lines of a log that are shown.
const MOST_LINES: usize = 4;

/// The words of libvirt with those of QEMU, which libvirt does not always tell.
pub(super) fn with_words_of(libvirt: &str, log: Option<&str>) -> String {
    let own = last_start(log.unwrap_or_default()).lines().filter_map(words_of_qemu);
    let mut new: Vec<String> = own.map(plain).filter(|words| !libvirt.contains(words.as_str())).collect();
    new.dedup();
    if new.is_empty() {
        return libvirt.to_owned();
    }
    let from = new.len().saturating_sub(MOST_LINES);
    format!("{libvirt}; QEMU's log: {}", new.split_off(from).join("; "))
}

/// Words of QEMU in a line `2026-11-29T09:40:39.558517Z qemu-system-x86_64: words`.
fn words_of_qemu(line: &str) -> Option<&str> {
    let (time, rest) = line.split_once(' ')?;
    let (program, words) = rest.split_once(": ")?;
    let is_warning = words.starts_with("warning:");
    let is_qemus = time.ends_with('Z') && program.contains("qemu") && !program.contains(' ');
    // What ends a QEMU that vmgate removes says nothing about the move.
    (is_qemus && !is_warning && !words.starts_with("terminating on signal")).then_some(words)
}

/// The log from the last start of a QEMU on.
fn last_start(log: &str) -> &str {
    log.rfind("starting up libvirt version").and_then(|at| log.get(at..)).unwrap_or(log)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-11-29 09:40:39.1+0000: starting up libvirt version: 9.0.0, package: 9.0.0-4 (Debian), qemu version: 7.1.0, kernel: 6.1, hostname: a
2026-11-29T09:40:39.558517Z qemu-system-x86_64: an old fault
2026-11-29 09:41:39.1+0000: starting up libvirt version: 12.9.0, package: 12.9.0-1, qemu version: 11.1.3Debian 1:11.1.3+ds-1, kernel: 6.12, hostname: d
/usr/bin/qemu-system-x86_64 \\
-name guest=x
2026-11-29T09:41:39.6Z qemu-system-x86_64: warning: this is old
2026-11-29T09:41:39.7Z qemu-system-x86_64: VQ 0 vring.num 1024 exceeds allocated max 128
2026-11-29T09:41:39.8Z qemu-system-x86_64: load of migration failed: Operation not permitted
2026-11-29T09:41:40.1Z qemu-system-x86_64: terminating on signal 15 from pid 7
2026-11-29 09:41:40.3+0000: shutting down, reason=failed
";

    #[test]
    fn the_reason_is_what_qemu_said_since_it_was_started() {
        assert_eq!(
            with_words_of("operation failed: load of migration failed: Operation not permitted", Some(LOG)),
            "operation failed: load of migration failed: Operation not permitted; QEMU's log: VQ 0 vring.num 1024 exceeds \
             allocated max 128"
        );
        assert_eq!(with_words_of("refused", None), "refused");
    }
}
