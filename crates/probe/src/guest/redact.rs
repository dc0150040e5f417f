//! Replacement of secrets on command lines, before a command line is stored.
//!
//! The tables below list the patterns. They hide too much rather than too little: a command line only serves to
//! recognise software, and `***` does not hinder that.

use std::sync::LazyLock;

use regex_lite::Regex;

/// The text that replaces a secret.
const HIDDEN: &str = "***";

/// Words that name a secret in an option or variable.
const SECRET_WORD: &str = r"(?:pass(?:wd|word|phrase)?|pwd|secret|token|api[-_.]?key|access[-_.]?key|private[-_.]?key|credentials?|auth|bearer)";

/// Options whose next argument is a secret: `--password hunter2`, `-requirepass hunter2`.
static SECRET_OPTION: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(&format!("(?i)^-{{1,2}}[a-z0-9_.-]*{SECRET_WORD}$|^-{{1,2}}(?:requirepass|masterauth)$")).ok()
});

/// Secrets within one argument: a pattern, and the replacement that keeps the part before the secret.
static WITHIN: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let table = [
        // name=secret and name:secret, in options, variables, JSON and DSNs.
        (format!(r#"(?i)([a-z0-9_.-]*{SECRET_WORD}[a-z0-9_.-]*["']?\s*[=:]\s*["']?)[^\s"'&;,]+"#), "${1}***"),
        // scheme://user:secret@host.
        (r"([A-Za-z][A-Za-z0-9+.-]*://[^\s/:@]*:)[^\s/@]+@".to_owned(), "${1}***@"),
        // HTTP headers.
        (r"(?i)((?:authorization|proxy-authorization|cookie|x-api-key)\s*:\s*).+".to_owned(), "${1}***"),
        (r"(?i)\b((?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}".to_owned(), "${1}***"),
        // Tokens with a recognisable format: JSON web tokens, AWS, GitHub, GitLab, Slack.
        (r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*".to_owned(), "***"),
        (r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b".to_owned(), "***"),
        (r"\b(?:gh[pousr]_|github_pat_|glpat-|xox[abprs]-)[A-Za-z0-9_-]{10,}".to_owned(), "***"),
        (r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*".to_owned(), "***"),
    ];
    table.into_iter().filter_map(|(pattern, kept)| Some((Regex::new(&pattern).ok()?, kept))).collect()
});

/// Short options that take a secret, by program: attached (`mysql -phunter2`), or as the next argument.
const PROGRAMS: [(&str, &str, &str); 6] = [
    ("mysql", "-p", ""),
    ("mysqldump", "-p", ""),
    ("mariadb", "-p", ""),
    ("sshpass", "-p", "-p"),
    ("redis-cli", "", "-a"),
    ("curl", "", "-u"),
];

/// Returns the arguments with their secrets replaced; their number stays the same.
pub(super) fn redact(arguments: &[String]) -> Vec<String> {
    let program = arguments.first().map(|path| path.rsplit('/').next().unwrap_or(path)).unwrap_or_default();
    let special = PROGRAMS.iter().find(|(name, ..)| *name == program);
    let mut next_is_secret = false;
    arguments
        .iter()
        .map(|argument| {
            if std::mem::take(&mut next_is_secret) && !argument.starts_with("--") {
                return HIDDEN.to_owned();
            }
            if let Some((_, glued, separate)) = special {
                if !separate.is_empty() && argument == separate {
                    next_is_secret = true;
                    return argument.clone();
                }
                if !glued.is_empty()
                    && argument.len() > glued.len()
                    && argument.starts_with(glued)
                    && !argument.starts_with("--")
                {
                    return format!("{glued}{HIDDEN}");
                }
            }
            next_is_secret = SECRET_OPTION.as_ref().is_some_and(|option| option.is_match(argument));
            within(argument)
        })
        .collect()
}

fn within(argument: &str) -> String {
    let mut text = argument.to_owned();
    for (pattern, kept) in WITHIN.iter() {
        if pattern.is_match(&text) {
            text = pattern.replace_all(&text, *kept).into_owned();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::guest::redact::*;

    fn line(text: &str) -> String {
        let arguments: Vec<String> = text.split('|').map(str::to_owned).collect();
        redact(&arguments).join(" ")
    }

    #[test]
    fn every_pattern_compiles() {
        assert_eq!(WITHIN.len(), 8);
        assert!(SECRET_OPTION.is_some());
    }

    #[test]
    fn secrets_are_hidden() {
        for (given, kept) in [
            ("app|--password|hunter2|--port|80", "app --password *** --port 80"),
            ("app|--db-password=hunter2", "app --db-password=***"),
            (
                "app|-Dspring.datasource.password=hunter2|-jar|a.jar",
                "app -Dspring.datasource.password=*** -jar a.jar",
            ),
            ("app|--api-key|abc", "app --api-key ***"),
            ("app|--secret-id=hunter2", "app --secret-id=***"),
            ("app|PGPASSWORD=hunter2", "app PGPASSWORD=***"),
            ("app|postgres://joe:hunter2@db/x", "app postgres://joe:***@db/x"),
            ("app|redis://:hunter2@db", "app redis://:***@db"),
            ("curl|-u|joe:hunter2|http://x", "curl -u *** http://x"),
            ("curl|-H|Authorization: Bearer abcdefghijkl", "curl -H Authorization: ***"),
            ("/usr/bin/mysql|-uroot|-phunter2", "/usr/bin/mysql -uroot -p***"),
            ("sshpass|-p|hunter2|ssh|h", "sshpass -p *** ssh h"),
            ("redis-cli|-a|hunter2", "redis-cli -a ***"),
            ("redis-server|--requirepass|hunter2", "redis-server --requirepass ***"),
            ("app|{\"password\": \"hunter2\", \"a\": 1}", "app {\"password\": \"***\", \"a\": 1}"),
            ("sh|-c|export TOKEN=hunter2; run", "sh -c export TOKEN=***; run"),
            ("app|eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.hunter2hunter2", "app ***"),
            ("app|AKIAIOSFODNN7EXAMPLE", "app ***"),
            ("app|ghp_hunter2hunter2hunter2", "app ***"),
        ] {
            let redacted = line(given);
            assert_eq!(redacted, kept, "{given}");
            assert!(!redacted.contains("hunter2"), "{redacted}");
        }
    }

    #[test]
    fn what_is_no_secret_is_kept() {
        for plain in [
            "/usr/sbin/corosync|-f",
            "sshd: /usr/sbin/sshd -D",
            "redis-server *:6379",
            "java|-Xmx4g|-cp|/opt/kafka|kafka.Kafka|config/server.properties",
            "etcd|--name|n1|--initial-advertise-peer-urls|http://10.0.0.1:2380",
            "haproxy|-f|/etc/haproxy/haproxy.cfg",
        ] {
            assert_eq!(line(plain), plain.replace('|', " "));
        }
    }
}
