//! Private groups: a group that has nobody in it but one user, so that what it may write only that user may write.
//!
//! Many systems give each user such a group and the umask 002. ssh of Debian looks at the same two files.

use std::{fs, fs::Metadata, os::unix::fs::MetadataExt, path::Path};

/// Name of the extended attribute with a file's access control list.
const ACCESS_LIST: &str = "system.posix_acl_access";

/// True if the group of a file is the private group of its owner, and no access control list says otherwise: with one, the
/// mode's bits for the group are a limit on other users. Never for root, whose files have no reason to be like that.
pub(crate) fn only_for_owner(path: &Path, metadata: &Metadata) -> bool {
    let (user, group) = (metadata.uid(), metadata.gid());
    user != 0 && !has_access_list(path) && {
        let text = |file| fs::read_to_string(file).unwrap_or_default();
        is_private(&text("/etc/passwd"), &text("/etc/group"), user, group)
    }
}

fn has_access_list(path: &Path) -> bool {
    match rustix::fs::getxattr(path, ACCESS_LIST, &mut [0_u8; 0]) {
        Ok(length) => length > 0,
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => false,
        Err(_) => true,
    }
}

/// The same by the texts of the two files. A user or group that they do not list, such as one of LDAP, has no private group
/// here: who is in it cannot be known.
fn is_private(users: &str, groups: &str, user: u32, group: u32) -> bool {
    let lines = |text: &str| -> Vec<Vec<String>> {
        text.lines().map(|line| line.split(':').map(str::to_owned).collect()).collect()
    };
    let number = |line: &[String], at: usize| line.get(at).and_then(|field| field.parse::<u32>().ok());
    let users = lines(users);
    let mut of_group = users.iter().filter(|line| number(line, 3) == Some(group));
    let (Some(only), None) = (of_group.next(), of_group.next()) else { return false };
    let Some(name) = only.first().filter(|_| number(only, 2) == Some(user)) else { return false };
    let groups = lines(groups);
    let mut named = groups.iter().filter(|line| number(line, 2) == Some(group)).peekable();
    named.peek().is_some()
        && named.all(|line| {
            line.get(3)
                .is_none_or(|members| members.split(',').all(|member| member.is_empty() || member == name))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_private_if_its_owner_is_alone_in_it() {
        let users = "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\nbob:x:1001:100::/home/bob:/bin/sh\n\
                     eve:x:1002:100::/:/bin/sh\n";
        let groups = "root:x:0:\nann:x:1000:\nusers:x:100:\nstaff:x:50:ann\n";
        assert!(is_private(users, groups, 1000, 1000));
        assert!(!is_private(users, groups, 1001, 100), "two users have it");
        assert!(!is_private(users, groups, 1000, 50), "not the user's own group");
        assert!(!is_private(users, groups, 1001, 1000), "somebody else's");
        assert!(!is_private(users, groups, 4711, 4711), "unknown");
        assert!(!is_private(users, "ann:x:1000:bob", 1000, 1000));
        assert!(is_private(users, "ann:x:1000:ann", 1000, 1000));
        assert!(!is_private(users, "ann:x:1000:\nadmin:x:1000:eve", 1000, 1000), "one number, two names");
        assert!(!is_private(users, "", 1000, 1000));
    }
}
