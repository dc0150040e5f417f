use super::*;

const WHOLE: &str = "schema: vmgate/inventory/v1
networks:
  - {name: mig, bandwidth_bytes_per_second: 5000000000}
pools:
  - {name: compute, vcpus_per_cpu: 4.0, reserve_bytes: 1073741824}
  - {name: spare}
limits: {outgoing_per_host: 2, total: 10}
after_maintenance: {qemu_version: '10.0.13'}
hosts:
  - {name: hv1, uri: 'qemu+ssh://hv1/system', rack: r1, pool: compute, networks: [mig], migrate_address: 10.77.1.1}
  - {name: hv2, uri: 'qemu+ssh://hv2/system', rack: r1, pool: compute, networks: [mig]}
  - {name: hv3, uri: 'qemu+ssh://hv3/system', pool: spare, maintenance: new disks}
groups:
  - {name: galera, vms: [db1, db2, db3], apart: host, one_at_a_time: true}
  - {name: pair, vms: [app1, cache1], together: host}
";

fn parse(text: &str) -> Result<Inventory, Problems> {
    Inventory::parse("site.yaml", text.as_bytes())
}

#[test]
fn hosts_are_named_by_themselves_by_pool_and_by_rack() {
    let inventory = parse(WHOLE).unwrap();
    assert_eq!(inventory.limits, Limits { outgoing_per_host: 2, incoming_per_host: 1, total: 10 });
    assert_eq!(inventory.hosts[2].rack, "hv3");
    assert_eq!(inventory.groups[0].rule, Some((AffinityRule::Apart, GroupScope::Host)));
    let select =
        |names: &[&str]| inventory.select(&names.iter().map(|&name| name.into()).collect::<Vec<_>>());
    assert_eq!(select(&["spare", "hv1"]), Ok(vec![0, 2]));
    assert_eq!(select(&["r1"]), Ok(vec![0, 1]));
    assert_eq!(select(&["compute", "hv2"]), Ok(vec![0, 1]));
    let error = select(&["compuet"]).unwrap_err().to_string();
    assert_eq!(error, "site.yaml has no host, pool or rack `compuet`; did you mean `compute`?");
}

#[test]
fn all_problems_come_together_each_with_its_place() {
    let text = "schema: vmgate/inventory/v1
pools:
  - {name: compute, vcpus_per_cpu: 0}
hosts:
  - {name: hv1, uri: 'qemu+ssh://hv1/system', pool: compuet}
  - {name: hv1, uri: 'qemu+ssh://hv1/system', networks: [mig]}
  - {name: compute, uri: hv3}
limits: {total: 0}
groups:
  - {name: a, vms: [x, y]}
  - {name: b, vms: [x], apart: host, together: host}
  - {name: c, vms: [x, x], apart: shelf}
";
    let problems = parse(text).unwrap_err().problems;
    let found: Vec<String> = problems
        .iter()
        .map(|problem| format!("{}: {}", problem.position().map_or(0, |(line, _)| line), problem.message()))
        .collect();
    for (line, part) in [
        (3, "`vcpus_per_cpu` must be above 0"),
        (5, "there is no pool `compuet`"),
        (6, "the host `hv1` is listed twice"),
        (6, "the URI `qemu+ssh://hv1/system` is listed twice"),
        (6, "there is no network `mig`"),
        (7, "`compute` is also the name of a pool"),
        (7, "is not a libvirt URI"),
        (8, "`limits.total`"),
        (10, "has no effect on its VMs"),
        (11, "at least two VMs"),
        (11, "both `together` and `apart`"),
        (12, "`x` is in the group twice"),
        (12, "`shelf` is not an allowed value"),
    ] {
        let place = format!("{line}: ");
        assert!(
            found.iter().any(|problem| problem.starts_with(&place) && problem.contains(part)),
            "{line}: {part} is missing in {found:#?}"
        );
    }
    let unknown = problems.iter().find(|problem| problem.message().contains("compuet")).unwrap();
    assert_eq!(unknown.hint(), Some("did you mean `compute`?"));
}

#[test]
fn a_circle_of_groups_is_named_with_all_that_are_in_it() {
    let groups = |third: &str| {
        let head = WHOLE.split("groups:").next().unwrap();
        format!(
            "{head}groups:\n  - {{name: a, vms: [x, y], together: host}}\n  - {{name: b, vms: [y, z], together: rack}}\n  - {third}\n"
        )
    };
    let error = parse(&groups("{name: c, vms: [z, x], apart: rack}")).unwrap_err();
    assert_eq!(error.problems.len(), 1);
    assert!(error.problems[0].message().contains("`z` and `x` must be both apart and together"), "{error}");
    assert!(error.problems[0].hint().unwrap().contains("`b`, `a` keep them together"), "{error}");
    // One rack has many hosts: being in one rack is no reason to be on one host.
    assert!(parse(&groups("{name: c, vms: [z, x], apart: host}")).is_ok());
    assert!(parse(&groups("{name: c, vms: [y, x], apart: host}")).is_err());
}

#[test]
fn what_is_no_inventory_is_refused_and_nothing_panics() {
    for text in
        ["", "[]", "schema: vmgate/inventory/v1\nhosts: []", "schema: vmgate/inventory/v1\nhosts: [[], 3]"]
    {
        assert!(parse(text).is_err(), "{text}");
    }
}
