//! Expressions that are refused, with the place and the way out.

use super::*;

/// The first problem of an expression: message, the text under the caret, and the hint.
fn problem(text: &str) -> (String, String, String) {
    let problems = match check(text) {
        Ok((expr, _)) => panic!("{text} is accepted as {expr:?}"),
        Err(problems) => problems,
    };
    let first = problems.first().unwrap();
    let under = text.get(first.span.clone()).unwrap_or("<outside>").to_owned();
    (first.message.clone(), under, first.help.clone().unwrap_or_default())
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn wrong_expressions_are_refused_with_place_and_hint() {
    for (text, message, under, hint) in [
        (
            "vm.memry_bytes > 1",
            "`vm` has no field `memry_bytes`",
            "memry_bytes",
            "did you mean `memory_bytes`?",
        ),
        ("vn.memory_bytes > 1", "the name `vn` is not known", "vn", "did you mean `vm`?"),
        (
            "memory_bytes > 1",
            "the name `memory_bytes` is not known",
            "memory_bytes",
            "did you mean `vm.memory_bytes`?",
        ),
        ("vm.nics.mac == \"x\"", "a list of VmNic has no field `mac`", "mac", "say which item is meant"),
        ("vm.name > 3", "a text cannot be compared with a whole number", "vm.name > 3", "without quotes"),
        (
            "vm.memory_bytes > forecast.blackout_seconds.p95",
            "different units: bytes and seconds",
            "vm.memory_bytes > forecast.blackout_seconds.p95",
            "convert",
        ),
        (
            "vm.memory_bytes + vm.dirty_rate.window_seconds > 1",
            "different units: bytes and seconds",
            "vm.memory_bytes + vm.dirty_rate.window_seconds",
            "convert",
        ),
        (
            "vm.memory_bytes / path.bandwidth_bytes_per_second > vm.memory_bytes",
            "different units: seconds and bytes",
            "",
            "",
        ),
        ("vm.vcpus > source.load_ratio", "different units: a plain number and a ratio", "", ""),
        (
            "vm.job.startsWith(\"m\")",
            "`vm.job` may be absent, but is given to `startsWith` without a guard",
            "vm.job",
            "guard it: `vm.job != null",
        ),
        ("vm.huge_page_bytes > 4096", "`vm.huge_page_bytes` may be absent", "vm.huge_page_bytes", "guard"),
        (
            "vm.job != \"backup\"",
            "`vm.job` may be absent, but is compared with `!=`, which is true for an absent value, without a guard",
            "vm.job",
            "guard",
        ),
        ("vm.job == null && vm.job.startsWith(\"m\")", "`vm.job` may be absent", "vm.job", "guard"),
        ("vm.job != null || vm.job.size() > 3", "`vm.job` may be absent", "vm.job", "guard"),
        (
            "guest.udp.sockets.all(s, s.service.loss == \"lost\")",
            "`s.service` may be absent",
            "s.service",
            "guard",
        ),
        (
            "vm.state == \"runing\"",
            "this value is never \"runing\"",
            "\"runing\"",
            "did you mean \"running\"?",
        ),
        (
            "vm.state in [\"running\", \"pausd\"]",
            "this value is never \"pausd\"",
            "\"pausd\"",
            "did you mean \"paused\"?",
        ),
        (
            "vm.name != null",
            "`vm.name` is never absent, so this is always true",
            "vm.name != null",
            "unknown",
        ),
        ("has(vm.name)", "`vm.name` is never absent, so this is always true", "has(vm.name)", ""),
        (
            "vm.vcpus >= 0",
            "`vm.vcpus` is always from 0 to 4294967295, so this is always true",
            "vm.vcpus >= 0",
            "",
        ),
        ("vm.nics.size() < 0", "so this is always false", "", ""),
        ("guest.tcp.listeners.exists(l, l.port > 65535)", "so this is always false", "l.port > 65535", ""),
        ("vm.vcpus == vm.vcpus", "both sides are the same, so this is always true", "", ""),
        ("vm.persistent && vm.persistent", "both sides are the same", "vm.persistent", "remove"),
        ("1 + 1 == 2", "does not depend on any fact", "", ""),
        ("vm.qemu_version > \"8.2\"", "a version cannot be compared with a text", "", "version(\"8.2\")"),
        ("vm.qemu_version > version(\"8.x\")", "`8.x` is not a version", "\"8.x\"", "version(\"8.2\")"),
        ("now > \"2026-01-01\"", "a time cannot be compared with a text", "", "timestamp("),
        ("vm.nics.exists(n, true)", "`n` is not used", "n", "use the name"),
        ("vm.nics.exists(vm, vm.mac == \"x\")", "the name `vm` is already in use", "vm", "another name"),
        ("vm.nics.exist(n, n.link_up)", "there is no function `exist`", "exist", "did you mean `exists`?"),
        ("vm.name.size(3) > 1", "is not a valid call", "size", "writing-rules"),
        ("vm.name.matches(\"[\")", "this is not a regular expression", "\"[\"", ""),
        ("vm.name.matches(vm.name)", "the regular expression must be a text in quotes", "vm.name", ""),
        ("vm.name.matches(\"(a{1000}){1000}\")", "this is not a regular expression", "", ""),
        (
            "vm.vcpus && vm.persistent",
            "this must be true or false, but is a whole number",
            "vm.vcpus",
            "compare",
        ),
        ("!vm.name", "this must be true or false, but is a text", "vm.name", ""),
        ("vm == source", "cannot be compared", "", "compare its fields"),
        ("\"x\" in vm.name", "`in` needs a list, but this is a text", "vm.name", "contains"),
        ("3 in destination.networks", "is never in a list of texts", "", ""),
        ("{\"a\": 1}.a == 1", "an expression cannot contain a mapping", "", ""),
        ("1u == 2u", "facts have no values of this type", "1u", ""),
        ("vm.nics[\"x\"].mac == \"y\"", "is not a position in a list of VmNic", "\"x\"", ""),
        ("params.x > 1", "the rule has no parameter `x`", "x", "declare it"),
        ("vm.name + 1 == \"x\"", "`+` does not work with a text and a whole number", "", "string(x)"),
        (
            "vm.job.orValue(\"x\") == \"y\"",
            "`orValue` must follow a field that is read with `.?`",
            "vm.job",
            ".?",
        ),
        ("vm.nics.all(n, n.link_up", "the expression ends too early", "", "bracket"),
    ] {
        let (found, place, help) = problem(text);
        assert!(found.contains(message), "{text}: {found}");
        assert!(under.is_empty() || place == under, "{text}: under the caret is `{place}`");
        assert!(help.contains(hint), "{text}: {help}");
    }
}

#[test]
fn guards_make_optional_values_usable() {
    for text in [
        "vm.job != null && vm.job.startsWith(\"m\")",
        "vm.job == null || vm.job.startsWith(\"m\")",
        "!(vm.job == null) && vm.job.startsWith(\"m\")",
        "has(vm.job) && vm.job.size() > 3",
        "vm.job == null ? false : vm.job.size() > 3",
        "vm.?job.orValue(\"none\").size() > 3",
        "guest.udp.sockets.all(s, s.service == null || s.service.loss == \"lost\")",
        "guest.udp.sockets.filter(s, s.service != null).all(s, s.service.loss == \"lost\")",
        "guest.udp.sockets.all(s, s.?service.?loss.orValue(\"lost\") == \"lost\")",
        "vm.job == \"backup\"",
        "vm.job in [\"backup\", \"migration-out\"]",
        "vm.job == \"backup\" && vm.job.size() > 3",
    ] {
        if let Err(problems) = check(text) {
            panic!("{text}: {problems:?}");
        }
    }
}

#[test]
fn every_problem_of_an_expression_is_told() {
    let problems =
        check("vm.nam == \"x\" && vm.memory_bytes > vm.dirty_rate.window_seconds && vm.job.size() > 1")
            .unwrap_err();
    assert_eq!(problems.len(), 3, "{problems:?}");
}

fn template(text: &str) {
    let _ = with_stack(|| super::super::check_template(text, &mut Scope::default()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_text_makes_the_checker_panic(
        tokens in prop::collection::vec(select(vec![
            "vm", ".", "nics", "(", ")", "[", "]", "all", "n", ",", "&&", "||", "!", "==", "<", "+", "-", "*", "/", "%", "?",
            ":", "1", "1.5", "\"x\"", "'", "null", "true", "in", "{", "}", "job", "has", ".?", "orValue", "size", "\u{b5}", " ",
            "version", "matches", "filter", "map", "params", "now", "9223372036854775807", "1e400", "\\", "\n", "`",
        ]), 0..24)
    ) {
        let text = tokens.concat();
        let _ = check(&text);
        template(&format!("{{{text}}}"));
    }

    #[test]
    fn arbitrary_text_does_not_panic_either(text in "\\PC{0,60}") {
        let _ = check(&text);
        template(&text);
    }
}
