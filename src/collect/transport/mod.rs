//! Transports that run a probe on a host: locally, over ssh, or by a command of the user.

mod child;
pub mod guest;
mod login;
mod shell;
mod ssh;

use std::{io, process::Command, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::Value;

pub use child::{ChildFailure, Output, run};
pub use guest::GuestAccess;
pub use login::Login;
pub use shell::{HostShell, Program, ShellError};
pub use ssh::{SshTarget, Subject, quoted};

use super::{
    Uri,
    probe::{
        flows::{self, FlowProbe},
        host::{self, HostProbe, HostQuestions, PeerQuestions},
        trace,
    },
    text::plain,
};
use crate::fact::{Cause, Fact, Unknown, trace::DirtyTrace};

/// Most bytes of a probe's answer: room for some 10,000 interfaces.
const ANSWER_LIMIT: usize = 8 << 20;

/// Most bytes of a dirty trace: room for the largest sample of a guest that changes every page at random.
const TRACE_LIMIT: usize = 24 << 20;

/// Most bytes of the flows of a VM: room for the most flows that are distinguished on two interfaces.
const FLOWS_LIMIT: usize = 24 << 20;

/// Transport to a host's probe.
#[derive(Debug, Clone)]
pub enum Transport {
    /// The host is this machine.
    Local,
    /// Over ssh.
    Ssh(SshTarget),
    /// Over one ssh login for several runs, with the probe kept ready on the host.
    SharedLogin(Arc<Login>),
    /// A command that prints the answer of `vmgate probe host` of that host. The probe's arguments are added.
    Exec(Vec<String>),
    /// No probe, for this reason.
    None(String),
}

/// A probe's answer and the time of its arrival.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The answer.
    pub probe: HostProbe,
    /// Time of arrival by the operator's clock.
    pub received: Timestamp,
}

impl Transport {
    /// The transport for a libvirt URI: ssh to the host, as the user and with the key of the URI; as root for a URI over
    /// TCP or TLS, which know no users; local for a URI without a host.
    pub fn for_uri(uri: &Uri) -> Self {
        if uri.driver == "test" {
            return Self::None("libvirt's test driver has no real host to probe".to_owned());
        }
        match &uri.host {
            None => Self::Local,
            Some(host) => Self::Ssh(SshTarget::for_uri(uri, host)),
        }
    }

    /// The same transport for several runs: over ssh it starts one login now, for all runs. The probe stays ready on the
    /// host until the last clone is dropped.
    #[must_use]
    pub fn with_shared_login(self, limit: Duration) -> Self {
        match &self {
            Self::Ssh(target) => {
                Login::begin(target, limit).map_or(self, |login| Self::SharedLogin(Arc::new(login)))
            }
            _ => self,
        }
    }

    /// Description of the method, for provenance.
    pub fn method(&self, subject: Subject) -> String {
        let trace = if subject == Subject::Trace { " --trace" } else { "" };
        let probe = format!("vmgate probe {}{trace}", subject.command());
        match self {
            Self::Local => format!("{probe}, on this machine"),
            Self::Ssh(target) => format!("{probe}, over ssh to {target}"),
            Self::SharedLogin(login) => format!("{probe}, over ssh to {}", login.target()),
            Self::Exec(words) => format!("{probe}, by {}", words.first().map_or("nothing", String::as_str)),
            Self::None(_) => "none".to_owned(),
        }
    }

    /// Asks the host's probe, for at most `limit` and what the questions themselves take.
    pub fn probe_host(&self, questions: &HostQuestions, limit: Duration) -> Result<Answer, Unknown> {
        let limit = limit + questions.peer.as_ref().map_or(Duration::ZERO, PeerQuestions::longest);
        let (probe, received) = match self {
            Self::Local => look_here(questions, limit)?,
            Self::Ssh(target) => parse_host_answer(&target.run_probe(
                Subject::Host,
                &arguments(questions),
                limit,
                ANSWER_LIMIT,
            )?)?,
            Self::SharedLogin(login) => parse_host_answer(&login.run_probe(
                Subject::Host,
                &arguments(questions),
                limit,
                ANSWER_LIMIT,
            )?)?,
            Self::Exec(words) => parse_host_answer(&exec(words, &arguments(questions), limit)?)?,
            Self::None(why) => return Err(Unknown::new(Cause::NoHostProbe, why.clone())),
        };
        Ok(Answer { probe, received })
    }
}

impl Transport {
    /// Watches UDP flows on interfaces of the host for `window`, which passes in this call; for at most `limit` more.
    pub fn watch_flows(
        &self,
        interfaces: &[String],
        window: Duration,
        limit: Duration,
    ) -> Result<FlowProbe, Unknown> {
        let mut arguments = vec![format!("--seconds={}", window.as_secs_f64()), "--".to_owned()];
        arguments.extend_from_slice(interfaces);
        match self {
            Self::Local => Ok(flows::probe(interfaces, window, &flows::Limits::default())),
            Self::Ssh(target) => parse_flow_answer(&target.run_probe(
                Subject::Flows,
                &arguments,
                window + limit,
                FLOWS_LIMIT,
            )?),
            Self::SharedLogin(login) => parse_flow_answer(&login.run_probe(
                Subject::Flows,
                &arguments,
                window + limit,
                FLOWS_LIMIT,
            )?),
            Self::Exec(_) => Err(Unknown::new(
                Cause::NotSupported,
                "a probe command can run only `vmgate probe host`: to watch flows, use ssh or run vmgate on the host",
            )),
            Self::None(why) => Err(Unknown::new(Cause::NoHostProbe, why.clone())),
        }
    }
}

impl Transport {
    /// Traces a VM's pages on the host for `length`, which passes in this call, at the cost of a share of a core; for at
    /// most `limit` more.
    pub fn trace(
        &self,
        vm: &str,
        length: Duration,
        core_ratio: f64,
        limit: Duration,
    ) -> Result<DirtyTrace, Unknown> {
        let arguments = [
            "--trace".to_owned(),
            vm.to_owned(),
            format!("--seconds={}", length.as_secs_f64()),
            format!("--core-ratio={core_ratio}"),
        ];
        let options = trace::TraceOptions { length, core_ratio, ..trace::TraceOptions::default() };
        let output = match self {
            Self::Local => return trace::of_vm(vm, &options),
            Self::Ssh(target) => target.run_probe(Subject::Trace, &arguments, length + limit, TRACE_LIMIT)?,
            Self::SharedLogin(login) => {
                login.run_probe(Subject::Trace, &arguments, length + limit, TRACE_LIMIT)?
            }
            Self::Exec(words) => exec(words, &arguments, length + limit)?,
            Self::None(why) => return Err(Unknown::new(Cause::NoHostProbe, why.clone())),
        };
        match serde_json::from_slice(&output.stdout).map_err(malformed)? {
            Fact::Known(trace) => Ok(trace),
            Fact::Unknown(why) => Err(why),
        }
    }
}

/// Looks on a thread: a name service or a file system may hang here as anywhere.
fn look_here(questions: &HostQuestions, limit: Duration) -> Result<(HostProbe, Timestamp), Unknown> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let questions = questions.clone();
    std::thread::spawn(move || {
        let probe = host::look(&questions);
        let _ = sender.send((probe, Timestamp::now()));
    });
    receiver.recv_timeout(limit).map_err(|_| {
        let why = format!("the probe on this machine did not finish within {} s", limit.as_secs_f64());
        Unknown::new(Cause::TimedOut, why)
    })
}

fn exec(words: &[String], arguments: &[String], limit: Duration) -> Result<Output, Unknown> {
    let Some((program, rest)) = words.split_first() else {
        return Err(Unknown::new(
            Cause::NoHostProbe,
            "the probe command is empty: set hosts.NAME.exec in vmgate.yaml",
        ));
    };
    let mut command = Command::new(program);
    command.args(rest).args(arguments);
    run(command, io::empty(), limit, ANSWER_LIMIT)
        .map_err(|failure| failure.of_probe_command(Subject::Host, program))
}

/// Arguments of `vmgate probe host` for these questions.
fn arguments(questions: &HostQuestions) -> Vec<String> {
    let mut arguments = Vec::new();
    let route = questions.route.map(|address| address.to_string());
    let all = [
        ("--resolve", questions.resolve.as_slice()),
        ("--vm", questions.vms.as_slice()),
        ("--file", questions.files.as_slice()),
        ("--route", route.as_slice()),
    ];
    for (option, values) in all {
        // With `=`, so that a name that begins with a dash is a name.
        arguments.extend(values.iter().map(|value| format!("{option}={value}")));
    }
    arguments.extend(questions.peer.iter().flat_map(PeerQuestions::arguments));
    arguments
}

/// Parses the probe's answer. Also returns its time of arrival: the probe reads its clock last and prints at once.
fn parse_host_answer(output: &Output) -> Result<(HostProbe, Timestamp), Unknown> {
    let probe = harmless(&output.stdout).and_then(serde_json::from_value).map_err(malformed)?;
    Ok((probe, output.first_byte_at.unwrap_or_else(Timestamp::now)))
}

fn parse_flow_answer(output: &Output) -> Result<FlowProbe, Unknown> {
    serde_json::from_slice(&output.stdout).map_err(malformed)
}

/// Parses JSON from another machine and removes from its texts all that could drive a terminal.
fn harmless(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    let mut document = serde_json::from_slice(bytes)?;
    make_harmless(&mut document);
    Ok(document)
}

/// Makes every text harmless. The parser has limited the depth of the recursion.
fn make_harmless(value: &mut Value) {
    match value {
        Value::String(text) => *text = plain(text),
        Value::Array(items) => items.iter_mut().for_each(make_harmless),
        Value::Object(fields) => fields.values_mut().for_each(make_harmless),
        _ => {}
    }
}

#[cfg(fuzzing)]
pub(in crate::collect) fn fuzz_answer(bytes: &[u8]) {
    let output = Output { stdout: bytes.to_vec(), first_byte_at: None };
    let _ = (parse_host_answer(&output), guest::fuzz_answer(&output));
    if let Ok(probe) = serde_json::from_slice::<FlowProbe>(bytes) {
        let captured = probe.interfaces.into_iter().filter_map(|found| match found {
            flows::InterfaceFlows::Captured(capture) => Some(capture),
            flows::InterfaceFlows::Failed { .. } => None,
        });
        let _ = flows::udp_capture(&captured.collect::<Vec<_>>());
    }
}

#[allow(clippy::needless_pass_by_value)] // for map_err
fn malformed(error: serde_json::Error) -> Unknown {
    Unknown::new(
        Cause::Malformed,
        format!(
            "the host probe's answer is not valid ({}): install the same version of vmgate here and on the host",
            plain(&error.to_string())
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(20);

    #[test]
    fn the_uri_suggests_the_way() {
        let way = |uri: &str| Transport::for_uri(&uri.parse().unwrap());
        assert!(matches!(way("qemu:///system"), Transport::Local));
        assert!(matches!(way("test:///default"), Transport::None(_)));
        let Transport::Ssh(target) = way("qemu+ssh://ops@hv1:2222/system?keyfile=/k&no_verify=1") else {
            panic!("not ssh");
        };
        assert_eq!(target.to_string(), "ops@hv1:2222");
        assert_eq!(target.key_file.as_deref(), Some("/k"));
        let Transport::Ssh(target) = way("qemu+tcp://hv2:16509/system") else {
            panic!("not ssh");
        };
        assert_eq!(target.to_string(), "root@hv2", "the port is libvirt's, not ssh's");
    }

    #[test]
    fn this_machine_answers() {
        let answer = Transport::Local.probe_host(&HostQuestions::default(), TIME).unwrap();
        assert!(answer.probe.nics.known().is_some());
        assert!(answer.received >= answer.probe.clock);
    }

    #[test]
    fn a_probe_command_that_misbehaves_is_a_reason_not_a_crash() {
        let ask = |words: &[&str], limit| {
            let words = words.iter().map(|word| (*word).to_owned()).collect();
            Transport::Exec(words).probe_host(&HostQuestions::default(), limit).unwrap_err()
        };
        assert_eq!(ask(&["echo", "hello"], TIME).cause, Cause::Malformed);
        assert_eq!(ask(&["/no/such/probe"], TIME).cause, Cause::NoHostProbe);
        assert_eq!(ask(&["false"], TIME).cause, Cause::NoHostProbe);
        assert_eq!(ask(&[], TIME).cause, Cause::NoHostProbe);
        assert_eq!(ask(&["sh", "-c", "exec sleep 600"], Duration::from_millis(50)).cause, Cause::TimedOut);
        assert_eq!(ask(&["yes"], TIME).cause, Cause::NoHostProbe);
    }
}
