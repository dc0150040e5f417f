//! Figures of the public KVM set, leave-one-run-out: the aims of the forecast, held by a test.

#![allow(
    clippy::pedantic,
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a score of measured figures"
)]

mod public_set;

use public_set::{Foretold, Run, foretell, middle};

fn runs() -> Vec<Run> {
    serde_json::from_str(include_str!("kvm-postgres.json")).unwrap()
}

fn of<'a>(foretold: &'a [Foretold], case: &'a str) -> impl Iterator<Item = &'a Foretold> + Clone {
    foretold.iter().filter(move |one| one.run.case.starts_with(case))
}

#[test]
fn the_public_kvm_set_is_foretold_within_the_aims() {
    let foretold = foretell(&runs());
    for one in &foretold {
        println!(
            "{:<22} {:>2} total {:>6.2} ({:+.1} %) bytes {:+.1} % downtime {:.0} ms ({:+.0}) P {:?} ratio {:.2} held {:?} {:?}",
            one.run.case,
            one.run.run,
            one.run.total_seconds,
            one.total_error() * 100.0,
            one.bytes_error() * 100.0,
            one.run.downtime_seconds * 1e3,
            one.downtime_error() * 1e3,
            one.converges_at,
            one.dirty_to_bandwidth_ratio,
            one.held(),
            one.replay.total_seconds,
        );
    }
    let error = |case: &str| middle(of(&foretold, case).map(|one| one.total_error().abs())).unwrap();
    assert!(error("stop-and-copy") <= 0.03, "{}", error("stop-and-copy"));
    assert!(error("precopy-convergent") <= 0.03, "{}", error("precopy-convergent"));
    assert!(error("auto-converge") <= 0.08, "{}", error("auto-converge"));
    assert!(error("postcopy") <= 0.05, "{}", error("postcopy"));
    let downtime = middle(foretold.iter().map(|one| one.downtime_error().abs())).unwrap();
    assert!(downtime <= 0.015, "{downtime}");
    // They ended with their load: none is said to converge, and each is said to depend on the load.
    for one in of(&foretold, "precopy-near-critical").chain(of(&foretold, "precopy-read-only")) {
        let about = format!("{} {}: {:?}", one.run.case, one.run.run, one.converges_at);
        assert!(one.converges_at[1] < 0.5, "{about}");
        assert!(one.depends_on_the_load(), "{about} {}", one.dirty_to_bandwidth_ratio);
    }
    for one in of(&foretold, "precopy-convergent") {
        assert!(!one.depends_on_the_load(), "{} {:?}", one.run.run, one.converges_at);
        assert!(one.replay.converges_ratio > 0.95, "{} {:?}", one.run.run, one.replay);
    }
    let share_of =
        |at: usize| foretold.iter().filter(|one| one.held()[at]).count() as f64 / foretold.len() as f64;
    println!("held: total {:.2}, bytes {:.2}, downtime {:.2}", share_of(0), share_of(1), share_of(2));
    let held: Vec<bool> = foretold.iter().flat_map(Foretold::held).collect();
    let share = held.iter().filter(|held| **held).count() as f64 / held.len() as f64;
    assert!((0.85..=0.98).contains(&share), "{share}");
}
