//! Settings of the hook on a destination host: `/etc/vmgate/hook.yaml`.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;
use vmgate_attest::{CLOCK_SKEW, Permit, VerifiedVerdict};
use vmgate_documents::{Problem, Shape, SourceFile};
use vmgate_facts::Uuid;

use super::{
    Layout,
    decide::TimeLimits,
    key_rule::KeyRule,
    policy::{self, Demands, Revoked, UnmetDemand},
    trust,
};

/// Largest configuration file, bytes.
const MOST: u64 = 64 << 10;

static SHAPE: Shape<HookConfig> = Shape::new();

/// Settings of a host for incoming migrations. In hook.yaml an unknown setting is an error; in the status of a host with a
/// newer vmgate it is ignored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct HookConfig {
    /// Id of this format.
    pub schema: HookSchema,
    /// Enforcement: a migration without a verdict is refused, or only logged.
    pub mode: EnforcementMode,
    /// Fallback if no decision is possible.
    pub on_error: OnError,
    /// Longest time that libvirt waits for the decision, 0.1 to 60 seconds.
    #[serde(deserialize_with = "time_limit")]
    pub time_limit_seconds: f64,
    /// Size at which the log is rotated, 1 to 1024 MiB.
    #[schemars(range(min = 1, max = 1024))]
    pub log_mebibytes: u64,
    /// Longest time from the evaluation of a verdict to its end, 1 to 10080 minutes.
    #[schemars(range(min = 1, max = 10_080))]
    pub max_lifetime_minutes: u32,
    /// Longest time that a verdict may have been evaluated later than now, as the clocks of two machines differ, 0 to 3600
    /// seconds.
    #[schemars(range(min = 0, max = 3600))]
    pub max_clock_skew_seconds: u32,
    /// Demands on what a verdict rests on.
    #[serde(skip_serializing_if = "Demands::is_empty")]
    pub demand: Demands,
    /// Keys that are trusted, by the names of their files, with their limits; every key in the folder if absent.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "key_rules")]
    #[schemars(with = "Option<BTreeMap<String, Option<KeyRule>>>")]
    pub keys: Option<BTreeMap<String, KeyRule>>,
    /// Keys and verdicts that are no longer believed.
    #[serde(skip_serializing_if = "Revoked::is_empty")]
    pub revoked: Revoked,
}

/// Ids of the format that this version reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum HookSchema {
    /// The first format.
    #[default]
    #[serde(rename = "vmgate/hook/v1")]
    V1,
}

/// Enforcement mode of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EnforcementMode {
    /// No migration comes in without a verdict.
    #[default]
    Enforce,
    /// All migrations come in; the log says which ones would have been refused.
    AuditOnly,
}

/// Fallback for a migration that the hook cannot decide on: an internal error, a timeout, or a missing file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnError {
    /// Refuse the migration.
    #[default]
    Closed,
    /// Let the migration in.
    Open,
}

impl Default for HookConfig {
    fn default() -> Self {
        Self {
            schema: HookSchema::V1,
            mode: EnforcementMode::default(),
            on_error: OnError::default(),
            time_limit_seconds: 5.0,
            log_mebibytes: 10,
            // vmgate's own verdicts live for an hour at most.
            max_lifetime_minutes: 60,
            max_clock_skew_seconds: u32::try_from(CLOCK_SKEW.as_secs()).unwrap_or(60),
            demand: Demands::default(),
            keys: None,
            revoked: Revoked::default(),
        }
    }
}

/// An invalid configuration, with the fallback that it still asks for.
#[derive(Debug, Error)]
#[error("{problem}")]
pub struct InvalidHookConfig {
    problem: String,
    /// True if a line of the file lets migrations in when no decision is possible: a mistake elsewhere in the file must not
    /// turn open into closed. Always false for a file that other users can write.
    pub fallback_open: bool,
}

impl HookConfig {
    /// Reads the configuration of a host.
    pub fn load(layout: &Layout) -> Result<Self, InvalidHookConfig> {
        let path = layout.config();
        let bytes = trust::read(&path, MOST)
            .map_err(|why| InvalidHookConfig { problem: why.to_string(), fallback_open: false })?;
        let text = String::from_utf8_lossy(&bytes);
        Self::parse(&text).map_err(|problem| InvalidHookConfig {
            problem: format!("{}: {problem}", path.display()),
            fallback_open: fallback_open(&text),
        })
    }

    /// Reads settings. The error names the mistake, and what was probably meant.
    pub fn parse(text: &str) -> Result<Self, String> {
        let nothing = text.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with('#'));
        let config: Self = if nothing {
            Self::default()
        } else {
            SourceFile::new("hook.yaml", text.as_bytes())
                .map_err(|problem| vec![problem])
                .and_then(|file| SHAPE.read(&file, |_| Vec::new()))
                .map_err(|problems| in_one_line(&problems))?
                .0
        };
        for (name, rule) in config.keys.iter().flatten() {
            if let Some(host) = rule.sources.iter().find(|host| Uuid::parse(host).is_none()) {
                return Err(format!(
                    "keys: {name}: sources: `{host}` is not a UUID; `virsh capabilities` on that host shows it"
                ));
            }
        }
        Ok(config)
    }

    /// Limits of a key, by the name of its file. An error says why the key may sign nothing at `now`.
    pub fn rule_of(&self, file: &str, id: &str, now: Timestamp) -> Result<KeyRule, String> {
        if self.revoked.keys.iter().any(|revoked| revoked.is(id)) {
            return Err(format!("{file}: the key {id} is revoked (`revoked: keys` in hook.yaml)"));
        }
        let Some(rules) = &self.keys else { return Ok(KeyRule::default()) };
        let rule = rules.get(file).ok_or_else(|| {
            format!("{file}: `keys` in hook.yaml does not list this file, so its key signs nothing; add a line `{file}: {{}}` there")
        })?;
        match rule.invalid_at(now) {
            Some(why) => Err(format!(
                "{file}: the key is not valid now: {why}; use another key, or change `keys` in hook.yaml"
            )),
            None => Ok(rule.clone()),
        }
    }

    /// Checks a verdict with a valid signature against everything that these settings demand at `now`, but for what is
    /// about this host. `key_file` is the name that `keys` has for its key. The error is for people.
    pub fn check(
        &self,
        verdict: &VerifiedVerdict<Permit>,
        key_file: &str,
        now: Timestamp,
    ) -> Result<(), String> {
        let limits = self.time_limits();
        let permit = &verdict.verdict;
        let rule = self.rule_of(key_file, &verdict.key_id, now)?;
        if let Some(why) = rule.forbids(permit, None) {
            return Err(format!("the key {key_file} may not sign this verdict: {why}"));
        }
        permit.validity().check(now, limits.skew, limits.lifetime).map_err(|why| why.to_string())?;
        self.demanded(verdict).map_err(|why| why.to_string())
    }

    pub(super) fn demanded(&self, verdict: &VerifiedVerdict<Permit>) -> Result<(), UnmetDemand> {
        policy::check(&self.demand, &self.revoked, verdict)
    }

    /// Longest time for a decision.
    pub fn time_limit(&self) -> Duration {
        Duration::from_secs_f64(self.time_limit_seconds)
    }

    /// Limits of the times of a verdict.
    pub(super) fn time_limits(&self) -> TimeLimits {
        TimeLimits {
            skew: SignedDuration::from_secs(self.max_clock_skew_seconds.into()),
            lifetime: SignedDuration::from_mins(self.max_lifetime_minutes.into()),
        }
    }

    /// The text of the file, with a comment on each setting.
    pub fn to_text(&self) -> String {
        let written = serde_json::to_value(self).unwrap_or_default();
        let name = |setting: &str| written.get(setting).and_then(Value::as_str).unwrap_or_default();
        let policy = ["demand", "keys", "revoked"].into_iter();
        let policy: Map<_, _> =
            policy.filter_map(|name| Some((name.to_owned(), written.get(name)?.clone()))).collect();
        let mut rest = String::new();
        if !policy.is_empty() {
            rest.push_str("# Demands on verdicts, limits of keys, and what is revoked.\n");
            put_block(&mut rest, "", &policy);
        }
        format!(
            "# Settings for incoming migrations on this host; see docs/hook.md of vmgate. Read at each migration.\n\
             schema: vmgate/hook/v1\n\
             # enforce: a migration needs a signed verdict. audit-only: all come in; the log says which would be refused.\n\
             mode: {mode}\n\
             # If no decision is possible (no key, disk full, timeout): closed refuses the migration, open lets it in.\n\
             on-error: {on_error}\n\
             # Longest time for a decision; libvirt waits meanwhile.\n\
             time-limit-seconds: {limit}\n\
             # Size at which /var/log/vmgate/hook.jsonl is rotated; four older files are kept.\n\
             log-mebibytes: {size}\n\
             # Longest life of a verdict, and how much later than now it may have been evaluated (clocks differ).\n\
             max-lifetime-minutes: {lifetime}\n\
             max-clock-skew-seconds: {skew}\n\
             {rest}",
            mode = name("mode"),
            on_error = name("on-error"),
            limit = self.time_limit_seconds,
            size = self.log_mebibytes,
            lifetime = self.max_lifetime_minutes,
            skew = self.max_clock_skew_seconds,
        )
    }
}

/// A line that lets migrations in when no decision is possible, as an extended regular expression. The hook script looks for
/// it when its program cannot run, and [`fallback_open`] in settings that cannot be parsed.
pub(super) const OPEN_LINE: &str =
    "^(on-error:[[:blank:]]+open|mode:[[:blank:]]+audit-only)([[:space:]]*|[[:space:]]+#.*)$";

/// True if the text has a line like [`OPEN_LINE`].
fn fallback_open(text: &str) -> bool {
    // The classes of the expression, in the C locale; a line has no newline.
    let blank = |c: char| matches!(c, ' ' | '\t');
    let space = |c: char| matches!(c, ' ' | '\t' | '\r' | '\x0b' | '\x0c');
    text.split('\n').any(|line| {
        let value = |name: &str| line.strip_prefix(name).filter(|rest| rest.starts_with(blank));
        let after = |name: &str, word: &str| {
            value(name).and_then(|rest| rest.trim_start_matches(blank).strip_prefix(word))
        };
        after("on-error:", "open").or_else(|| after("mode:", "audit-only")).is_some_and(|rest| {
            let comment = rest.trim_start_matches(space);
            comment.is_empty() || (comment.len() < rest.len() && comment.starts_with('#'))
        })
    })
}

/// Writes fields as YAML, one a line: what is no mapping is the same in JSON.
fn put_block(text: &mut String, indent: &str, fields: &Map<String, Value>) {
    for (name, value) in fields {
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                text.extend([indent, name, ":\n"]);
                put_block(text, &format!("{indent}  "), inner);
            }
            value => text.extend([indent, name, ": ", &value.to_string(), "\n"]),
        }
    }
}

/// Problems of the file as a log has room for them, each with its way out.
fn in_one_line(problems: &[Problem]) -> String {
    let line = |problem: &Problem| match problem.hint() {
        Some(way_out) => format!("{}: {way_out}", problem.in_one_line()),
        None => problem.in_one_line(),
    };
    problems.iter().map(line).collect::<Vec<_>>().join("; ")
}

/// Reads `keys`, in which a file without a value has no limits.
fn key_rules<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<BTreeMap<String, KeyRule>>, D::Error> {
    let rules: BTreeMap<String, Option<KeyRule>> = BTreeMap::deserialize(deserializer)?;
    Ok(Some(rules.into_iter().map(|(file, rule)| (file, rule.unwrap_or_default())).collect()))
}

fn time_limit<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let number = f64::deserialize(deserializer)?;
    if (0.1..=60.0).contains(&number) {
        Ok(number)
    } else {
        Err(serde::de::Error::custom("time-limit-seconds must be from 0.1 to 60"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for mode in [EnforcementMode::Enforce, EnforcementMode::AuditOnly] {
            for on_error in [OnError::Closed, OnError::Open] {
                let config = HookConfig { mode, on_error, time_limit_seconds: 0.5, ..HookConfig::default() };
                assert_eq!(HookConfig::parse(&config.to_text()).unwrap(), config);
                let open = on_error == OnError::Open || mode == EnforcementMode::AuditOnly;
                assert_eq!(fallback_open(&config.to_text()), open);
            }
        }
        assert_eq!(HookConfig::parse("").unwrap(), HookConfig::default());
        let text = format!(
            "demand: {{rules: [builtin, 'sha256:{0}', {0}], facts: [live, {0}], waivers: refused}}\n\
             keys: {{site.pem: {{not-before: 2026-01-01, not-after: 2027-01-01T00:00:00Z, vms: [web*]}}, ci.pem: }}\n\
             revoked: {{keys: [{0}], verdicts: ['sha256:{0}']}}\n",
            "ab".repeat(32)
        );
        let config = HookConfig::parse(&text).unwrap();
        assert_eq!((config.demand.rules.len(), config.keys.as_ref().unwrap().len()), (3, 2));
        assert_eq!(HookConfig::parse(&config.to_text()).unwrap(), config);
    }

    #[test]
    fn a_slip_is_an_error_that_names_it() {
        for (text, part) in [
            ("mod: enforce", "did you mean `mode`?"),
            ("mode: enforced", "did you mean `enforce`?"),
            ("demands: {}", "did you mean `demand`?"),
            ("demand: {rule: [builtin]}", "did you mean `rules`?"),
            ("demand: {rules: [shipped]}", "`builtin`, a digest"),
            ("demand: {rules: builtin}", "a list of texts"),
            ("demand: {facts: [alive]}", "`live`, or the id of a key"),
            ("demand: {waivers: none}", "accepted, refused"),
            ("keys: {site.pem: {not_after: 2027-01-01}}", "did you mean `not-after`?"),
            ("keys: {site.pem: {not-after: soon}}", "2027-06-30"),
            ("keys: {site.pem: {not-after: 1}}", "put it in quotes"),
            ("keys: {site.pem: {sources: [hv1]}}", "not a UUID"),
            ("revoked: {keys: [abc]}", "64 hexadecimal digits"),
            ("max-lifetime-minutes: 0", "1 to 10080"),
            ("mode: off", "off"),
            ("time-limit-seconds: 0", "0.1 to 60"),
            ("log-mebibytes: 0", "1 to 1024"),
            ("schema: vmgate/hook/v2", "v2"),
        ] {
            let error = HookConfig::parse(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn the_script_and_the_program_find_the_same_lines() {
        let starts = [
            "on-error:",
            "on-error: ",
            "on-error:\t",
            "mode:  \t",
            "on-error :",
            " on-error: ",
            "\"mode\": ",
        ];
        let words = ["open", "audit-only", "openish", "closed", "open#", "\"open\"", ""];
        let ends = [
            "", " ", "\t", "  # note", "\t# note", "# note", " note", "\r", " \r", "\r # x", "\u{b}",
            "\u{a0}", "\u{85}", " # ö",
        ];
        let mut lines = Vec::new();
        for start in starts {
            lines.extend(
                words.iter().flat_map(|word| ends.iter().map(move |end| format!("{start}{word}{end}"))),
            );
        }
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, lines.join("\n").as_bytes()).unwrap();
        let mut grep = std::process::Command::new("grep");
        let output = grep.args(["-aEn", OPEN_LINE]).arg(file.path()).env("LC_ALL", "C").output().unwrap();
        let found = String::from_utf8_lossy(&output.stdout);
        let found: Vec<usize> =
            found.split('\n').filter_map(|line| line.split(':').next()?.parse().ok()).collect();
        assert!(found.len() > 20, "{found:?}");
        for (number, line) in (1..).zip(&lines) {
            assert_eq!(fallback_open(line), found.contains(&number), "{line:?}");
            assert_eq!(fallback_open(&format!("x: y\n{line}\nz")), found.contains(&number), "{line:?}");
        }
    }

    #[test]
    fn a_slip_elsewhere_does_not_turn_open_into_closed() {
        assert!(fallback_open("mod: enforce\non-error: open # for now\n"));
        assert!(fallback_open("mode:   audit-only\n["));
        for closed in ["on-error: closed", "# on-error: open", "x-on-error: open", "on-error: openish", ""] {
            assert!(!fallback_open(closed), "{closed}");
        }
    }
}
