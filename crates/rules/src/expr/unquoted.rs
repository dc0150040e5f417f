//! The part of an expression's text that is outside of quotes.

/// Bytes outside of quoted texts, each with its offset; the quotes are left out too.
pub(super) fn bytes_outside_quotes(text: &str) -> impl Iterator<Item = (usize, u8)> {
    let mut quote = None;
    let mut escaped = false;
    text.bytes().enumerate().filter(move |(_, byte)| {
        match quote {
            Some(open) => {
                if !escaped && *byte == open {
                    quote = None;
                }
                escaped = !escaped && *byte == b'\\';
                return false;
            }
            None if matches!(byte, b'"' | b'\'') => quote = Some(*byte),
            None => return true,
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_texts_are_passed_over() {
        let outside =
            |text: &str| bytes_outside_quotes(text).map(|(_, byte)| char::from(byte)).collect::<String>();
        assert_eq!(outside("a == \"b\\\"c\" + 'd\"e' + f"), "a ==  +  + f");
        assert_eq!(outside("'\\\\' a 'b"), " a ");
    }
}
