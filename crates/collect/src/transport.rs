//! Transports that run a probe on a host: locally, over ssh, or by a command of the user.

use std::{
    io::Cursor,
    process::Command,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use vmgate_facts::{Cause, Fact, Unknown, Uri, Uuid, trace::DirtyTrace};
use vmgate_libvirt::{Hypervisor, LibvirtError};
use vmgate_probe::{
    flows::FlowProbe,
    host::{HostProbe, HostQuestions, PeerQuestions},
    qemu::{MonitoredVm, RunningVms, VmProcess},
    wire::{NoAnswer, Question, read_answer},
};
use vmgate_process::{Output, run};
use vmgate_reach::{SharedLogin, SharedSsh, SshTarget, Subject, of_command};

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
    SharedLogin(Arc<SharedLogin>),
    /// A command that runs `vmgate probe ask` on that host: the question comes on its standard input.
    Exec(Vec<String>),
    /// No probe, for this reason.
    None(Unknown),
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
            let why = "libvirt's test driver has no real host to probe";
            return Self::None(Unknown::new(Cause::NoHostProbe, why));
        }
        match &uri.host {
            None => Self::Local,
            Some(host) => Self::Ssh(SshTarget::for_uri(uri, host)),
        }
    }

    /// Begins a login that is shared: later questions find it made.
    pub fn begin(&self) {
        if let Self::SharedLogin(shared) = self {
            shared.login();
        }
    }

    /// The same transport, over the login that others of this program have at the host.
    #[must_use]
    pub fn over(self, ssh: &SharedSsh) -> Self {
        match self {
            Self::Ssh(target) => Self::Ssh(ssh.at(target)),
            other => other,
        }
    }

    /// Connects to the host's libvirt: over the login that is shared, where it is the one that the URI asks for.
    pub fn open_libvirt(&self, uri: &Uri, limit: Duration) -> Result<Hypervisor, LibvirtError> {
        let is_its = |shared: &SharedLogin| {
            let target = uri.host.as_deref().map(|host| SshTarget::for_uri(uri, host));
            uri.transport.as_deref() == Some("ssh") && target.as_ref() == Some(shared.target())
        };
        let login = match self {
            Self::SharedLogin(shared) if is_its(shared) => shared.login(),
            _ => None,
        };
        let ssh =
            move || login.map(|login| Ok((login.ssh_program()?.to_owned(), Arc::clone(&login)))).transpose();
        Hypervisor::open_over(uri, ssh, limit)
    }

    /// Method of a fact that was obtained this way, for its provenance.
    pub fn method(&self, asked: &str) -> String {
        let probe = format!("vmgate probe {asked}");
        match self {
            Self::Local => format!("{probe}, on this machine"),
            Self::Ssh(target) => format!("{probe}, over ssh to {target}"),
            Self::SharedLogin(shared) => format!("{probe}, over ssh to {}", shared.target()),
            Self::Exec(words) => format!("{probe}, by {}", words.first().map_or("nothing", String::as_str)),
            Self::None(_) => "none".to_owned(),
        }
    }

    /// Asks the host's probe, for at most `limit` and what the questions themselves take.
    pub fn probe_host(&self, questions: &HostQuestions, limit: Duration) -> Result<Answer, Unknown> {
        let limit = limit + questions.peer.as_ref().map_or(Duration::ZERO, PeerQuestions::longest);
        let output = self.ask(Question::Host(questions.clone()), limit, ANSWER_LIMIT)?;
        // The probe reads its clock last and prints at once.
        let received = output.first_byte_at.unwrap_or_else(Timestamp::now);
        Ok(Answer { probe: read(&output)?, received })
    }

    /// Watches UDP flows on interfaces of the host for `window`, which passes in this call; for at most `limit` more.
    pub fn watch_flows(
        &self,
        interfaces: &[String],
        window: Duration,
        limit: Duration,
    ) -> Result<FlowProbe, Unknown> {
        let question = Question::Flows { interfaces: interfaces.to_vec(), window_seconds: window };
        read(&self.ask(question, window + limit, FLOWS_LIMIT)?)
    }

    /// VMs of the host by their processes, where no libvirt tells them.
    pub fn running_vms(&self, limit: Duration) -> Result<RunningVms, Unknown> {
        let questions = HostQuestions { running: true, ..HostQuestions::default() };
        self.probe_host(&questions, limit)?.probe.running.into_result()
    }

    /// Looks at a VM of the host by the socket of its monitor, for at most `limit`; half of it may pass until the monitor is free.
    pub fn monitored_vm(&self, socket: &str, limit: Duration) -> Result<MonitoredVm, Unknown> {
        let question = Question::Vm { monitor: socket.to_owned(), patience_seconds: limit / 2 };
        read::<Fact<MonitoredVm>>(&self.ask(question, limit + limit, ANSWER_LIMIT)?)?.into_result()
    }

    /// Looks for the QEMU processes of a VM on the host by its UUID, name or monitor, for at most `limit`; half of it may pass until a
    /// monitor is free.
    pub fn processes_of(&self, vm: &str, limit: Duration) -> Result<Vec<VmProcess>, Unknown> {
        let question = Question::Processes { vm: vm.to_owned(), patience_seconds: limit / 2 };
        read::<Fact<Vec<VmProcess>>>(&self.ask(question, limit + limit, ANSWER_LIMIT)?)?.into_result()
    }

    /// Identity of the host for one that no libvirt tells: its machine id.
    pub fn machine_id(&self, limit: Duration) -> Result<Uuid, Unknown> {
        self.probe_host(&HostQuestions::default(), limit)?.probe.machine_id.into_result()
    }

    /// Traces a VM's pages on the host for `length`, which passes in this call, at the cost of a share of a core; for at
    /// most `limit` more.
    pub fn trace(
        &self,
        vm: &str,
        length: Duration,
        core_ratio: f64,
        limit: Duration,
    ) -> Result<DirtyTrace, Unknown> {
        let question = Question::Trace { vm: vm.to_owned(), length_seconds: length, core_ratio };
        read::<Fact<DirtyTrace>>(&self.ask(question, length + limit, TRACE_LIMIT)?)?.into_result()
    }

    /// Sends a question and returns the bytes of its answer.
    fn ask(&self, question: Question, limit: Duration, most: usize) -> Result<Output, Unknown> {
        let (began, asked) = (Instant::now(), question.name());
        let answer = match self {
            Self::Local => answer_here(question, limit),
            Self::Ssh(target) => target.ask(Subject::Host, &question.to_json(), limit, most),
            Self::SharedLogin(shared) => match shared.login() {
                Some(login) => login.ask(Subject::Host, &question.to_json(), limit, most),
                None => shared.target().ask(Subject::Host, &question.to_json(), limit, most),
            },
            Self::Exec(words) => exec(Subject::Host, words, &question, limit, most),
            Self::None(why) => Err(why.clone()),
        };
        tracing::debug!("{}: {:.3} s", self.method(asked), began.elapsed().as_secs_f64());
        answer
    }
}

/// Answers on a thread: a name service or a file system may hang here as anywhere.
fn answer_here(question: Question, limit: Duration) -> Result<Output, Unknown> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let stdout = question.answer().map(|answer| answer.to_string().into_bytes());
        let _ = sender.send((stdout, Timestamp::now()));
    });
    let (stdout, began) = receiver
        .recv_timeout(limit)
        .map_err(|_| Unknown::new(Cause::TimedOut, "the probe of this machine did not end in time"))?;
    let stdout = stdout.map_err(|error| Unknown::new(Cause::Malformed, error.to_string()))?;
    Ok(Output { stdout, first_byte_at: Some(began) })
}

/// Runs a command of the user's with the question on its standard input.
pub(crate) fn exec(
    subject: Subject,
    words: &[String],
    question: &Question,
    limit: Duration,
    most: usize,
) -> Result<Output, Unknown> {
    let Some((program, rest)) = words.split_first() else {
        return Err(Unknown::new(subject.missing_probe_cause(), "the probe command is empty"));
    };
    let mut command = Command::new(program);
    command.args(rest);
    run(command, Cursor::new(question.to_json()), limit, most)
        .map_err(|failure| of_command(&failure, subject, program))
}

/// The document of an answer.
pub(crate) fn read<T: DeserializeOwned>(output: &Output) -> Result<T, Unknown> {
    read_answer(&output.stdout).map_err(unanswered)
}

/// Cause of facts that an answer does not hold.
#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
pub(crate) fn unanswered(why: NoAnswer) -> Unknown {
    let cause = match why {
        NoAnswer::NotSupported { .. } => Cause::NotSupported,
        NoAnswer::Malformed(_) => Cause::Malformed,
    };
    Unknown::new(cause, why.to_string())
}

/// Reads what a fuzzer made as an answer to every question.
#[cfg(feature = "fuzzing")]
pub fn fuzz_answer(bytes: &[u8]) {
    use vmgate_probe::flows::{InterfaceFlows, udp_capture};

    let output = Output { stdout: bytes.to_vec(), first_byte_at: None };
    let _ = (read::<HostProbe>(&output), read::<Fact<DirtyTrace>>(&output));
    crate::guest_probe::fuzz_answer(&output);
    if let Ok(probe) = read::<FlowProbe>(&output) {
        let captured = probe.interfaces.into_iter().filter_map(|found| match found {
            InterfaceFlows::Captured(capture) => Some(*capture),
            InterfaceFlows::Failed { .. } => None,
        });
        let _ = udp_capture(&captured.collect::<Vec<_>>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(20);

    #[test]
    fn the_uri_suggests_the_way() {
        let way = |uri: &str| Transport::for_uri(&Uri::from_operator(uri).unwrap());
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
        let Transport::Ssh(target) = way("ssh://ops@pve1:2222") else {
            panic!("not ssh");
        };
        assert_eq!(target.to_string(), "ops@pve1:2222");
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
