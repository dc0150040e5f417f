//! Comparison with the `cel` crate's own evaluator: on known facts the results are the same.

use std::{collections::HashMap, sync::Arc};

use super::*;

/// A facts document for the `cel` crate: whole numbers are signed, as facts' are.
fn cel_value(json: &Json) -> cel::Value {
    match json {
        Json::Null => cel::Value::Null,
        Json::Bool(value) => cel::Value::Bool(*value),
        Json::Number(number) => match number.as_i64() {
            Some(value) => cel::Value::Int(value),
            None => cel::Value::Float(number.as_f64().unwrap()),
        },
        Json::String(text) => cel::Value::String(Arc::new(text.clone())),
        Json::Array(items) => cel::Value::List(Arc::new(items.iter().map(cel_value).collect())),
        Json::Object(fields) => {
            let map: HashMap<String, cel::Value> =
                fields.iter().map(|(key, value)| (key.clone(), cel_value(value))).collect();
            map.into()
        }
    }
}

fn cel_context(facts: &Json) -> cel::Context<'static, 'static> {
    let mut context = cel::Context::with_env(Arc::new(cel::Env::stdlib()));
    for group in ["vm", "guest", "source", "destination", "path", "change"] {
        context.add_variable_from_value(group, cel_value(&facts[group]));
    }
    let forecast =
        json!({"blackout_seconds": {"p5": 0.1, "p50": 0.2, "p95": 0.6}, "dirty_to_bandwidth_ratio": 0.2});
    context.add_variable_from_value("forecast", cel_value(&forecast));
    context
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn both_evaluators_agree_on_known_facts(
        text in bool_text(), vcpus in 0_i64..20, up in any::<bool>(), job in select(vec![None, Some("backup")]),
        retries in -5_i64..20, persistent in any::<bool>(),
    ) {
        let Ok(_) = check(&text) else { return Ok(()) };
        let mut facts = known_facts();
        facts["vm"]["vcpus"] = vcpus.into();
        facts["vm"]["persistent"] = persistent.into();
        facts["vm"]["nics"][0]["link_up"] = up.into();
        facts["vm"]["job"] = job.into();
        facts["guest"]["sysctl"]["tcp_retries1"] = retries.into();
        let ours = eval(&text, &root(&facts)).0;
        let program = with_stack(|| cel::Env::stdlib().compile(&text)).unwrap().unwrap();
        match program.execute(&cel_context(&facts)) {
            Ok(cel::Value::Bool(theirs)) => prop_assert_eq!(ours, theirs.to_string(), "{}", text),
            Ok(other) => prop_assert!(false, "{text}: {other:?}"),
            // An error of the `cel` crate is unknown here, unless the other operand decided.
            Err(error) => prop_assert!(ours == "unknown", "{text}: {ours}, and there {error}"),
        }
    }
}

#[test]
fn most_generated_conditions_are_compared_and_not_refused() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let accepted =
        (0..300).filter(|_| check(&bool_text().new_tree(&mut runner).unwrap().current()).is_ok()).count();
    assert!(accepted > 150, "only {accepted} of 300");
}
