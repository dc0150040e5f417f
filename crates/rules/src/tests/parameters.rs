//! Tests of parameters: defaults, profiles, the user's configuration, and values that are refused.

use super::*;

fn overrides(rule: &str, param: &str, value: impl Into<serde_json::Value>) -> ParamOverrides {
    ParamOverrides::from([(
        rule.to_owned(),
        std::collections::BTreeMap::from([(param.to_owned(), value.into())]),
    )])
}

fn with_profile() -> (TempDir, Pack) {
    let profile = "schema: vmgate/profile/v1\ntitle: For those who want more\nparams:\n  memory-fits: {spare_bytes: 5}\n";
    let (dir, source) = folder(&[("memory-fits.yaml", FITS), ("profiles/strict.yaml", profile)]);
    (dir, Pack::load(&[source]).unwrap())
}

#[test]
fn the_configuration_holds_over_the_profile_and_that_over_the_default() {
    let (_dir, pack) = with_profile();
    let value =
        |pack: &Pack| (pack.rules()[0].params[0].value.clone(), pack.rules()[0].params[0].origin.clone());
    assert_eq!(value(&pack), (1_048_576.into(), ParamOrigin::Default));
    let strict = pack.clone().with_parameters(Some("strict"), &ParamOverrides::new()).unwrap();
    assert_eq!(value(&strict), (5.into(), ParamOrigin::Profile("strict".to_owned())));
    let mine =
        pack.clone().with_parameters(Some("strict"), &overrides("memory-fits", "spare_bytes", 7)).unwrap();
    assert_eq!(value(&mine), (7.into(), ParamOrigin::ConfigFile));
    assert!(
        explain_rule(&mine.rules()[0])
            .contains("From vmgate.yaml; default 1048576; allowed: 0 to 1099511627776.")
    );
    assert_ne!(pack.digest(), strict.digest());
    assert_ne!(strict.digest(), mine.digest());
}

#[test]
fn wrong_parameters_are_errors_that_say_who_set_them() {
    let (_dir, pack) = with_profile();
    for (profile, values, expected) in [
        (Some("strickt"), ParamOverrides::new(), "there is no profile `strickt`; the profiles are: strict"),
        (
            None,
            overrides("memory-fit", "spare_bytes", 1),
            "vmgate.yaml sets parameters of the rule `memory-fit`, but there is no such rule; did you mean `memory-fits`?",
        ),
        (
            None,
            overrides("memory-fits", "spare", 1),
            "vmgate.yaml sets `spare` of memory-fits, but this rule has no such parameter; did you mean `spare_bytes`?",
        ),
        (
            None,
            overrides("memory-fits", "spare_bytes", "x"),
            "vmgate.yaml sets `spare_bytes` of memory-fits to \"x\", but the value must be a whole number (bytes)",
        ),
        (
            None,
            overrides("memory-fits", "spare_bytes", -1),
            "vmgate.yaml sets `spare_bytes` of memory-fits to -1, but the value must be at least 0",
        ),
        (
            None,
            overrides("memory-fits", "spare_bytes", 1.5),
            "vmgate.yaml sets `spare_bytes` of memory-fits to 1.5, but the value must be a whole number (bytes)",
        ),
    ] {
        assert_eq!(pack.clone().with_parameters(profile, &values).unwrap_err().to_string(), expected);
    }
}

#[test]
fn profiles_are_checked_when_they_are_loaded() {
    let profile = "schema: vmgate/profile/v1\ntitle: x\nparams:\n  memory-fit: {a: 1}\n  memory-fits: {spare: 1, spare_bytes: -3}\n";
    let (_dir, source) = folder(&[("memory-fits.yaml", FITS), ("profiles/strict.yaml", profile)]);
    let errors = Pack::load(&[source]).unwrap_err();
    let found: Vec<_> =
        errors.problems.iter().map(|problem| (problem.message(), problem.position().unwrap())).collect();
    assert_eq!(
        found,
        [
            ("there is no rule `memory-fit`", (4, 3)),
            ("memory-fits has no parameter `spare`", (5, 17)),
            ("`spare_bytes` of memory-fits must be at least 0", (5, 40)),
        ]
    );
}

#[test]
fn an_empty_list_is_told_in_words() {
    let (_dir, source) = folder(&[("memory-fits.yaml", FITS)]);
    let pack = Pack::load(&[source]).unwrap();
    let error = pack.with_parameters(Some("strict"), &ParamOverrides::new()).unwrap_err();
    assert_eq!(error.to_string(), "there is no profile `strict`; these rules have no profiles");

    let without = FITS.replace("params.spare_bytes", "1");
    let without = without.split("params:\n").next().unwrap();
    let profile = "schema: vmgate/profile/v1\ntitle: x\nparams:\n  memory-fits: {spare: 1}\n";
    let (_dir, source) = folder(&[("memory-fits.yaml", without), ("profiles/strict.yaml", profile)]);
    let error = Pack::load(&[source]).unwrap_err().to_string();
    assert!(error.contains("memory-fits has no parameters: remove this line"), "{error}");
}

#[test]
fn the_digest_is_of_the_content_and_not_of_the_layout() {
    let digest = |text: &str| {
        let (_dir, source) = folder(&[("memory-fits.yaml", text)]);
        Pack::load(&[source]).unwrap().digest()
    };
    let sorted =
        FITS.replace("step: prepare\nseverity: high\n", "# a comment\nseverity: \"high\"\nstep:   prepare\n");
    assert_eq!(digest(FITS), digest(&sorted));
    assert_ne!(digest(FITS), digest(&FITS.replace("severity: high", "severity: low")));
    assert_eq!(digest(FITS).len(), 64);
}
