use vmgate_facts::{Forecast, ManagerSetting};

use super::*;
use crate::{
    derive,
    replay::synthetic_trace::{self, PageGroup},
    tests::fixture,
};

const CONF: &str = "/etc/nova/nova.conf";

/// Move of a 2 GiB VM that dirties this much of its memory all the time, over 100 MB/s, by a manager.
fn facts(manager: &str, settings: &[(&str, &str)], hot_bytes: f64) -> Facts {
    let mut facts = fixture("idle-vm");
    facts.change.run_by = Some(manager.to_owned());
    facts.change.longest_blackout_seconds = 0.3;
    let (Fact::Known(vm), Fact::Known(source), Fact::Known(path)) =
        (&mut facts.vm, &mut facts.source, &mut facts.path)
    else {
        panic!("the fixture has them")
    };
    let ram = 2_u64 << 30;
    vm.memory_bytes = Fact::Known(ram);
    vm.memory_max_bytes = Fact::Known(ram);
    path.goodput_bytes_per_second = Fact::Known(100_000_000);
    let groups = [PageGroup { pages: hot_bytes / 4096.0, rate: 50.0 }];
    vm.dirty_trace = Fact::Known(synthetic_trace::from_page_groups(&groups, ram, 0.0, 1));
    let Fact::Known(managers) = &mut source.managers else { panic!("and its managers") };
    let setting = |(name, value): &(&str, &str)| ManagerSetting {
        file: CONF.to_owned(),
        name: format!("libvirt/{name}"),
        value: (*value).to_owned(),
    };
    managers.settings = Fact::Known(settings.iter().map(setting).collect());
    facts
}

fn forecast(manager: &str, settings: &[(&str, &str)], hot_bytes: f64) -> (Facts, Forecast) {
    derive(facts(manager, settings, hot_bytes), &Catalogues::shipped().unwrap())
}

fn advice(forecast: &Forecast) -> &str {
    forecast.advice.known().unwrap()
}

#[test]
fn a_quiet_guest_is_completed_with_the_first_limit() {
    let (_, forecast) = forecast("nova", &[], 0.0);
    assert!(advice(&forecast).starts_with("OpenStack Nova would complete it in"), "{}", advice(&forecast));
    assert!(advice(&forecast).ends_with("its present settings meet the goals"), "{}", advice(&forecast));
    assert_eq!(forecast.converges_ratio, Fact::Known(1.0));
}

#[test]
fn a_busy_guest_is_forced_with_its_silence_and_the_settings_to_change() {
    let forced =
        [("live_migration_completion_timeout", "60"), ("live_migration_timeout_action", "force_complete")];
    let (_, forecast) = forecast("nova", &forced, 3.0e8);
    let told = advice(&forecast);
    assert!(told.starts_with("OpenStack Nova would force it to complete after 120 s with "), "{told}");
    let blackout = forecast.blackout_seconds.known().unwrap();
    assert!((1.5..8.0).contains(&blackout.p50), "{blackout:?}");
    assert!(
        told.contains("live_migration_permit_post_copy = true (section libvirt in /etc/nova/nova.conf)"),
        "{told}"
    );
}

#[test]
fn a_busy_guest_is_aborted_by_default() {
    let (_, forecast) = forecast("nova", &[("live_migration_completion_timeout", "60")], 3.0e8);
    let told = advice(&forecast);
    assert!(told.starts_with("OpenStack Nova would abort it after 120 s, and the VM would stay"), "{told}");
    assert_eq!(forecast.converges_ratio, Fact::Known(0.0));
}

#[test]
fn the_rules_judge_the_managers_settings() {
    let settings = [("live_migration_permit_post_copy", "true"), ("live_migration_bandwidth", "10")];
    let (facts, forecast) = forecast("nova", &settings, 0.0);
    assert!(facts.change.settings.post_copy);
    assert_eq!(facts.change.bandwidth_limit_bytes_per_second, Some(10 << 20));
    let managed = forecast.managed.known().unwrap().as_ref().unwrap();
    let of = |name: &str| managed.settings.iter().find(|one| one.name == name).unwrap();
    assert_eq!(of("libvirt/live_migration_bandwidth").origin, CONF);
    assert!(of("libvirt/live_migration_downtime").origin.starts_with("default of OpenStack Nova"));
}

#[test]
fn what_cannot_be_read_is_no_forecast() {
    let mut unread = facts("nova", &[], 0.0);
    let Fact::Known(source) = &mut unread.source else { panic!("a source") };
    source.managers = Fact::unknown(Cause::PermissionDenied, "not root");
    let (_, forecast) = derive(unread, &Catalogues::shipped().unwrap());
    assert!(matches!(&forecast.blackout_seconds, Fact::Unknown(why) if why.reason == "not root"));
    let (_, other) = self::forecast("novva", &[], 0.0);
    assert!(matches!(&other.managed, Fact::Unknown(why) if why.reason.contains("known are nova, ovirt")));
}
