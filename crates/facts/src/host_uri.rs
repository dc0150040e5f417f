//! Addresses in documents: hosts and guests as a change file, an inventory or a record may name them.
//!
//! A host is named by a libvirt URI, or by `ssh://USER@HOST` where it has no libvirt. A libvirt URI can start programs (`command`, `netcat`, the transport `ext`), read files (`keyfile`, `pkipath`, the driver
//! `test`) and switch off proofs of identity (`no_verify`, `sshauth`). What is read may do none of that: a document names a
//! host, and how the host is reached is said on the command line or in vmgate.yaml. So this is a list of what is allowed.

use std::{fmt, str::FromStr};

use super::{InvalidUri, Uri};

/// Transports that a document may choose.
const TRANSPORTS: &[&str] = &["ssh", "libssh", "libssh2", "tls", "tcp", "unix"];
/// Paths that a document may choose.
const PATHS: &[&str] = &["/system", "/session"];
/// Parameters that a document may have, with their values; vmgate itself adds this one.
const PARAMETERS: &[(&str, &str)] = &[("no_tty", "1")];

/// URI of a host, as a document names it: no programs, no files, no weaker proof of identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostUri(Uri);

/// Address of a guest for ssh, as a document names it: user, host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestAddress(Uri);

impl FromStr for HostUri {
    type Err = InvalidUri;

    fn from_str(text: &str) -> Result<Self, InvalidUri> {
        let uri = Uri::from_operator(text)?;
        let host = uri.host.as_deref().filter(|host| is_host(host)).unwrap_or("NAME");
        match not_allowed(&uri) {
            None => Ok(Self(uri)),
            Some(part) => Err(InvalidUri::NotInDocuments {
                part,
                uri: text.to_owned(),
                way_out: format!("vmgate.yaml, as `hosts: {{{host}: {{uri: …}}}}`"),
                here: format!("qemu+ssh://{host}/system"),
            }),
        }
    }
}

impl HostUri {
    /// Host name or address; absent for this machine.
    pub fn host(&self) -> Option<&str> {
        self.0.host.as_deref()
    }

    /// Name of the host for messages; `this machine` where the URI names none.
    pub fn host_for_people(&self) -> &str {
        self.0.host_for_people()
    }

    /// True if a connection goes to this host: by the same host and port, whatever the way there.
    pub fn is_reached_by(&self, connection: &Uri) -> bool {
        self.0 == *connection
            || (self.0.host.is_some() && (&self.0.host, self.0.port) == (&connection.host, connection.port))
    }
}

/// The URI to connect with, for a host of which the site's configuration says nothing.
impl From<&HostUri> for Uri {
    fn from(named: &HostUri) -> Self {
        named.0.clone()
    }
}

impl fmt::Display for HostUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Parses `ssh://USER@HOST[:PORT]`.
impl FromStr for GuestAddress {
    type Err = InvalidUri;

    fn from_str(text: &str) -> Result<Self, InvalidUri> {
        let place = text.strip_prefix("ssh://").unwrap_or(text).trim_end_matches('/');
        let uri = Uri::from_operator(&format!("qemu+ssh://{place}"))?;
        let part = match (&uri.host, uri.path.as_str()) {
            (None, _) => return Err(InvalidUri::NotAUri(text.to_owned())),
            (_, "") => not_allowed(&Uri { path: "/system".to_owned(), ..uri.clone() }),
            (_, path) => Some(format!("the path `{path}`")),
        };
        match part {
            None => Ok(Self(uri)),
            Some(part) => Err(InvalidUri::NotInDocuments {
                part,
                uri: text.to_owned(),
                way_out: "vmgate.yaml, as `guests: {VM: {ssh: …}}`".to_owned(),
                here: "ssh, or ssh://USER@HOST:PORT".to_owned(),
            }),
        }
    }
}

impl GuestAddress {
    /// The address as a URI with the transport ssh.
    pub fn uri(&self) -> &Uri {
        &self.0
    }
}

/// The first part of a URI that a document may not have.
fn not_allowed(uri: &Uri) -> Option<String> {
    if uri.names_libvirt() && uri.driver != "qemu" {
        return Some(format!("the driver `{}`", uri.driver));
    }
    let (transports, paths) = if uri.names_libvirt() { (TRANSPORTS, PATHS) } else { (&[][..], &[""][..]) };
    if let Some(transport) = uri.transport.as_deref().filter(|transport| !transports.contains(transport)) {
        return Some(format!("the transport `{transport}`"));
    }
    let parameter = uri.parameters.iter().find(|(name, value)| !PARAMETERS.contains(&(name, value)));
    if let Some((name, _)) = parameter {
        return Some(format!("the parameter `{name}`"));
    }
    if let Some(host) = uri.host.as_deref().filter(|host| !is_host(host)) {
        return Some(format!("the host `{host}`"));
    }
    if let Some(user) = uri.user.as_deref().filter(|user| !is_user(user)) {
        return Some(format!("the user `{user}`"));
    }
    if uri.host.is_none() && !uri.names_libvirt() {
        return Some("an ssh address without a host".to_owned());
    }
    (!paths.contains(&uri.path.as_str())).then(|| format!("the path `{}`", uri.path))
}

/// True for a name or an address: no option, nothing that a shell or ssh's configuration could expand.
fn is_host(host: &str) -> bool {
    let address = host.parse::<std::net::Ipv6Addr>().is_ok();
    address || (is_word(host) && !host.ends_with('-'))
}

fn is_user(user: &str) -> bool {
    is_word(user)
}

fn is_word(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(text: &str) -> String {
        text.parse::<HostUri>().expect_err(text).to_string()
    }

    #[test]
    fn a_document_names_hosts_in_the_usual_ways() {
        for text in [
            "qemu:///system",
            "qemu:///session",
            "qemu://hv1/system",
            "qemu+ssh://root@hv1.example.org:2222/system",
            "qemu+libssh2://hv_1/system?no_tty=1",
            "qemu+tls://hv-1/system",
            "qemu+tcp://[fd00::1]:16509/system",
            "qemu+unix:///system",
            "ssh://root@pve1",
            "ssh://[fd00::1]:2222",
        ] {
            assert_eq!(text.parse::<HostUri>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_document_starts_no_program_reads_no_file_and_weakens_no_proof() {
        for name in [
            "command",
            "netcat",
            "socket",
            "keyfile",
            "pkipath",
            "sshauth",
            "known_hosts",
            "known_hosts_verify",
            "no_verify",
            "no_sanity",
            "mode",
            "proxy",
            "tls_priority",
            "auth",
            "name",
            "COMMAND",
            "any",
        ] {
            let why = refused(&format!("qemu+ssh://root@hv1/system?no_tty=1&{name}=1"));
            assert!(why.contains(&format!("the parameter `{name}`")), "{why}");
            assert!(why.contains("hosts: {hv1: {uri: …}}"), "{why}");
        }
        for (text, part) in [
            ("qemu+ext://x/system?command=/bin/x", "the transport `ext`"),
            ("qemu+EXT://x/system", "the transport `EXT`"),
            ("test:///srv/hosts.xml", "the driver `test`"),
            ("QEMU:///system", "the driver `QEMU`"),
            ("esx://x/system", "the driver `esx`"),
            ("qemu:///embed?root=/srv", "the parameter `root`"),
            ("qemu:///embed", "the path `/embed`"),
            ("qemu:///system/../embed", "the path"),
            ("qemu:///system%2f", "the path"),
            ("qemu:///system#x", "the path"),
            ("qemu://hv1", "the path"),
            ("qemu+ssh://-oProxyCommand=x/system", "the host"),
            ("qemu+ssh://hv1%20-o/system", "the host"),
            ("qemu+ssh://[fe80::1%25eth0]/system", "the host"),
            ("qemu+ssh://[$(x)]/system", "the host"),
            ("qemu+ssh://-lroot@hv1/system", "the user"),
            ("qemu+ssh://%2doProxy@hv1/system", "the user"),
            ("qemu+ssh://a%40b@hv1/system", "the user"),
            ("qemu+ssh://hv1/system?no_tty=1;command=/bin/x", "the parameter `no_tty`"),
            ("qemu+ssh://hv1/system?%63ommand=/bin/x", "the parameter `%63ommand`"),
            ("qemu+ssh://hv1/system?no_tty=0", "the parameter `no_tty`"),
            ("ssh://root@pve1?command=/bin/x", "the parameter `command`"),
            ("ssh://-oProxyCommand=x", "the host"),
            ("ssh://root@pve1/system", "the path"),
            ("ssh+ext://pve1", "the transport `ext`"),
            ("ssh://", "without a host"),
        ] {
            let why = refused(text);
            assert!(why.contains(part), "{text}: {why}");
        }
    }

    #[test]
    fn a_guest_has_a_user_a_host_and_a_port() {
        for text in ["ssh://ops@web1:2222", "ssh://web1/", "ops@web1", "ssh://[fd00::1]:22"] {
            assert!(text.parse::<GuestAddress>().is_ok(), "{text}");
        }
        for text in [
            "ssh://web1?command=/bin/x",
            "ssh://web1?keyfile=/k",
            "ssh://web1?no_verify=1",
            "ssh://web1/system",
            "ssh://-oProxyCommand=x",
            "ssh://-l@web1",
            "ssh://",
        ] {
            assert!(text.parse::<GuestAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_host_is_known_by_name_and_port_whatever_the_way_there() {
        let named: HostUri = "qemu+ssh://root@hv1/system".parse().unwrap();
        let reached = |text: &str| named.is_reached_by(&Uri::from_operator(text).unwrap());
        assert!(reached("qemu+ssh://root@hv1/system"));
        assert!(reached("qemu+tls://hv1/system?pkipath=/srv/pki"));
        assert!(!reached("qemu+ssh://root@hv2/system"));
        assert!(!reached("qemu+ssh://root@hv1:2222/system"), "perhaps a tunnel to another host");
        assert!(!reached("qemu:///system"));
        let here: HostUri = "qemu:///system".parse().unwrap();
        assert!(!here.is_reached_by(&Uri::from_operator("qemu+unix:///system?socket=/x").unwrap()));
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_plain(text in "[a-z+]{0,8}://[ -~]{0,40}") {
            if let Ok(uri) = text.parse::<HostUri>() {
                let shown = uri.to_string();
                let plain = |c: char| c.is_ascii_alphanumeric() || "+:/@.-_[]?=".contains(c);
                prop_assert!(shown.chars().all(plain), "{}", shown);
                prop_assert!(shown.starts_with("qemu") || shown.starts_with("ssh://"));
                prop_assert_eq!(shown.parse::<HostUri>().unwrap(), uri);
            }
        }
    }
}
