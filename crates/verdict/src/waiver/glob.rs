//! Patterns of waivers: `*` and `?` over a whole text. Subjects are full of dots and brackets, so a regular expression would be
//! wrong in most hands: `10.0.0.7` would fit `10a0b0c7`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A pattern in which `*` stands for any text, `?` for one character, and everything else for itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Glob(String);

impl Glob {
    /// Takes any text as a pattern.
    pub fn new(pattern: impl Into<String>) -> Self {
        Self(pattern.into())
    }

    /// The pattern as it was written.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// True if the whole text fits. Costs at most the product of both lengths, however hostile a guest's name is.
    pub fn fits(&self, text: &str) -> bool {
        let (mut pattern, mut rest) = (self.0.chars(), text.chars());
        // Point to continue from if the text after the last `*` does not fit: the star then takes one character more.
        let mut retry = None;
        loop {
            match (pattern.clone().next(), rest.clone().next()) {
                (Some('*'), _) => {
                    pattern.next();
                    retry = Some((pattern.clone(), rest.clone()));
                    continue;
                }
                (Some(wanted), Some(found)) if wanted == '?' || wanted == found => {
                    pattern.next();
                    rest.next();
                    continue;
                }
                (None, None) => return true,
                _ => {}
            }
            let Some((after_star, taken)) = &mut retry else { return false };
            if taken.next().is_none() {
                return false;
            }
            (pattern, rest) = (after_star.clone(), taken.clone());
        }
    }
}

impl JsonSchema for Glob {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Glob".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pattern_fits_the_whole_text_and_nothing_is_special_but_star_and_question_mark() {
        let fits = |pattern, text| Glob::new(pattern).fits(text);
        assert!(fits("* -> 10.0.0.7:5432", "10.0.0.5:41822 -> 10.0.0.7:5432"));
        assert!(fits("web?", "web1") && !fits("web?", "web12") && !fits("web?", "web"));
        assert!(fits("*", "") && fits("**", "x") && fits("", ""));
        assert!(
            !fits("10.0.0.7", "10a0b0c7") && !fits("10.0.0.7", "10.0.0.70") && !fits("0.0.7", "10.0.0.7")
        );
        assert!(fits("[::1]:22", "[::1]:22"));
        assert!(fits("*ab*ab", "aababab") && !fits("*ab*ab", "aabab "));
        assert!(fits("ä?", "äß"));
    }

    #[test]
    fn a_hostile_pattern_and_text_end_soon() {
        assert!(!Glob::new("*a".repeat(50) + "b").fits(&"a".repeat(20_000)));
    }

    proptest! {
        #[test]
        fn agrees_with_a_regular_expression(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
            let expression = pattern.replace('*', ".*").replace('?', ".");
            let expected = regex::Regex::new(&format!("^(?:{expression})$")).unwrap().is_match(&text);
            prop_assert_eq!(Glob::new(pattern).fits(&text), expected);
        }
    }
}
