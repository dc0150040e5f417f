//! Check of a VM's configuration by a hypervisor, which starts nothing: libvirt reads it as it would that of a migration, and makes
//! QEMU's command line of it (virConnectDomainXMLToNative).

use virt::{error::Error, sys};
use vmgate_facts::Version;

use super::{Hypervisor, LibvirtError, cpu::replaced, domain_xml::child};

/// Options that QEMU no longer has, and the version that removed them (docs/about/removed-features.rst). A libvirt that is much
/// older than its QEMU still gives them, and QEMU then ends at once.
const REMOVED_OPTIONS: [(&str, &str); 9] = [
    ("-no-kvm-irqchip", "3.0"),
    ("-realtime", "6.0"),
    ("-tb-size", "6.0"),
    ("-soundhw", "7.1"),
    ("-enable-fips", "7.1"),
    ("-no-acpi", "9.0"),
    ("-no-hpet", "9.0"),
    ("-singlestep", "9.0"),
    ("-async-teardown", "9.0"),
];

impl Hypervisor {
    /// Words with which libvirt or QEMU refuses a domain's configuration; none if libvirt would start the domain. An error is no
    /// refusal: the check itself could not be made.
    pub fn configuration_refused(&self, xml: &str) -> Result<Option<String>, LibvirtError> {
        let xml = without_cpu_check(xml);
        self.call("check the VM's configuration", move |session| {
            let connect = session.connect();
            match connect.domain_xml_to_native("qemu-argv", &xml, 0) {
                Ok(command) => {
                    let qemu = Version::from_libvirt(connect.hyp_version()?);
                    Ok(removed_option(&command, &qemu).or_else(|| iommu_without_kvm(&command, &qemu)))
                }
                Err(error) if is_refusal(&error) => Ok(Some(error.message().to_owned())),
                Err(error) => Err(error),
            }
        })
    }
}

/// The configuration with a CPU that is not compared with the host's: a migration sends the CPU that the guest got beside what was asked
/// for, and libvirt compares the former alone ([`Hypervisor::compare_cpu`]).
fn without_cpu_check(xml: &str) -> String {
    let Ok(document) = vmgate_facts::xml::parse(xml) else { return xml.to_owned() };
    let check = child(document.root_element(), "cpu").and_then(|cpu| cpu.attribute_node("check"));
    replaced(xml, check.map(|check| (check.range_value(), "none")).into_iter().collect())
}

/// True if the error is libvirt's word on the configuration, and not on the connection, the caller's rights or the function itself.
/// libvirt words many of its refusals as internal errors, so that they cannot be listed.
fn is_refusal(error: &Error) -> bool {
    let of_the_way = [
        sys::VIR_FROM_RPC,
        sys::VIR_FROM_REMOTE,
        sys::VIR_FROM_STREAMS,
        sys::VIR_FROM_AUTH,
        sys::VIR_FROM_ACCESS,
        sys::VIR_FROM_POLKIT,
    ];
    let of_the_call = [
        sys::VIR_ERR_NO_MEMORY,
        sys::VIR_ERR_NO_SUPPORT,
        sys::VIR_ERR_NO_CONNECT,
        sys::VIR_ERR_INVALID_CONN,
        sys::VIR_ERR_INVALID_ARG,
        sys::VIR_ERR_OPERATION_DENIED,
        sys::VIR_ERR_ACCESS_DENIED,
        sys::VIR_ERR_AUTH_FAILED,
        sys::VIR_ERR_RPC,
        sys::VIR_ERR_OPERATION_TIMEOUT,
        sys::VIR_ERR_CALL_FAILED,
    ];
    !of_the_way.contains(&error.domain().to_raw()) && !of_the_call.contains(&error.code().to_raw())
}

/// Refusal of a QEMU of this version that libvirt gives an option that it no longer has.
fn removed_option(command: &str, qemu: &Version) -> Option<String> {
    let given = |option: &str| command.split_ascii_whitespace().any(|word| word == option);
    let removed = REMOVED_OPTIONS.iter().find(|(option, since)| {
        since.parse::<Version>().is_ok_and(|since| *qemu >= since) && given(option)
    })?;
    let (option, since) = removed;
    Some(format!(
        "this libvirt gives QEMU the option {option}, which QEMU has not had since {since} ({option}: invalid option)"
    ))
}

/// Refusal of an Intel IOMMU with extended interrupts by an emulating QEMU before 9.0 (vtd_decide_config), of which libvirt does not know.
fn iommu_without_kvm(command: &str, qemu: &Version) -> Option<String> {
    let older = "9.0".parse::<Version>().is_ok_and(|since| *qemu < since);
    let mut devices = command.lines().flat_map(|line| line.split(" -device "));
    let extended = devices.any(|device| device.contains("intel-iommu") && device.contains(r#""eim":"on""#));
    (older && extended && command.contains("-accel tcg")).then(|| {
        format!("QEMU {qemu} emulates no Intel IOMMU with extended interrupts (eim=on requires accel=kvm,kernel-irqchip=split)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_that_was_asked_for_is_not_checked() {
        let domain = |check: &str| {
            format!(
                "<domain><name>a</name><cpu mode='custom'{check}><model>486</model></cpu><vcpu>1</vcpu></domain>"
            )
        };
        assert_eq!(without_cpu_check(&domain(" check='partial'")), domain(" check='none'"));
        assert_eq!(without_cpu_check(&domain("")), domain(""));
        assert_eq!(without_cpu_check("<domain/>"), "<domain/>");
    }

    #[test]
    fn an_emulated_iommu_with_extended_interrupts_is_refused_by_an_old_qemu() {
        let command = r#"qemu -accel tcg -device '{"driver":"intel-iommu","id":"iommu0","intremap":"on","eim":"on"}' -msg x"#;
        let refused =
            |command: &str, version: &str| iommu_without_kvm(command, &version.parse().unwrap()).is_some();
        assert!(refused(command, "7.2.22"));
        assert!(!refused(command, "9.0.0"));
        assert!(!refused(&command.replace("tcg", "kvm"), "7.2.22"));
        assert!(!refused(&command.replace(r#","eim":"on""#, ""), "7.2.22"));
    }

    #[test]
    fn an_option_that_qemu_lost_is_a_refusal() {
        let command = "LC_ALL=C \\\n/usr/bin/qemu-system-x86_64 \\\n-name guest=a \\\n-soundhw pcspk \\\n-msg timestamp=on";
        let refused = |version: &str| removed_option(command, &version.parse().unwrap());
        assert_eq!(refused("7.0.0"), None);
        assert!(refused("7.1.0").unwrap().contains("-soundhw: invalid option"));
        assert_eq!(removed_option("qemu -name guest=-soundhw,x", &"10.0".parse().unwrap()), None);
    }
}
