//! Galera: a member silent for evs.suspect_timeout (PT5S) is suspected, and removed once the others agree; after
//! evs.inactive_timeout (PT15S) it is removed without agreement. Both are set in wsrep_provider_options.

use vmgate_facts::DetectorBasis;

use crate::guest::software::{
    Evidence, Question, Reading, Software,
    format::{duration::seconds, lines},
};

const SUSPECT: &str = "evs.suspect_timeout";
const INACTIVE: &str = "evs.inactive_timeout";

pub(super) const GALERA: Software = Software {
    id: "galera",
    names: &["mysqld", "mariadbd"],
    // In the order in which Debian and Red Hat read them: the last file that sets the options wins.
    files: &[
        "/etc/my.cnf",
        "/etc/mysql/my.cnf",
        "/etc/mysql/mariadb.cnf",
        "/etc/mysql/conf.d/galera.cnf",
        "/etc/mysql/mariadb.conf.d/50-server.cnf",
        "/etc/mysql/mariadb.conf.d/60-galera.cnf",
        "/etc/mysql/mariadb.conf.d/99-galera.cnf",
        "/etc/mysql/mysql.conf.d/mysqld.cnf",
        "/etc/my.cnf.d/server.cnf",
        "/etc/my.cnf.d/mariadb-server.cnf",
        "/etc/my.cnf.d/galera.cnf",
    ],
    extra_questions: |running| {
        let client = if running.name == "mysqld" { "mysql" } else { "mariadb" };
        // By the distribution's default, root logs in over the local socket without a password.
        let query = "select @@wsrep_on, @@wsrep_provider_options";
        let mut questions =
            vec![Question::Command(format!("{client} --connect-timeout=2 -N -B -e \"{query}\""))];
        questions.extend(running.option("--defaults-file").and_then(|path| running.file(path)));
        questions
    },
    read,
    default: Some((5.0, "Galera parameters, evs.suspect_timeout of PT5S")),
    ..Software::BASE
};

pub(super) const ARBITRATOR: Software = Software {
    id: "galera",
    names: &["garbd"],
    files: &["/etc/default/garb", "/etc/sysconfig/garb"],
    read: |evidence| {
        let options = evidence.running.option("--options").or_else(|| evidence.running.option("-o"));
        let in_file = evidence.files().find_map(|(path, text)| {
            evs(path, lines::value(&text, "GALERA_OPTIONS")?, DetectorBasis::Configuration)
        });
        options
            .and_then(|options| evs("command line", options, DetectorBasis::Configuration))
            .or(in_file)
            .unwrap_or(Reading::NotConfigured)
    },
    default: GALERA.default,
    ..Software::BASE
};

fn read(evidence: &Evidence<'_>) -> Reading {
    if let Some(output) = evidence.outputs().next() {
        let on = output.trim_start().starts_with(['1', 'O']);
        return match evs("wsrep_provider_options", &output, DetectorBasis::Tool) {
            Some(found) if on => found,
            _ if on => Reading::NotConfigured,
            _ => Reading::NotAMember,
        };
    }
    let mut on = evidence.running.has_argument_with("wsrep");
    let mut options = evidence
        .running
        .option("--wsrep_provider_options")
        .or(evidence.running.option("--wsrep-provider-options"))
        .and_then(|options| evs("command line", options, DetectorBasis::Configuration));
    let from_command_line = options.is_some();
    for (path, text) in evidence.files() {
        for setting in lines::settings(&text) {
            match setting.key.replace('-', "_").as_str() {
                "wsrep_on" => {
                    on = matches!(setting.value.to_ascii_lowercase().as_str(), "on" | "1" | "true" | "");
                }
                // MySQL with Galera has no wsrep_on in its files; a configured provider makes it a member.
                "wsrep_provider" if evidence.running.name != "mariadbd" => on |= setting.value != "none",
                "wsrep_provider_options" if !from_command_line => {
                    options = evs(path, setting.value, DetectorBasis::Configuration);
                }
                _ => {}
            }
        }
    }
    match options {
        Some(found) if on => found,
        _ if on => Reading::NotConfigured,
        _ => Reading::NotAMember,
    }
}

/// Parses the time-outs in a list of provider options, `key = value; key = value`.
fn evs(place: &str, options: &str, basis: DetectorBasis) -> Option<Reading> {
    let value = |key: &str| {
        options.rsplit([';', '\t', '\n']).find_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            (name.trim() == key).then(|| seconds(value, 1.0))?
        })
    };
    let suspect = value(SUSPECT);
    let inactive = value(INACTIVE);
    let (tightest, words) = match (suspect, inactive) {
        (Some(suspect), Some(inactive)) => {
            (suspect.min(inactive), format!("{SUSPECT} {suspect} s, {INACTIVE} {inactive} s"))
        }
        (Some(suspect), None) => (suspect, format!("{SUSPECT} {suspect} s")),
        (None, Some(inactive)) if inactive < 5.0 => (inactive, format!("{INACTIVE} {inactive} s")),
        _ => return None,
    };
    Some(Reading::Timeout { seconds: tightest, basis, source: format!("{place} {words}") })
}

#[cfg(test)]
mod tests {
    use crate::guest::software::{
        galera::*,
        testing::{Case, read},
    };

    const SIXTY: &str = "/etc/mysql/mariadb.conf.d/60-galera.cnf";

    #[test]
    fn the_server_says_what_holds() {
        let output = "1\tbase_dir = /var/lib/mysql/; evs.inactive_timeout = PT15S; evs.suspect_timeout = PT7S; socket.ssl_password = hunter2;\n";
        let case = Case::process("mariadbd", &["/usr/sbin/mariadbd"]).output(output);
        let Reading::Timeout { seconds, basis, source } = read(&GALERA, &case) else { panic!("not read") };
        assert_eq!((seconds, basis), (7.0, DetectorBasis::Tool));
        assert_eq!(source, "wsrep_provider_options evs.suspect_timeout 7 s, evs.inactive_timeout 15 s");
        let alone = Case::process("mariadbd", &["mariadbd"]).output("0\t\n");
        assert_eq!(read(&GALERA, &alone), Reading::NotAMember);
    }

    #[test]
    fn the_files_say_it_where_the_server_lets_nobody_in() {
        let text = "[mysqld]\nwsrep_on=ON\nwsrep-provider-options=\"gcache.size=2M; evs.suspect_timeout=PT30S\" # slow\n";
        let case = Case::process("mariadbd", &["/usr/sbin/mariadbd"]).file(SIXTY, text);
        assert_eq!(
            read(&GALERA, &case),
            Reading::configured(30.0, format!("{SIXTY} evs.suspect_timeout 30 s"))
        );
        let command = Case::process(
            "mariadbd",
            &["mariadbd", "--wsrep_on=ON", "--wsrep_provider_options=evs.suspect_timeout=PT3S"],
        );
        assert_eq!(read(&GALERA, &command), Reading::configured(3.0, "command line evs.suspect_timeout 3 s"));
        let silent = Case::process("mariadbd", &["mariadbd"]).file(SIXTY, "[galera]\nwsrep_on = ON\n");
        assert_eq!(read(&GALERA, &silent), Reading::NotConfigured);
        let alone = Case::process("mariadbd", &["mariadbd"]).file(SIXTY, "[galera]\n#wsrep_on = ON\n");
        assert_eq!(alone.detector(&GALERA), None);
    }

    #[test]
    fn the_arbitrator_has_options_of_its_own() {
        let case = Case::process(
            "garbd",
            &["garbd", "--options", "evs.suspect_timeout=PT8S;gmcast.listen_addr=tcp://0:4567"],
        );
        assert_eq!(
            read(&ARBITRATOR, &case),
            Reading::configured(8.0, "command line evs.suspect_timeout 8 s")
        );
    }
}
