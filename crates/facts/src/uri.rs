//! Parser of libvirt connection URIs, from which the way to the host probe is derived, too.
//!
//! Shapes are those of <https://libvirt.org/uri.html>: `driver[+transport]://[user@][host][:port]/path[?name=value&…]`.
//! A password is not accepted: libvirt ignores it, and it would end up in logs and ledgers. A URI may start programs, so it
//! is what an operator wrote, on the command line or in vmgate.yaml; documents name hosts by a [`super::HostUri`].

use std::{
    fmt::{self, Write as _},
    path::Path,
};

use thiserror::Error;

/// A libvirt URI to connect with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uri {
    /// Hypervisor driver: `qemu`, or `test` for libvirt's own mock.
    pub driver: String,
    /// Transport after the `+`, such as `ssh`; absent where libvirt chooses.
    pub transport: Option<String>,
    /// User to log in as on the host.
    pub user: Option<String>,
    /// Host name or address, IPv6 without its brackets; absent for this machine.
    pub host: Option<String>,
    /// Port of the transport.
    pub port: Option<u16>,
    /// Path with its leading slash, such as `/system`.
    pub path: String,
    /// Parameters after the `?`, in their order.
    pub parameters: Vec<(String, String)>,
    /// Name by which documents and the site's configuration know the host, where the URI has another or none. No part of the
    /// text.
    pub known_as: Option<String>,
}

/// Error for a text that is not a URI that vmgate can use.
#[derive(Debug, Error, PartialEq, Eq)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum InvalidUri {
    /// The text has no `driver://`.
    #[error(
        "`{0}` is not a libvirt URI: write it as qemu+ssh://root@HOST/system, or qemu:///system for this machine"
    )]
    NotAUri(String),
    /// The URI contains a password.
    #[error(
        "the URI of host `{0}` contains a password, which libvirt would ignore: remove the password, and use an ssh key or libvirt's auth.conf instead"
    )]
    Password(String),
    /// The port is not a number from 1 to 65535.
    #[error("`{port}` is not a port in the URI `{uri}`: use a number from 1 to 65535")]
    Port { port: String, uri: String },
    /// The text contains a control character or white space.
    #[error("the URI {0:?} contains a control character or a space: remove that character")]
    Characters(String),
    /// A document has something in a URI that only an operator may say.
    #[error(
        "{part} is not allowed in a document (`{uri}`): write the URI with it in {way_out}, and here {here}"
    )]
    NotInDocuments { part: String, uri: String, way_out: String, here: String },
}

impl Uri {
    /// Parses a URI that an operator wrote: on the command line or in the site's configuration. It may start programs.
    pub fn from_operator(text: &str) -> Result<Self, InvalidUri> {
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(InvalidUri::Characters(text.to_owned()));
        }
        let not_a_uri = || InvalidUri::NotAUri(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(not_a_uri)?;
        let (driver, transport) = match scheme.split_once('+') {
            Some((driver, transport)) => (driver, Some(transport.to_owned())),
            None => (scheme, None),
        };
        let word = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric());
        if !word(driver) || !transport.as_deref().is_none_or(word) {
            return Err(not_a_uri());
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        let (user, place) = match authority.rsplit_once('@') {
            Some((user, place)) => (Some(decode(user)), place),
            None => (None, authority),
        };
        let (host, port) = split_port(place).ok_or_else(not_a_uri)?;
        if user.as_deref().is_some_and(|user| user.contains(':')) {
            return Err(InvalidUri::Password(host.to_owned()));
        }
        let port = port
            .map(|port| {
                port.parse()
                    .ok()
                    .filter(|&number: &u16| number != 0)
                    .ok_or_else(|| InvalidUri::Port { port: port.to_owned(), uri: text.to_owned() })
            })
            .transpose()?;
        let parameters = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(name, value)| (name.to_owned(), decode(value)))
            .collect();
        Ok(Self {
            driver: driver.to_owned(),
            transport,
            user: user.filter(|user| !user.is_empty()),
            host: Some(host.to_owned()).filter(|host| !host.is_empty()),
            port,
            path: path.to_owned(),
            parameters,
            known_as: None,
        })
    }
}

/// Host and port of an authority; none where brackets do not match.
fn split_port(place: &str) -> Option<(&str, Option<&str>)> {
    if let Some(bracketed) = place.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']')?;
        return match rest {
            "" => Some((host, None)),
            _ => rest.strip_prefix(':').map(|port| (host, Some(port))),
        };
    }
    match place.split_once(':') {
        Some((host, port)) => Some((host, Some(port))),
        None => Some((place, None)),
    }
}

impl Uri {
    /// A parameter's value.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// False for a host that is only logged in to (`ssh://root@hv1`): nothing of its libvirt is asked.
    pub fn names_libvirt(&self) -> bool {
        self.driver != "ssh"
    }

    /// Name by which documents and the site's configuration know the host; absent for this machine.
    pub fn name(&self) -> Option<&str> {
        self.known_as.as_deref().or(self.host.as_deref())
    }

    /// Name of the host for messages; `this machine` where there is none.
    pub fn host_for_people(&self) -> &str {
        self.name().unwrap_or("this machine")
    }

    /// The URI as libvirt gets it: with `no_tty` added for ssh, so that nothing ever waits for a password, and with a program
    /// in place of ssh if one is given.
    pub fn for_libvirt(&self, ssh_program: Option<&Path>) -> String {
        let mut uri = self.clone();
        if let Some(program) = ssh_program {
            uri.parameters.push(("command".to_owned(), program.display().to_string()));
        }
        let ssh = matches!(uri.transport.as_deref(), Some("ssh" | "libssh" | "libssh2" | "ext"));
        if ssh && uri.parameter("no_tty").is_none() {
            uri.parameters.push(("no_tty".to_owned(), "1".to_owned()));
        }
        uri.to_string()
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.driver)?;
        if let Some(transport) = &self.transport {
            write!(f, "+{transport}")?;
        }
        f.write_str("://")?;
        if let Some(user) = &self.user {
            write!(f, "{}@", encode(user))?;
        }
        match self.host.as_deref() {
            Some(host) if host.contains(':') => write!(f, "[{host}]")?,
            Some(host) => f.write_str(host)?,
            None => {}
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        f.write_str(&self.path)?;
        for (index, (name, value)) in self.parameters.iter().enumerate() {
            write!(f, "{}{name}={}", if index == 0 { '?' } else { '&' }, encode(value))?;
        }
        Ok(())
    }
}

/// Replaces `%41` by `A`; an invalid escape stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = (byte == b'%')
            .then(|| tail.get(..2))
            .flatten()
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Escapes characters that would end a part of a URI early.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/:,".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_of_libvirt_uri_survives_a_round_trip() {
        for text in [
            "qemu:///system",
            "qemu+ssh://root@hv1:2222/system?keyfile=/etc/vmgate/id&no_verify=1",
            "qemu+tcp://[fd00::1]:16509/system",
            "qemu+unix:///system?socket=/run/lab%20a/libvirt-sock",
            "test:///default",
        ] {
            let uri = Uri::from_operator(text).unwrap();
            assert_eq!(uri.to_string(), text);
        }
        let uri = Uri::from_operator("qemu+ssh://root@[fe80::1]:2222/system?keyfile=/k%41").unwrap();
        assert_eq!((uri.host.as_deref(), uri.port), (Some("fe80::1"), Some(2222)));
        assert_eq!(uri.parameter("keyfile"), Some("/kA"));
    }

    #[test]
    fn ssh_never_asks_for_a_password() {
        let uri = Uri::from_operator("qemu+ssh://hv1/system").unwrap();
        assert_eq!(uri.for_libvirt(None), "qemu+ssh://hv1/system?no_tty=1");
        let own = uri.for_libvirt(Some(Path::new("/tmp/over login")));
        assert_eq!(own, "qemu+ssh://hv1/system?command=/tmp/over%20login&no_tty=1");
        let uri = Uri::from_operator("qemu:///system").unwrap();
        assert_eq!(uri.for_libvirt(None), "qemu:///system");
    }

    #[test]
    fn what_is_no_uri_is_refused_with_the_way_to_write_one() {
        for text in ["", "hv1", "://x", "qemu+://h/s", "qemu://[::1/system", "qemu://[::1]x/system"] {
            assert!(matches!(Uri::from_operator(text), Err(InvalidUri::NotAUri(_))), "{text}");
        }
        assert!(matches!(Uri::from_operator("qemu://h:x/s"), Err(InvalidUri::Port { .. })));
        assert!(matches!(Uri::from_operator("qemu://h:0/s"), Err(InvalidUri::Port { .. })));
        assert!(matches!(Uri::from_operator("qemu://h/s\u{1b}[2J"), Err(InvalidUri::Characters(_))));
        let refused = Uri::from_operator("qemu+ssh://root:hunter2@h/s").unwrap_err();
        assert!(!refused.to_string().contains("hunter2"));
    }
}
