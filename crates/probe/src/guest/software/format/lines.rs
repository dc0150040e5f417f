//! Parser of configuration with one setting per line: properties, ini, redis.conf, environment files.

/// Most settings of one file.
const MOST: usize = 20_000;

/// One setting, from one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Setting<'a> {
    /// Name of its `[section]`; empty before the first.
    pub(crate) section: &'a str,
    /// Name of the setting.
    pub(crate) key: &'a str,
    /// Its value, without the quotation marks around it.
    pub(crate) value: &'a str,
}

/// The settings of a text: `key = value`, `key: value` or `key value`. Comments begin a line with `#`, `;` or `!`, or
/// come after ` #`.
pub(crate) fn settings(text: &str) -> impl Iterator<Item = Setting<'_>> {
    let mut section = "";
    text.lines().take(MOST).filter_map(move |line| {
        let line = line.trim().trim_start_matches('\u{feff}');
        if line.starts_with(['#', ';', '!']) {
            return None;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.split(']').next()) {
            section = name.trim();
            return None;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let end = line.find(|c: char| c.is_whitespace() || matches!(c, '=' | ':')).unwrap_or(line.len());
        let (key, value) = line.split_at_checked(end)?;
        let value = value.trim_start().trim_start_matches(['=', ':']).trim_start();
        (!key.is_empty()).then_some(Setting { section, key, value: unquoted(value) })
    })
}

/// The value in the last line with that key.
pub(crate) fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    settings(text).filter(|setting| setting.key == key).map(|setting| setting.value).last()
}

fn unquoted(value: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(rest) = value.strip_prefix(quote) {
            return rest.split(quote).next().unwrap_or(rest);
        }
    }
    value.split(" #").next().unwrap_or(value).trim_end()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::guest::software::format::lines::*;

    #[test]
    fn every_dialect_is_read() {
        let text = "# comment\nplain 1\n[mysqld]\n wsrep_on = ON # yes\nexport A=\"x; y\" \nb: 2\nb: 3\n;b: 4\nlast\n";
        assert_eq!(value(text, "plain"), Some("1"));
        assert_eq!(value(text, "A"), Some("x; y"));
        assert_eq!(value(text, "b"), Some("3"));
        assert_eq!(value(text, "last"), Some(""));
        let on = settings(text).find(|setting| setting.key == "wsrep_on").unwrap();
        assert_eq!((on.section, on.value), ("mysqld", "ON"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,100}", lines in "[a=\\[\\]:\"' #;\n\u{feff}é]{0,100}") {
            settings(&text).chain(settings(&lines)).for_each(drop);
        }
    }
}
