//! All text that a guest's kernel, tools and configuration may hold: tables of sockets, SCTP, multicast groups, memory,
//! processes, and the settings of every cluster software that is known. The first byte says which process runs; the
//! rest is cut at NUL bytes into the texts that are handed out in turn.

use std::{cell::Cell, collections::BTreeSet, sync::LazyLock};

use vmgate_facts::{Cause, Fact, Facts, Unknown};
use vmgate_forecast::derive;
use vmgate_probe::guest::{
    GuestReader, RawProcess,
    ask::{Answers, Question},
    look,
};
use vmgate_rules::Catalogues;

/// Names by which software is recognised; the rest of a command line is the fuzzer's.
const NAMES: [&str; 24] = [
    "corosync",
    "pacemakerd",
    "sbd",
    "keepalived",
    "etcd",
    "mariadbd",
    "garbd",
    "redis-server",
    "redis-sentinel",
    "java",
    "beam.smp",
    "patroni",
    "consul",
    "drbdsetup",
    "ocssd.bin",
    "mongod",
    "ceph-osd",
    "ceph-mon",
    "clussvc.exe",
    "chronyd",
    "python3",
    "memcached",
    "nginx",
    "x",
];

static CATALOGUES: LazyLock<Catalogues> =
    LazyLock::new(|| Catalogues::shipped().expect("the shipped catalogues load"));

struct Text<'a> {
    name: &'static str,
    texts: Vec<&'a [u8]>,
    next: Cell<usize>,
}

impl Text<'_> {
    fn text(&self) -> Vec<u8> {
        let at = self.next.get();
        self.next.set(at + 1);
        self.texts.get(at % self.texts.len().max(1)).map_or(Vec::new(), |text| text.to_vec())
    }
}

impl GuestReader for Text<'_> {
    fn read(&self, path: &str) -> Result<Vec<u8>, Unknown> {
        // The memory is looked at a second time only where these are there, and that takes a second.
        match path {
            "/proc/uptime" => Err(Unknown::new(Cause::NotSupported, "no")),
            _ => Ok(self.text()),
        }
    }

    fn processes(&self) -> Result<Vec<RawProcess>, Unknown> {
        let stat = format!(
            "812 ({}) S 1 812 812 0 -1 4194560 5403 0 12 0 85 43 0 0 -2 0 3 0 1044 215588864 12800 18446744073709551615 \
             94 95 14 0 0 0 0 4096 17641 0 0 0 17 0 99 2 0 0 0 0 0 0 0 0 0 0 0",
            self.name
        );
        let mut command = format!("/usr/sbin/{}\0", self.name).into_bytes();
        command.extend(self.text());
        let crafted = RawProcess { stat: self.text(), command: self.text(), sockets: Some(vec![1]) };
        let known = RawProcess { stat: stat.into_bytes(), command, sockets: None };
        Ok(vec![known.clone(), if self.texts.len().is_multiple_of(2) { crafted } else { known }])
    }

    fn ask(&self, questions: &BTreeSet<Question>) -> Answers {
        questions.iter().map(|question| (question.clone(), Ok(self.text()))).collect()
    }
}

/// Looks at the guest, and derives what follows.
pub(crate) fn look_at(data: &[u8]) {
    let Some((&first, rest)) = data.split_first() else { return };
    let name = NAMES[usize::from(first) % NAMES.len()];
    let texts = rest.split(|&byte| byte == 0).collect();
    let guest = look(&Text { name, texts, next: Cell::new(0) });
    let text = serde_json::to_string(&guest).expect("facts can be written");
    assert!(!text.contains("\\u001b") && !text.contains('\u{202e}'), "{text}");
    let facts = Facts { guest: Fact::Known(guest), ..Facts::empty("2026-11-23T00:00:00Z".parse().unwrap()) };
    let _ = derive(facts, &CATALOGUES);
}
