//! Failure detectors of keepalived: VRRP and BFD.
//!
//! A backup takes over after `3 * advert_int + skew` (RFC 5798 section 6.1), where the skew is `(256 - priority) / 256`
//! seconds in version 2 and that fraction of advert_int in version 3. The backup's own priority counts; while this
//! guest is master, backups usually have a lower priority, so their skew is not shorter than the result here. A BFD
//! peer gives up after `multiplier` intervals (RFC 5880 section 6.8.4), 50 ms by default.

use crate::guest::software::{
    Evidence, Question, Reading, Software,
    format::{
        block::{self, Statement},
        duration::seconds,
    },
};

const CONFIGURATION: &str = "/etc/keepalived/keepalived.conf";
/// Most files that are included.
const MOST_INCLUDES: usize = 16;

pub(super) const KEEPALIVED: Software = Software {
    id: "keepalived",
    names: &["keepalived"],
    files: &[CONFIGURATION],
    extra_questions: |running| {
        let named = running.option("-f").or_else(|| running.option("--use-file"));
        named.and_then(|path| running.file(path)).into_iter().collect()
    },
    follow_up_questions: |evidence| {
        let Some((path, text)) = evidence.file() else { return Vec::new() };
        included(path, &block::parse(&text)).filter_map(Question::configuration).take(MOST_INCLUDES).collect()
    },
    read,
    default: Some((3.0, "keepalived.conf(5), 3 x advert_int of 1 s without the skew")),
    ..Software::BASE
};

/// Paths of the files that a file includes; a path with wildcards is kept as text and matches no file.
fn included(path: &str, statements: &[Statement]) -> impl Iterator<Item = String> {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
    let named = statements.iter().filter(|statement| statement.name().starts_with("include"));
    named.filter_map(Statement::argument).map(move |included| match included.strip_prefix('/') {
        Some(_) => included.to_owned(),
        None => format!("{folder}/{included}"),
    })
}

fn read(evidence: &Evidence<'_>) -> Reading {
    let Some((path, text)) = evidence.file() else { return Reading::NotConfigured };
    let mut statements = block::parse(&text);
    let mut unread = 0;
    for file in included(path, &statements).collect::<Vec<_>>() {
        match evidence.file_at(&file) {
            Some(text) => statements.extend(block::parse(&text)),
            None => unread += 1,
        }
    }
    let global: Vec<_> = block::named(&statements, "global_defs").flat_map(|s| s.block.clone()).collect();
    let number = |statements: &[Statement], name: &str| {
        block::value(statements, name).and_then(|text| seconds(text, 1.0))
    };
    let version = number(&global, "vrrp_version").unwrap_or(2.0);
    let times = number(&global, "vrrp_down_timer_adverts").unwrap_or(3.0);

    let vrrp = block::named(&statements, "vrrp_instance").map(|instance| {
        let advert = number(&instance.block, "advert_int").unwrap_or(1.0);
        let priority = number(&instance.block, "priority").unwrap_or(100.0).clamp(1.0, 255.0);
        let version = number(&instance.block, "version").unwrap_or(version);
        let times = number(&instance.block, "down_timer_adverts").unwrap_or(times);
        let skew = (256.0 - priority) / 256.0 * if version >= 3.0 { advert } else { 1.0 };
        let skew = (skew * 1e3).round() / 1e3;
        (
            times * advert + skew,
            format!("VRRP {times} x advert_int {advert} s + skew {skew} s of priority {priority}"),
        )
    });
    let bfd = block::named(&statements, "bfd_instance").map(|instance| {
        let transmit =
            block::value(&instance.block, "min_tx").and_then(|text| seconds(text, 0.001)).unwrap_or(0.01);
        let times = number(&instance.block, "multiplier").unwrap_or(5.0);
        (times * transmit, format!("BFD {times} x min_tx {transmit} s"))
    });
    let mut instances: Vec<(f64, String)> = vrrp.chain(bfd).collect();
    instances.sort_by(|a, b| a.0.total_cmp(&b.0));
    let count = instances.len();
    let Some((tightest, words)) = instances.into_iter().next() else { return Reading::NotConfigured };
    let which = if count > 1 { format!(", the tightest of {count}") } else { String::new() };
    let includes = if unread > 0 { format!("; {unread} includes not read") } else { String::new() };
    Reading::configured(tightest, format!("{path} {words}{which}{includes}"))
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // as written, not as computed
mod tests {
    use crate::guest::software::{
        keepalived::*,
        testing::{Case, read},
    };

    fn told(text: &str) -> (f64, String) {
        match read(
            &KEEPALIVED,
            &Case::process("keepalived", &["/usr/sbin/keepalived"]).file(CONFIGURATION, text),
        ) {
            Reading::Timeout { seconds, source, .. } => (seconds, source),
            other => panic!("{other:?}"),
        }
    }

    const ONE: &str = "! Configuration\nglobal_defs {\n router_id a\n}\nvrrp_instance VI_1 {\n state MASTER\n interface eth0\n \
        priority 192\n advert_int 1\n authentication {\n auth_type PASS\n auth_pass s3cret\n }\n}\n";

    #[test]
    fn the_tightest_instance_counts_with_its_skew() {
        let (seconds, source) = told(ONE);
        assert_eq!(
            (seconds, source.as_str()),
            (3.25, "/etc/keepalived/keepalived.conf VRRP 3 x advert_int 1 s + skew 0.25 s of priority 192")
        );
        let two = format!("{ONE}vrrp_instance VI_2 {{\n priority 128\n advert_int 0.1\n version 3\n}}\n");
        assert_eq!(told(&two).0, 0.35);
        let bfd = format!("{ONE}bfd_instance peer {{\n neighbor_ip 10.0.0.2\n}}\n");
        assert_eq!(told(&bfd).0, 0.05);
        let third = format!(
            "{}vrrp_instance x {{ advert_int 0.5; priority 128 }}",
            "global_defs { vrrp_version 3 }\n"
        );
        assert_eq!(told(&third).0, 1.75);
    }

    #[test]
    fn no_secret_is_repeated() {
        assert!(!told(ONE).1.contains("s3cret"));
    }

    #[test]
    fn includes_are_followed_or_named_as_missing() {
        let main = "include conf.d/a.conf\ninclude /etc/keepalived/*.conf\n";
        let case = Case::process("keepalived", &["keepalived", "-f", "/etc/ka/main.conf"])
            .file("/etc/ka/main.conf", main)
            .file("/etc/ka/conf.d/a.conf", ONE);
        let Reading::Timeout { seconds, source, .. } = read(&KEEPALIVED, &case) else { panic!("not read") };
        assert_eq!(seconds, 3.25);
        assert!(source.ends_with("; 1 includes not read"), "{source}");
    }
}
