//! Elements of a newer libvirt: each is told by its name, with the way out.

use vmgate_libvirt::domain_xml::{accounts_of_domain, place};

use crate::{rng, source};

#[test]
#[ignore = "needs libvirt's source"]
fn what_a_newer_libvirt_brought_is_told_by_name() {
    let schema = rng::read(&source::newer_schema("domain.rng"), place);
    let accounts = accounts_of_domain();
    let mut new = Vec::new();
    for (path, attributes) in &schema {
        if !path.is_empty() && accounts.element(path).is_none() {
            new.push(path.clone());
        }
        for (name, values) in attributes {
            if accounts.attribute(path, name).is_none() {
                new.push(format!("{path}/@{name}"));
            }
            let others = values.listed.iter().filter(|value| !accounts.has_value(path, name, value));
            new.extend(others.map(|value| format!("{path}/@{name}={value}")));
        }
    }
    println!("{}", new.join("\n"));
    for known_to_be_new in
        ["hwuuid", "devices/iommu/driver/@cmdqv", "devices/disk/@type=ctl", "launchSecurity/mrOwner"]
    {
        assert!(new.iter().any(|path| path == known_to_be_new), "{known_to_be_new} is not told");
    }
}
