//! The gate: a migration starts with a [`Pass`], and only a GO verdict that still holds gives one.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use thiserror::Error;
use vmgate_attest::{AttestError, Digest, NoAuthority, PublicKey};
use vmgate_facts::Uuid;
use vmgate_verdict::{Decision, Effect, ExitCode, JudgedOutcome, NameAndUuid, Verdict};

/// Permission to migrate one VM between two hosts. Only a verdict can create one.
#[derive(Debug)]
pub struct Pass {
    verdict: Verdict,
    vm: Uuid,
}

/// Reason why a verdict gives no [`Pass`].
#[derive(Debug, Error)]
pub enum GateRefusal {
    /// The verdict is not GO, or not clear enough under `--strict`.
    #[error("not migrated: {vm} stays on {source_host}, because the verdict is {because}")]
    NotGo {
        /// The VM's name.
        vm: String,
        /// The host it stays on.
        source_host: String,
        /// Meaning of the verdict, in words.
        because: String,
        /// Exit code of the process.
        exit: ExitCode,
    },
    /// The verdict lacks the UUID of the VM or of a host.
    #[error("not migrated: the verdict does not contain {0}, so vmgate cannot compare it with the hosts")]
    Unnamed(&'static str),
    /// The verdict is too old to act on.
    #[error(
        "not migrated: the verdict on {vm} expired at {expired}, and the time is now {now}: check the move again"
    )]
    Expired {
        /// The VM's name.
        vm: String,
        /// Time of expiry.
        expired: Timestamp,
        /// Present time.
        now: Timestamp,
    },
    /// The verdict is simulated, or its times are not those of a verdict of the present.
    #[error("not migrated: {vm}: {why}")]
    NoAuthority {
        /// The VM's name.
        vm: String,
        /// Reason.
        why: NoAuthority,
    },
    /// No trusted key signed the verdict.
    #[error("not migrated: {0}")]
    NotTrusted(#[source] AttestError),
    /// The verdict is for another VM, change or set of rules.
    #[error(
        "not migrated: the verdict on {vm} is for {reached}, but this move is for {asked}: check the move again"
    )]
    Mismatch {
        /// The VM's name.
        vm: String,
        /// VM, change or rules of the verdict.
        reached: String,
        /// VM, change or rules of this move.
        asked: String,
    },
}

/// Move that a saved verdict must be for.
#[derive(Debug, Clone)]
pub struct GateRequest<'a> {
    /// Name or UUID of the VM.
    pub vm: &'a str,
    /// Digest of the change; none for a move that belongs to none.
    pub change: Option<Digest>,
    /// Digest of the rules with their parameters.
    pub rules: Option<Digest>,
}

impl GateRefusal {
    /// Exit code of the process.
    pub fn exit(&self) -> ExitCode {
        match self {
            Self::NotGo { exit, .. } => *exit,
            Self::Unnamed(_) | Self::Expired { .. } | Self::NoAuthority { .. } => ExitCode::EvidenceMissing,
            Self::NotTrusted(_) | Self::Mismatch { .. } => ExitCode::Invalid,
        }
    }
}

impl Pass {
    /// Gives a pass if `verdict` is GO at the present time of this machine's clock, which nobody can replace; under
    /// `--strict` a GO with warnings gives none.
    pub fn from_verdict(verdict: Verdict) -> Result<Self, GateRefusal> {
        Self::at(verdict, Timestamp::now())
    }

    fn at(verdict: Verdict, now: Timestamp) -> Result<Self, GateRefusal> {
        let exit = ExitCode::of(&verdict);
        let label = |named: &NameAndUuid| named.name.clone().unwrap_or_else(|| "the VM".to_owned());
        if !matches!(verdict.decision, Decision::Go(_)) || exit != ExitCode::Go {
            return Err(GateRefusal::NotGo {
                vm: label(&verdict.moved.vm),
                source_host: label(&verdict.moved.source),
                because: exit.meaning().to_owned(),
                exit,
            });
        }
        if let Err(why) = verdict.check_authority(now) {
            return Err(GateRefusal::NoAuthority { vm: label(&verdict.moved.vm), why });
        }
        if !verdict.permits_migration(now) {
            let (vm, expired) = (label(&verdict.moved.vm), verdict.expires_at);
            return Err(GateRefusal::Expired { vm, expired, now });
        }
        let moved = &verdict.moved;
        let known = |named: &NameAndUuid, whose| named.uuid.clone().ok_or(GateRefusal::Unnamed(whose));
        let vm = known(&moved.vm, "the VM's UUID")?;
        known(&moved.source, "the source host's UUID")?;
        known(&moved.destination, "the destination host's UUID")?;
        Ok(Self { verdict, vm })
    }

    /// Opens the gate if the envelope holds a verdict that a trusted key signed, that is GO and has not expired, and that
    /// was reached for this VM, this change and these rules. Hosts are held against it when they are met.
    pub fn from_envelope(
        envelope: &[u8],
        trusted: &[PublicKey],
        asked: &GateRequest,
    ) -> Result<Self, GateRefusal> {
        Self::from_envelope_at(envelope, trusted, asked, Timestamp::now())
    }

    fn from_envelope_at(
        envelope: &[u8],
        trusted: &[PublicKey],
        asked: &GateRequest,
        now: Timestamp,
    ) -> Result<Self, GateRefusal> {
        let verdict =
            vmgate_attest::verify::<Verdict>(envelope, trusted).map_err(GateRefusal::NotTrusted)?.verdict;
        let vm = verdict.moved.vm.label().to_owned();
        let other =
            |reached: String, asked: String| Err(GateRefusal::Mismatch { vm: vm.clone(), reached, asked });
        if !verdict.moved.vm.is(asked.vm) {
            return other(format!("the VM {vm}"), format!("the VM {}", asked.vm));
        }
        let words = |digest: Option<Digest>, what: &str| {
            digest.map_or_else(|| format!("no {what}"), |digest| format!("the {what} {digest}"))
        };
        let digests = &verdict.digests;
        if digests.change != asked.change {
            return other(words(digests.change, "change"), words(asked.change, "change"));
        }
        if digests.rules != asked.rules || asked.rules.is_none() {
            return other(words(digests.rules, "rules"), words(asked.rules, "rules"));
        }
        Self::at(verdict, now)
    }

    /// The verdict that gave this pass.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// UUID of the VM.
    pub(super) fn vm(&self) -> &Uuid {
        &self.vm
    }
}

/// New blocking outcomes: the reason why a verdict no longer holds. Rules that lack their facts for one
/// reason are told together: a host that does not answer is one problem, not a dozen.
pub(super) fn new_blockers(before: &Verdict, after: &Verdict) -> String {
    let same = |one: &JudgedOutcome, other: &JudgedOutcome| {
        (&one.outcome.rule, &one.outcome.subject) == (&other.outcome.rule, &other.outcome.subject)
    };
    let blocked_before: Vec<&JudgedOutcome> = before.with_effect(Effect::Block).collect();
    let new =
        after.with_effect(Effect::Block).filter(|now| !blocked_before.iter().any(|before| same(before, now)));
    let (undecided, violated): (Vec<&JudgedOutcome>, Vec<&JudgedOutcome>) =
        new.partition(|judged| !judged.outcome.missing.is_empty());
    let mut by_reason: BTreeMap<BTreeSet<&str>, Vec<&JudgedOutcome>> = BTreeMap::new();
    for judged in undecided {
        let reasons = judged.outcome.missing.iter().map(|missing| missing.reason.as_str()).collect();
        by_reason.entry(reasons).or_default().push(judged);
    }
    let mut words: Vec<String> = violated.into_iter().map(rule_and_message).collect();
    words.extend(by_reason.into_iter().map(|(reasons, judged)| match judged.as_slice() {
        [one] => rule_and_message(one),
        several => {
            let rules: BTreeSet<&str> = several.iter().map(|judged| &*judged.outcome.rule).collect();
            let (count, reasons) = (rules.len(), reasons.into_iter().collect::<Vec<_>>().join("; "));
            let rules = rules.into_iter().collect::<Vec<_>>().join(", ");
            format!("{count} rules cannot be decided: {reasons} ({rules})")
        }
    }));
    if words.is_empty() { ExitCode::of(after).meaning().to_owned() } else { words.join("; ") }
}

fn rule_and_message(judged: &JudgedOutcome) -> String {
    format!("{}: {}", judged.outcome.rule, judged.outcome.message)
}

#[cfg(test)]
pub(super) mod tests {
    use jiff::SignedDuration;
    use vmgate_attest::PrivateKey;
    use vmgate_facts::Cause;
    use vmgate_verdict::{Missing, Outcome, Status, sample};

    use super::*;

    /// RFC 8410 section 10.3 gives the first; the second is another one of that form.
    const KEYS: [&str; 2] = [
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g\n-----END PRIVATE KEY-----",
    ];

    fn key(number: usize) -> PrivateKey {
        PrivateKey::from_pem("key", KEYS[number]).unwrap()
    }

    const VM: &str = "5e7c9b3e-6a0e-4c2e-9a53-0d6f5a5c9d11";

    /// A GO verdict for a given VM, hosts, rules and change.
    fn go() -> Verdict {
        let mut verdict = sample::go();
        verdict.moved.vm.uuid = Some(VM.parse().unwrap());
        verdict.moved.source.uuid = Some("6f0d3c4e-1111-4222-8333-000000000001".parse().unwrap());
        verdict.moved.destination.uuid = Some("6f0d3c4e-1111-4222-8333-000000000002".parse().unwrap());
        verdict.digests.rules = Some(Digest::of(b"rules"));
        verdict.digests.change = Some(Digest::of(b"change"));
        verdict
    }

    /// Pass for a migration by libvirt.
    pub(crate) fn pass() -> Pass {
        Pass::at(go(), sample::now()).unwrap()
    }

    fn asked() -> GateRequest<'static> {
        GateRequest { vm: VM, change: Some(Digest::of(b"change")), rules: Some(Digest::of(b"rules")) }
    }

    fn open_at(
        verdict: &Verdict,
        asked: &GateRequest,
        signer: usize,
        now: Timestamp,
    ) -> Result<Pass, GateRefusal> {
        let envelope = vmgate_attest::sign(verdict, &key(signer)).unwrap();
        let envelope = serde_json::to_vec(&envelope).unwrap();
        Pass::from_envelope_at(&envelope, &[key(0).public()], asked, now)
    }

    fn open(verdict: &Verdict, asked: &GateRequest, signer: usize) -> Result<Pass, GateRefusal> {
        open_at(verdict, asked, signer, verdict.evaluated_at)
    }

    #[test]
    fn a_signed_go_opens_the_gate_for_what_it_was_reached_for_and_nothing_else() {
        let verdict = go();
        let this = asked();
        assert_eq!(open(&verdict, &this, 0).unwrap().vm().as_str(), VM);
        assert!(matches!(open(&verdict, &this, 1), Err(GateRefusal::NotTrusted(_))));
        let late = open_at(&verdict, &this, 0, verdict.expires_at);
        assert!(matches!(late, Err(GateRefusal::Expired { .. })), "{late:?}");
        for other in [
            GateRequest { vm: "another", ..this.clone() },
            GateRequest { change: None, ..this.clone() },
            GateRequest { change: Some(Digest::of(b"another")), ..this.clone() },
            GateRequest { rules: Some(Digest::of(b"another")), ..this.clone() },
            GateRequest { rules: None, ..this.clone() },
        ] {
            let refused = open(&verdict, &other, 0).unwrap_err();
            assert!(matches!(refused, GateRefusal::Mismatch { .. }), "{refused}");
        }
        let mut unnamed = go();
        unnamed.moved.destination.uuid = None;
        assert!(matches!(open(&unnamed, &this, 0), Err(GateRefusal::Unnamed(_))));
    }

    #[test]
    fn the_gate_reads_the_clock_of_this_machine() {
        // The sample is of another day than today.
        assert!(Pass::from_verdict(go()).is_err());
    }

    #[test]
    fn a_chosen_time_the_future_stale_facts_and_a_long_life_open_nothing() {
        let go = go();
        let hour = SignedDuration::from_hours(1);
        let simulated = Verdict { simulated: true, ..go.clone() };
        let long = Verdict { expires_at: go.evaluated_at + hour * 2, ..go.clone() };
        let stale = Verdict { expires_at: go.evaluated_at - hour, ..go.clone() };
        let before = |verdict: &Verdict| open_at(verdict, &asked(), 0, verdict.evaluated_at - hour);
        for refused in
            [open(&simulated, &asked(), 0), open(&long, &asked(), 0), open(&stale, &asked(), 0), before(&go)]
        {
            assert!(matches!(refused, Err(GateRefusal::NoAuthority { .. })), "{refused:?}");
        }
    }

    #[test]
    fn a_signed_no_go_opens_nothing() {
        let mut verdict = sample::no_go();
        verdict.moved.vm.uuid = Some(VM.parse().unwrap());
        (verdict.digests.rules, verdict.digests.change) =
            (Some(Digest::of(b"rules")), Some(Digest::of(b"change")));
        let refused = open(&verdict, &asked(), 0).unwrap_err();
        assert_eq!(refused.exit(), ExitCode::RuleViolated, "{refused}");
    }

    #[test]
    fn what_changed_is_what_blocks_now_and_did_not() {
        let text = new_blockers(&go(), &sample::no_go());
        let blocking = sample::no_go().with_effect(Effect::Block).next().unwrap().outcome.rule.clone();
        assert!(text.contains(&*blocking), "{text}");
    }

    #[test]
    fn what_lacks_its_facts_for_one_reason_is_told_once() {
        let lacking = |rule: &str, reason: &str| JudgedOutcome {
            outcome: Outcome {
                missing: vec![Missing {
                    path: format!("destination.{rule}"),
                    reason: reason.to_owned(),
                    cause: Cause::HostUnreachable,
                }],
                ..sample::outcome(rule, Status::Unknown)
            },
            effect_now: Some(Effect::Block),
            waiver: None,
        };
        let mut after = sample::no_go();
        after.outcomes = vec![lacking("c", "no answer"), lacking("b", "no agent"), lacking("a", "no answer")];
        let text = new_blockers(&go(), &after);
        assert!(text.contains("2 rules cannot be decided: no answer (a, c)"), "{text}");
        assert!(text.contains("b: ") && text.matches("no answer").count() == 1, "{text}");
    }
}
