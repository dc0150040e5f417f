//! A series of questions to one host that stops when the host is lost: after the first missing answer the rest is not
//! asked, so that a dead host costs one time limit and not ten.

use vmgate_facts::{Fact, Unknown};
use vmgate_libvirt::{LibvirtError, LibvirtErrorKind};

/// A series of questions that stops when the host is lost.
#[derive(Debug, Default)]
pub(super) struct Asker {
    lost: Option<Unknown>,
}

impl Asker {
    /// Asks a question and returns the answer as a fact. After a loss of the host, returns that loss as the reason.
    pub(super) fn ask<T>(&mut self, question: impl FnOnce() -> Result<T, LibvirtError>) -> Fact<T> {
        if let Some(why) = &self.lost {
            return Fact::Unknown(why.clone());
        }
        question().map_or_else(
            |error| {
                let is_loss = matches!(
                    error.kind,
                    LibvirtErrorKind::TimedOut(_)
                        | LibvirtErrorKind::ConnectionLost(_)
                        | LibvirtErrorKind::Unreachable(_)
                );
                let why = Unknown::from(error);
                if is_loss {
                    self.lost = Some(why.clone());
                }
                Fact::Unknown(why)
            },
            Fact::Known,
        )
    }
}

#[cfg(test)]
mod tests {
    use vmgate_facts::Cause;

    use super::*;

    #[test]
    fn a_lost_host_is_not_asked_again() {
        let error = |kind| LibvirtError { host: "hv1".into(), action: "look".into(), kind };
        let mut asker = Asker::default();
        assert_eq!(asker.ask(|| Ok(1)), Fact::Known(1));
        let refused = asker.ask::<u8>(|| Err(error(LibvirtErrorKind::NotSupported("no".into()))));
        assert!(matches!(refused, Fact::Unknown(why) if why.cause == Cause::NotSupported));
        assert_eq!(asker.ask(|| Ok(2)), Fact::Known(2), "one refusal is not a loss");
        let _ = asker.ask::<u8>(|| Err(error(LibvirtErrorKind::ConnectionLost("gone".into()))));
        let after = asker.ask::<u8>(|| panic!("asked a lost host"));
        assert!(matches!(after, Fact::Unknown(why) if why.cause == Cause::HostUnreachable));
    }
}
