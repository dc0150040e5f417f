//! Patterns over a whole text: `*` stands for any text, `?` for one character, everything else for itself.

/// True if the whole text fits. Costs at most the product of both lengths, however hostile a guest's name is.
pub fn fits(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut rest) = (pattern.chars(), text.chars());
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pattern_fits_the_whole_text_and_nothing_is_special_but_star_and_question_mark() {
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
        assert!(!fits(&("*a".repeat(50) + "b"), &"a".repeat(20_000)));
    }

    proptest! {
        #[test]
        fn agrees_with_a_regular_expression(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
            let expression = pattern.replace('*', ".*").replace('?', ".");
            let expected = regex::Regex::new(&format!("^(?:{expression})$")).unwrap().is_match(&text);
            prop_assert_eq!(fits(&pattern, &text), expected);
        }
    }
}
