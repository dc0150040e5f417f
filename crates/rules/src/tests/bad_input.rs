//! Tests of bad files: each gives a clear error with its place, never a panic, never silence.

use super::*;

#[test]
fn all_problems_of_all_files_come_back_together() {
    let first = FITS
        .replace("vm.memory_max_bytes +", "vm.memry_max_bytes +")
        .replace("severity: high", "severity: hihg");
    let second = FITS
        .replace("id: memory-fits", "id: other")
        .replace("step: prepare\n", "")
        .replace("message: the VM", "mesage: the VM");
    let (_dir, source) = folder(&[("a.yaml", &first), ("b.yaml", &second), ("c.yaml", "")]);
    let errors = Pack::load(&[source]).unwrap_err();
    let found: Vec<(&str, Option<(usize, usize)>)> =
        errors.problems.iter().map(|problem| (problem.message(), problem.position())).collect();
    assert_eq!(
        found,
        [
            ("`severity`: `hihg` is not an allowed value", Some((5, 11))),
            ("`vm` has no field `memry_max_bytes`", Some((7, 50))),
            ("`step` is missing", Some((1, 1))),
            ("`message` is missing", Some((1, 1))),
            ("`mesage`: there is no such field", Some((7, 1))),
            ("is empty", None),
        ]
    );
    assert!(errors.to_string().ends_with("6 problems"));
}

#[test]
fn an_error_looks_like_one_of_the_compiler() {
    let text = refusal("vm.memory_max_bytes +", "vm.memry_max_bytes +");
    let expected = "
  |
7 | assert: destination.memory.available_bytes >= vm.memry_max_bytes + params.spare_bytes
  |                                                  ^^^^^^^^^^^^^^^ no such field
  |
  = help: did you mean `memory_max_bytes`?";
    assert!(text.starts_with("error: `vm` has no field `memry_max_bytes`\n --> "), "{text}");
    assert!(text.contains(expected), "{text}");
}

#[test]
fn rules_that_cannot_be_right_are_refused() {
    for (old, new, message) in [
        ("schema: vmgate/rule/v1", "schema: vmgate/rule/v9", "`vmgate/rule/v9` is not an allowed value"),
        ("id: memory-fits", "id: Memory_fits", "`Memory_fits` is not a valid rule id"),
        ("tags: [memory]", "tag: [memory]", "did you mean `tags`?"),
        ("tags: [memory]", "tags: memory", "expected a list of texts"),
        ("tags: [memory]", "when: \"true\"", "does not depend on any fact"),
        ("tags: [memory]", "max_age: -1", "`max_age` must be more than 0 seconds"),
        ("tags: [memory]", "subject: \"{vm.name}\"", "the rule has a `subject` but no `foreach`"),
        ("tags: [memory]", "foreach: {n: vm.nics}", "the rule has a `foreach` but no `subject`"),
        ("tags: [memory]", "foreach: {n: vm.nics}\nsubject: x", "the variable `n` is not used"),
        (
            "tags: [memory]",
            "foreach: {n: vm.name}\nsubject: \"{n}\"",
            "`foreach` needs a list, but this is a text",
        ),
        (
            "tags: [memory]",
            "foreach: {vm: vm.nics}\nsubject: \"{vm.mac}\"",
            "the name `vm` is already in use",
        ),
        (
            "tags: [memory]",
            "foreach: {n: vm.nics}\nsubject: \"{n.mac}\"\nwhen: n.link_up",
            "`n` cannot be used here",
        ),
        ("tags: [memory]", "let: {a: vm.vcpus + 1}", "the let `a` is not used"),
        (
            "tags: [memory]",
            "let: {a_bytes: vm.dirty_rate.window_seconds}\nwhen: a_bytes > 1.0",
            "the name of `a_bytes` says bytes, but the unit of its value is seconds",
        ),
        ("tags: [memory]", "let: {a: b, b: vm.vcpus}\nwhen: a > b", "the name `b` is not known"),
        ("default: 1048576", "default: -1", "the default of `spare_bytes` must be at least 0"),
        ("default: 1048576", "default: many", "the default of `spare_bytes` must be a whole number (bytes)"),
        (
            "min: 0",
            "unit: seconds, min: 0",
            "the name of `spare_bytes` says bytes, but its `unit` says seconds",
        ),
        ("params.spare_bytes\nmessage", "params.spare_byte\nmessage", "did you mean `params.spare_bytes`?"),
        (" + params.spare_bytes\nmessage", "\nmessage", ""),
        ("{params.spare_bytes} to spare", "{ to spare", "did not expect 'spare'"),
        ("{params.spare_bytes} to spare", "} to spare", "this brace has no matching brace"),
        ("{params.spare_bytes} to spare", "{vm.memory} to spare", "`vm` has no field `memory`"),
        ("{params.spare_bytes} to spare", "{destination.memory} to spare", "cannot be printed"),
        ("remediation: Choose", "remediation: \"{vm.nam}\" # Choose", "did you mean `name`?"),
        (
            "vm.memory_max_bytes + params.spare_bytes\nmessage",
            "params.spare_bytes && vm.nics.all(a, vm.nics.all(b, vm.nics.all(c, vm.nics.all(d, a.mac + b.mac == c.mac + d.mac))))\nmessage",
            "4 loops over lists are nested; at most 3 are allowed",
        ),
        (
            "vm.memory_max_bytes + params.spare_bytes\nmessage",
            "params.spare_bytes && vm.nics.all(a, vm.nics.all(b, vm.nics.all(c, a.mac + b.mac != c.mac)))\nmessage",
            "this may take ",
        ),
    ] {
        if message.is_empty() {
            // The parameter is still used by the message.
            assert!(pack_of(old, new).is_ok());
            continue;
        }
        let text = refusal(old, new);
        assert!(text.contains(message), "{new}:\n{text}");
    }
}

#[test]
fn carets_are_right_in_folded_and_quoted_expressions() {
    for text in [
        "assert: >-\n  destination.memory.available_bytes\n    >= vm.memory_max_byte\n      + params.spare_bytes\nmessage",
        "assert: |\n  destination.memory.available_bytes >=\n\n    vm.memory_max_byte + params.spare_bytes\nmessage",
        "assert: \"destination.memory.available_bytes >= \\\n  vm.memory_max_byte + params.spare_bytes\"\nmessage",
        "assert: 'destination.memory.available_bytes\n  >= vm.memory_max_byte + params.spare_bytes'\nmessage",
    ] {
        let old =
            "assert: destination.memory.available_bytes >= vm.memory_max_bytes + params.spare_bytes\nmessage";
        let errors = pack_of(old, text).unwrap_err();
        let line = FITS
            .replacen(old, text, 1)
            .lines()
            .position(|line| line.contains("memory_max_byte ") || line.ends_with("memory_max_byte"))
            .unwrap();
        let column = FITS.replacen(old, text, 1).lines().nth(line).unwrap().find("memory_max_byte").unwrap();
        assert_eq!(errors.problems[0].position(), Some((line + 1, column + 1)), "{errors}");
    }
}

#[test]
fn files_that_are_no_rules_say_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
    write("bomb.yaml", b"a: &a [x, x, x]\nb: &b [*a, *a, *a]\nid: [*b, *b]\n");
    write("deep.yaml", "[".repeat(100_000).as_bytes());
    write("deep-too.yaml", "a: {".repeat(100_000).as_bytes());
    write("twice.yaml", b"id: a\nid: b\n");
    write("tabs.yaml", b"id:\n\ta: b\n");
    write("mark.yaml", "\u{feff}id: a".as_bytes());
    write("latin1.yaml", b"id: caf\xe9");
    write("huge.yaml", &vec![b'#'; 1024 * 1024 + 1]);
    write("zero.yaml", b"");
    write("list.yaml", b"- a\n- b\n");
    write("word.yaml", b"hello");
    write("nul.yaml", b"id: \0");
    fs::create_dir(dir.path().join("folder.yaml")).unwrap();
    let errors = Pack::load(&[RuleSource::Dir(dir.path().to_owned())]).unwrap_err();
    let text = errors.to_string();
    for expected in [
        "anchors and aliases are not supported",
        "nested too deeply",
        "the key `id` is given twice",
        "tabs disallowed",
        "begins with a byte order mark",
        "is not UTF-8: byte 7 is wrong",
        "is too large: more than 1048576 bytes",
        "is empty",
        "expected a mapping with `schema`, `id`, `title` and so on, found a list",
        "expected a mapping with `schema`, `id`, `title` and so on, found the text `hello`",
        "is a directory, not a file",
        "is not text: byte 4 is zero",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
    for name in [
        "bomb", "deep", "deep-too", "twice", "tabs", "mark", "latin1", "huge", "zero", "list", "word", "nul",
        "folder",
    ] {
        assert!(
            errors.problems.iter().any(|problem| problem.file().ends_with(&format!("/{name}.yaml"))),
            "{name}"
        );
    }
    assert!(!text.contains('\0'));
}

#[test]
fn a_folder_that_is_not_there_is_an_error_and_not_an_empty_pack() {
    let errors = Pack::load(&[RuleSource::Dir("/nonexistent/rules".into())]).unwrap_err();
    assert!(errors.to_string().contains("does not exist"));
}

#[test]
fn an_id_belongs_to_one_rule() {
    let (_dir, source) = folder(&[("a/memory-fits.yaml", FITS), ("b/memory-fits.yaml", FITS)]);
    let text = Pack::load(&[source]).unwrap_err().to_string();
    assert!(
        text.contains("two rules have the id `memory-fits`: this one and the one in ")
            && text.contains("a/memory-fits.yaml"),
        "{text}"
    );
}

#[test]
fn a_shipped_rule_is_replaced_only_by_one_that_says_so() {
    let mine = FITS.replace("id: memory-fits", "id: destination-memory-fits");
    let (_dir, source) = folder(&[("destination-memory-fits.yaml", &mine)]);
    let text = Pack::load(&[RuleSource::Builtin, source]).unwrap_err().to_string();
    assert!(text.contains("the id `destination-memory-fits` belongs to a shipped rule, in rules/1-prepare/destination-memory-fits.yaml"), "{text}");

    let mine = format!("{mine}replaces: destination-memory-fits\n");
    let (_dir, source) = folder(&[("destination-memory-fits.yaml", &mine)]);
    let pack = Pack::load(std::slice::from_ref(&source));
    assert!(pack.is_ok(), "a pack without the shipped rules has nothing to replace, and that is fine");
    let shipped = Pack::load(&[RuleSource::Builtin]).unwrap();
    match Pack::load(&[RuleSource::Builtin, source]) {
        Ok(pack) => {
            assert_eq!(pack.rules().len(), shipped.rules().len());
            assert!(!pack.rule("destination-memory-fits").unwrap().file.starts_with("rules/"));
        }
        Err(errors) => panic!("{errors}"),
    }

    let (_dir, source) = folder(&[("x.yaml", &format!("{FITS}replaces: destination-memory-fit\n"))]);
    let text = Pack::load(&[RuleSource::Builtin, source]).unwrap_err().to_string();
    assert!(
        text.contains("there is no rule `destination-memory-fit` to replace")
            && text.contains("did you mean `destination-memory-fits`?"),
        "{text}"
    );
}
