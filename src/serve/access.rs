//! Access control of the page: people on this machine may read, or whoever sends the token. It is the first thing that is asked
//! of a request.

use std::net::IpAddr;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hyper::{
    HeaderMap,
    header::{AUTHORIZATION, HOST, HeaderName},
};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Access control of the server.
pub(super) enum Access {
    /// Only readers on this machine.
    Local,
    /// Only readers with the token, kept as its digest: digests have one length, so a comparison tells nothing of the token.
    Token([u8; 32]),
}

/// Answer to a reader who may not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The Host header does not name this machine.
    NotLocal,
    /// The token is absent or wrong.
    NoToken,
}

impl Access {
    /// Access for whoever sends this token.
    pub(super) fn with_token(token: &str) -> Self {
        Self::Token(Sha256::digest(token).into())
    }

    /// Refuses a request that has no right to an answer.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        match self {
            // Protection from DNS rebinding: the Host header of a foreign page is not a loopback name.
            Self::Local if only(headers, &HOST).is_some_and(is_local) => Ok(()),
            Self::Local => Err(Refusal::NotLocal),
            Self::Token(digest) => {
                let token = only(headers, &AUTHORIZATION).and_then(token_from).unwrap_or_default();
                let sent: [u8; 32] = Sha256::digest(token).into();
                if bool::from(sent.ct_eq(digest)) { Ok(()) } else { Err(Refusal::NoToken) }
            }
        }
    }
}

/// The value of a header that is sent once: of two, a proxy and this server could each believe another one.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())?.to_str().ok()
}

/// True if a Host header names a loopback address or localhost.
fn is_local(host: &str) -> bool {
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let name = name.map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The token of an Authorization header: a bearer token, or the password of basic authentication.
fn token_from(header: &str) -> Option<String> {
    let (scheme, rest) = header.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    let decoded =
        scheme.eq_ignore_ascii_case("basic").then(|| BASE64_STANDARD.decode(rest.trim()).ok())??;
    String::from_utf8(decoded).ok()?.split_once(':').map(|(_, password)| password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_loopback_is_this_machine() {
        for host in ["localhost", "LOCALHOST:8480", "127.0.0.1:8480", "127.1.2.3", "[::1]:8480", "[::1]"] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example:8480",
            "10.0.0.1:8480",
            "[2001:db8::1]:80",
            "127.0.0.1.nip.io",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }

    #[test]
    fn a_header_that_is_sent_twice_opens_nothing() {
        let mut headers = HeaderMap::new();
        headers.append(HOST, "localhost".parse().unwrap());
        assert_eq!(Access::Local.check(&headers), Ok(()));
        headers.append(HOST, "evil.example".parse().unwrap());
        assert_eq!(Access::Local.check(&headers), Err(Refusal::NotLocal));
    }

    #[test]
    fn a_token_comes_as_bearer_or_as_password() {
        assert_eq!(token_from("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(token_from("basic b3BzOmFiYw==").as_deref(), Some("abc"));
        for nothing in ["", "abc", "Basic", "Basic !!", "Basic b3Bz", "Digest abc"] {
            assert_eq!(token_from(nothing), None, "{nothing}");
        }
    }
}
