//! Results of expressions, and the facts that are named as deciding.

use super::*;

#[test]
fn known_facts_give_known_results() {
    let root = root(&known_facts());
    for (text, expected) in [
        ("vm.memory_max_bytes <= destination.memory.available_bytes", "false"),
        ("vm.memory_bytes / path.bandwidth_bytes_per_second", "34"),
        ("double(vm.memory_bytes) / 2.0 > 1.0", "true"),
        ("source.qemu_version < destination.qemu_version", "true"),
        ("destination.qemu_version >= version(\"10.0\")", "true"),
        ("vm.job == null", "true"),
        ("vm.job == \"backup\"", "false"),
        ("has(vm.cpu_model) && vm.cpu_model == \"EPYC\"", "true"),
        ("vm.huge_page_bytes != null ? vm.huge_page_bytes : 4096", "4096"),
        ("guest.tcp.connections.map(c, c.?owner.orValue(\"kernel\"))", "[\"app\", \"kernel\"]"),
        ("guest.tcp.connections.filter(c, c.owner != null).map(c, c.owner)", "[\"app\"]"),
        ("guest.tcp.connections.map(c, c.owner != null, c.owner + \"!\")", "[\"app!\"]"),
        ("guest.tcp.connections.exists_one(c, c.retransmits > 0)", "true"),
        ("vm.nics[1].mac", "\"52:54:00:00:00:02\""),
        ("vm.nics[2].mac", "unknown"),
        ("vm.vcpus / (source.cpus - 8)", "unknown"),
        ("(change.window_end != null ? change.window_end : now) - now", "12600s"),
        ("now + duration(\"10m\") > timestamp(\"2026-11-23T01:39:00Z\")", "true"),
        ("vm.name.matches(\"^web[0-9]+$\")", "true"),
        ("min(vm.vcpus, 3) + max(vm.vcpus, 9)", "12"),
        ("int(source.load_ratio * 10.0)", "5"),
        ("size(vm.name) == 4", "true"),
        ("string(vm.vcpus) + \"/\" + vm.name", "\"4/web1\""),
        ("destination.networks + [vm.name]", "[\"default\", \"br0\", \"web1\"]"),
        ("vm.nics.map(n, n.kind) == [\"bridge\", \"user\"]", "true"),
        ("-vm.vcpus % 3", "-1"),
    ] {
        assert_eq!(eval(text, &root).0, expected, "{text}");
    }
}

#[test]
fn unknown_facts_decide_only_where_nothing_else_does() {
    let mut facts = known_facts();
    facts["vm"]["persistent"] = json!({"unknown": "no answer"});
    facts["guest"] = json!({"unknown": "no agent", "cause": "no-guest-agent"});
    facts["vm"]["nics"][1]["link_up"] = json!(true);
    facts["destination"]["networks"] = json!({"unknown": "not asked"});
    let root = root(&facts);
    for (text, expected, reads) in [
        ("vm.persistent && vm.has_agent_channel", "false", vec!["vm.has_agent_channel"]),
        ("vm.has_agent_channel && vm.persistent", "false", vec!["vm.has_agent_channel"]),
        ("vm.persistent || vm.vcpus == 4", "true", vec!["vm.vcpus"]),
        ("vm.persistent && vm.vcpus == 4", "unknown", vec!["?vm.persistent"]),
        ("!vm.persistent", "unknown", vec!["?vm.persistent"]),
        ("vm.persistent ? true : true", "unknown", vec!["?vm.persistent"]),
        ("guest.tcp.connections.size() > 0", "unknown", vec!["?guest.tcp.connections"]),
        ("guest.tcp.connections.all(c, c.retransmits == 0)", "unknown", vec!["?guest.tcp.connections"]),
        ("\"br0\" in destination.networks", "unknown", vec!["?destination.networks"]),
        (
            "vm.nics.all(n, n.link_up || vm.persistent)",
            "true",
            vec!["vm.nics[0].link_up", "vm.nics[1].link_up"],
        ),
        ("vm.nics.exists(n, n.kind == \"user\")", "true", vec!["vm.nics[1].kind"]),
        ("vm.nics.all(n, n.kind == \"user\")", "false", vec!["vm.nics[0].kind"]),
        ("vm.nics.all(n, n.kind == \"user\" && vm.persistent)", "false", vec!["vm.nics[0].kind"]),
        ("vm.disks.all(d, d.read_only)", "true", vec!["vm.disks"]),
        (
            "vm.nics.filter(n, n.link_up && vm.persistent).size() > 0",
            "unknown",
            vec!["?vm.persistent", "?vm.persistent"],
        ),
        ("vm.vcpus / 0", "unknown", vec!["vm.vcpus", "!a division by zero"]),
        ("vm.vcpus / 0 == 1 || vm.vcpus == 4", "true", vec!["vm.vcpus"]),
    ] {
        let (result, paths) = eval(text, &root);
        assert_eq!(
            (result.as_str(), paths.iter().map(String::as_str).collect::<Vec<_>>()),
            (expected, reads),
            "{text}"
        );
    }
}

#[test]
fn a_rule_that_would_take_too_long_is_unknown() {
    let mut facts = known_facts();
    let nic = facts["vm"]["nics"][0].clone();
    facts["vm"]["nics"] = Json::Array(vec![nic; 4_000]);
    let root = root(&facts);
    let (result, _) =
        eval("vm.nics.map(a, a.link_up ? vm.nics + vm.nics : vm.nics).exists(l, l.size() == 1)", &root);
    assert_eq!(result, "unknown");
    let (result, paths) =
        eval("vm.nics.all(a, vm.nics.all(b, vm.nics.all(c, a.mac == b.mac || c.mac == a.mac)))", &root);
    assert_eq!(result, "unknown");
    assert!(paths.iter().any(|path| path.contains("too many steps")));
}

#[test]
fn texts_have_values_that_people_read() {
    let mut facts = known_facts();
    facts["vm"]["memory_bytes"] = json!(4_294_967_297_u64);
    facts["guest"] = json!({"unknown": "no agent"});
    let root = root(&facts);
    for (text, expected) in [
        ("{vm.memory_bytes} of {destination.memory.total_bytes}", "4 GiB of 256 GiB"),
        (
            "{vm.memory_bytes} and {vm.memory_bytes - 1}",
            "4 GiB (4294967297 bytes) and 4 GiB (4294967296 bytes)",
        ),
        ("{vm.memory_bytes / 1048576} MiB", "4096 MiB"),
        (
            "{path.bandwidth_bytes_per_second * 8 / 1000000} Mbit/s, {path.bandwidth_bytes_per_second}",
            "1000 Mbit/s, 119.2 MiB/s",
        ),
        ("{forecast.blackout_seconds.p95} s; {change.longest_blackout_seconds}", "0.6 s; 0.3 s"),
        (
            "{vm.job}, {vm.persistent}, {vm.nics.map(n, n.mac)}",
            "none, yes, 52:54:00:00:00:01, 52:54:00:00:00:02",
        ),
        ("{guest.hostname} at {now}", "HOSTNAME at 2026-11-23T01:30:00Z"),
        ("${{x}} {\"}\" + vm.name}", "${x} }web1"),
        ("{vm.job != null ? vm.job : 3} {destination.load_ratio}", "3 1.5"),
    ] {
        let (template, slots) = with_stack(|| {
            let mut scope = Scope::default();
            let template =
                super::super::check_template(text, &mut scope).unwrap_or_else(|e| panic!("{text}: {e:?}"));
            (template, scope.next_slot)
        })
        .unwrap();
        let mut evaluator = Evaluator::new(&root);
        evaluator.start_rule(&[], [], slots, None);
        assert_eq!(template.render(&mut evaluator), expected, "{text}");
    }
}

#[test]
fn a_long_list_is_looked_up_with_the_results_of_reading_each_item() {
    let of_length = |length: usize| {
        let mut facts = known_facts();
        let nic = |at: usize| {
            json!({"mac": format!("{at}"), "kind": "bridge", "tap": null, "model": null, "link_up": at != 7,
                "source": match at { 3 => Json::Null, _ => json!(format!("br{}", at % 5)) }})
        };
        facts["vm"]["nics"] = (0..length).map(nic).collect();
        root(&facts)
    };
    // Comparisons of the first are looked up, those of the second, which says the same, are not.
    let alike = [
        ("vm.nics.exists(n, n.mac == \"KEY\")", "vm.nics.exists(n, !(n.mac != \"KEY\"))"),
        (
            "vm.nics.exists(n, \"br1\" == n.source && n.mac == \"KEY\")",
            "vm.nics.exists(n, !(n.mac != \"KEY\") && n.source != null && n.source in [\"br1\"])",
        ),
        ("vm.nics.all(n, n.mac != \"KEY\" || n.link_up)", "vm.nics.all(n, !(n.mac == \"KEY\") || n.link_up)"),
        (
            "vm.nics.filter(n, n.source == \"brKEY\").size()",
            "vm.nics.filter(n, n.source != null && n.source in [\"brKEY\"]).size()",
        ),
        (
            "vm.nics.map(n, n.source == null || n.source == \"br4\", n.mac).size()",
            "vm.nics.filter(n, !(n.source != null && n.source != \"br4\")).size()",
        ),
        ("vm.nics.map(n, n.mac == \"KEY\", n.link_up)", "vm.nics.map(n, !(n.mac != \"KEY\"), n.link_up)"),
        (
            "vm.nics.exists_one(n, n.source == \"brKEY\")",
            "vm.nics.exists_one(n, n.source != null && n.source in [\"brKEY\"])",
        ),
    ];
    for length in [2, 300] {
        let root = of_length(length);
        for (looked_up, read) in alike {
            for key in ["0", "1", "4", "7", "9", "299", "300"] {
                let result = |text: &str| eval(&text.replace("KEY", key), &root).0;
                assert_eq!(result(looked_up), result(read), "{looked_up} of {length}, {key}");
            }
        }
    }
    let (_, reads) = eval("vm.nics.exists(n, n.mac == \"299\" && !n.link_up)", &of_length(300));
    assert_eq!(reads, ["vm.nics", "vm.nics[299].link_up"]);
    let (_, reads) = eval("vm.nics.exists(n, n.mac == \"299\" && n.link_up)", &of_length(300));
    assert_eq!(reads, ["vm.nics[299].mac", "vm.nics[299].link_up"]);
}

#[test]
fn steps_of_a_look_up_grow_with_the_lists_and_not_with_their_product() {
    let mut facts = known_facts();
    let nic = facts["vm"]["nics"][0].clone();
    let numbered = (0..20_000).map(|at| {
        let mut nic = nic.clone();
        nic["mac"] = json!(at.to_string());
        nic
    });
    facts["vm"]["nics"] = numbered.collect();
    let (result, _) = eval("vm.nics.all(a, vm.nics.exists(b, b.mac == a.mac))", &root(&facts));
    assert_eq!(result, "true");
}
