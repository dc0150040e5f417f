//! Kernel bypass in the guest: RDMA devices, devices driven from user space (DPDK), users of huge pages.
//!
//! Listing a folder takes a shell: the guest agent only reads files.

use vmgate_facts::{Cause, Fact, HugePageProcess, KernelBypass, Process, Unknown, UserSpaceDevice};

use crate::guest::ask::{Answers, Question, safe_word};

// `echo` at the end: an empty list is an answer too.
const RDMA: &str = "ls /sys/class/infiniband 2>/dev/null; echo end";
const DRIVERS: &str = "cd /sys/bus/pci/drivers && for d in vfio-pci uio_pci_generic igb_uio; do for a in $d/0*; do echo $a; done; done; echo end";
const HUGE: &str = "cd /proc && grep -H HugetlbPages [0-9]*/status | grep -v ' 0 kB'; echo end";

/// Most lines taken of each.
const MOST: usize = 1000;

pub(super) fn questions() -> impl Iterator<Item = Question> {
    [RDMA, DRIVERS, HUGE].into_iter().map(|command| Question::Command(command.to_owned()))
}

pub(super) fn facts(answers: &Answers, processes: &Fact<Vec<Process>>) -> KernelBypass {
    let name = |pid: u32| {
        let found =
            processes.known().and_then(|processes| processes.iter().find(|process| process.pid == pid));
        found.map(|process| process.name.clone()).unwrap_or_default()
    };
    let huge = lines(answers, HUGE, |line| {
        let (path, value) = line.split_once(':')?;
        let pid = path.strip_suffix("/status")?.parse().ok()?;
        let kilobytes: u64 = value.strip_prefix("HugetlbPages:")?.trim().strip_suffix(" kB")?.parse().ok()?;
        let huge_pages_bytes = kilobytes.checked_mul(1024).filter(|bytes| *bytes > 0)?;
        Some(HugePageProcess { pid, name: name(pid), huge_pages_bytes })
    });
    KernelBypass {
        rdma_devices: lines(answers, RDMA, |line| safe_word(line).then(|| line.to_owned())),
        user_space_devices: lines(answers, DRIVERS, |line| {
            let (driver, address) = line.split_once('/')?;
            let is_driver = ["vfio-pci", "uio_pci_generic", "igb_uio"].contains(&driver);
            let is_address = (7..=16).contains(&address.len())
                && address.chars().all(|c| c.is_ascii_hexdigit() || ":.".contains(c));
            (is_driver && is_address)
                .then(|| UserSpaceDevice { address: address.to_owned(), driver: driver.to_owned() })
        }),
        huge_page_processes: huge.map(|mut processes| {
            processes.sort_by_key(|process| (std::cmp::Reverse(process.huge_pages_bytes), process.pid));
            processes
        }),
    }
}

/// The parsed lines of an answer; lines that do not parse come from the shell and are skipped.
fn lines<T>(answers: &Answers, command: &str, read: impl Fn(&str) -> Option<T>) -> Fact<Vec<T>> {
    let answer = answers.get(&Question::Command(command.to_owned())).cloned();
    let text =
        answer.unwrap_or_else(|| Err(Unknown::new(Cause::NotCollected, "no command was run in the guest")));
    text.map(|text| {
        let text = String::from_utf8_lossy(&text);
        text.lines().take(MOST).map(str::trim).filter(|line| *line != "end").filter_map(read).collect()
    })
    .into()
}

#[cfg(test)]
mod tests {
    use crate::guest::kernel_bypass::*;

    fn bypass(rdma: &str, drivers: &str, huge: &str) -> KernelBypass {
        let answers = [(RDMA, rdma), (DRIVERS, drivers), (HUGE, huge)]
            .map(|(command, text)| (Question::Command(command.to_owned()), Ok(text.as_bytes().to_vec())));
        facts(&answers.into_iter().collect(), &Fact::Known(Vec::new()))
    }

    #[test]
    fn devices_and_users_of_huge_pages_are_listed() {
        let found = bypass(
            "mlx5_0\nmlx5_1\nend\n",
            "vfio-pci/0000:05:00.0\nuio_pci_generic/0*\nend\n",
            "812/status:HugetlbPages:\t    2048 kB\n9/status:HugetlbPages:\t 1048576 kB\nend\n",
        );
        assert_eq!(found.rdma_devices, Fact::Known(vec!["mlx5_0".to_owned(), "mlx5_1".to_owned()]));
        let device = UserSpaceDevice { address: "0000:05:00.0".into(), driver: "vfio-pci".into() };
        assert_eq!(found.user_space_devices, Fact::Known(vec![device]));
        let huge = found.huge_page_processes.known().unwrap();
        assert_eq!((huge[0].pid, huge[0].huge_pages_bytes, huge.len()), (9, 1 << 30, 2));
        let evil =
            bypass("\u{1b}[2J\n$(id)\n", "a\n/\nvfio-pci/\u{202e}\n", ":\nx/status:HugetlbPages: 1 kB\n");
        assert_eq!((evil.rdma_devices, evil.user_space_devices), (Fact::Known(vec![]), Fact::Known(vec![])));
    }

    #[test]
    fn without_a_shell_nothing_is_claimed() {
        let found = facts(&Answers::new(), &Fact::default());
        assert!(found.rdma_devices.known().is_none() && found.huge_page_processes.known().is_none());
    }
}
