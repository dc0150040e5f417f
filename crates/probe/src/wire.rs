//! The wire between vmgate and its on-host program: one question as JSON on standard input, one answer as JSON on standard
//! output.
//!
//! ```text
//! {"vmgate": 1, "ask": "host", "files": ["/srv/web1.qcow2"]}
//! {"vmgate": 1, "program": "0.1.0", "answer": {"schema": "vmgate/host-probe/v1", …}}
//! {"vmgate": 1, "program": "0.1.0", "not_supported": "there is no question `firmware` in this version"}
//! ```
//!
//! Both sides may be of different versions: unknown fields are ignored by either, and a question that the program does not
//! know is answered with `not_supported`. An answer without `vmgate` in it is that of `vmgate probe host` or
//! `vmgate probe guest` as people run them, and of versions before this wire.

use std::{
    io::{self, Read, Write},
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use thiserror::Error;
use vmgate_facts::{Fact, text::plain};

use super::{flows, guest, host, qemu, trace};

/// Version of the wire.
pub const WIRE: u32 = 1;
/// Largest question, in bytes: the paths of a VM with thousands of disks.
const QUESTION_LIMIT: u64 = 4 << 20;
/// Smallest and largest share of a core for a trace of pages.
const CORE_RATIO: (f64, f64) = (0.001, 0.5);
/// Longest window of any measurement that is asked for here, in seconds: an hour.
const LONGEST_WINDOW: f64 = 3600.0;

/// A question to the on-host program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
#[allow(clippy::large_enum_variant, reason = "one question exists at a time")]
pub enum Question {
    /// The hypervisor host: answered with [`host::HostProbe`].
    Host(host::HostQuestions),
    /// The guest that the program runs in: answered with [`vmgate_facts::Guest`].
    Guest {
        /// Length of a trace of the processes that dirty memory, in seconds; none traces nothing.
        #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_seconds")]
        attribute_seconds: Option<Duration>,
    },
    /// UDP flows on interfaces of VMs: answered with [`flows::FlowProbe`].
    Flows {
        /// Interfaces as `virsh domiflist` names them.
        interfaces: Vec<String>,
        /// Length of the window, in seconds.
        #[serde(with = "seconds")]
        window_seconds: Duration,
    },
    /// A VM that libvirt does not have, by its monitor: answered with a fact of [`qemu::MonitoredVm`].
    Vm {
        /// Path of the monitor's socket.
        monitor: String,
        /// Longest wait until other clients have left the monitor, in seconds.
        #[serde(with = "seconds")]
        patience_seconds: Duration,
    },
    /// QEMU processes of a VM, and the states of their monitors: answered with a fact of a list of [`qemu::VmProcess`].
    Processes {
        /// UUID or name of the VM, or `qmp:` and the socket of its monitor.
        vm: String,
        /// Longest wait until other clients have left a monitor, in seconds.
        #[serde(with = "seconds")]
        patience_seconds: Duration,
    },
    /// Pages of a VM's memory that change: answered with a fact of [`vmgate_facts::trace::DirtyTrace`].
    Trace {
        /// UUID or name of the VM, or `qmp:` and the socket of its monitor.
        vm: String,
        /// Length of the trace, in seconds.
        #[serde(with = "seconds")]
        length_seconds: Duration,
        /// Most CPU time by wall time, from 0.001 to 0.5 of a core.
        core_ratio: f64,
    },
}

/// A text on standard input that is not a question.
#[derive(Debug, Error)]
pub enum InvalidQuestion {
    /// It cannot be read.
    #[error("the question cannot be read from standard input: {0}")]
    Unread(#[from] io::Error),
    /// It is no question in JSON.
    #[error("standard input holds no question of vmgate (JSON with `ask`): {0}")]
    Malformed(#[from] serde_json::Error),
}

/// Reasons why an answer holds nothing.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum NoAnswer {
    /// The program there does not know the question.
    #[error("vmgate {program} there does not support this: {reason}")]
    NotSupported {
        /// Its version.
        program: String,
        /// Its reason.
        reason: String,
    },
    /// It is no answer.
    #[error("the on-host program answered something else ({0}): its vmgate may be another version")]
    Malformed(String),
}

#[derive(Serialize)]
struct Sent<'a> {
    vmgate: u32,
    #[serde(flatten)]
    question: &'a Question,
}

impl Question {
    /// The question in JSON.
    pub fn to_json(&self) -> Vec<u8> {
        // A question holds nothing that JSON cannot hold: numbers are bounded and keys are texts.
        serde_json::to_vec(&Sent { vmgate: WIRE, question: self }).unwrap_or_default()
    }

    /// Name of the question, as `ask` in the JSON has it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Host(_) => "host",
            Self::Guest { .. } => "guest",
            Self::Flows { .. } => "flows",
            Self::Vm { .. } => "vm",
            Self::Processes { .. } => "processes",
            Self::Trace { .. } => "trace",
        }
    }

    /// The answer's document, learnt here and now.
    pub fn answer(&self) -> Result<Value, serde_json::Error> {
        match self {
            Self::Host(questions) => serde_json::to_value(host::look(questions)),
            Self::Guest { attribute_seconds } => {
                let mut seen = guest::look(&guest::LocalGuest);
                if let Some(window) = attribute_seconds {
                    seen.dirty_writers = guest::dirty_writers(*window).into();
                }
                serde_json::to_value(seen)
            }
            Self::Flows { interfaces, window_seconds } => {
                serde_json::to_value(flows::probe(interfaces, *window_seconds, &flows::Limits::default()))
            }
            Self::Vm { monitor, patience_seconds } => {
                serde_json::to_value(Fact::from(qemu::of_monitor(monitor, *patience_seconds)))
            }
            Self::Processes { vm, patience_seconds } => {
                serde_json::to_value(Fact::from(qemu::processes_of(vm, *patience_seconds)))
            }
            Self::Trace { vm, length_seconds, core_ratio } => {
                let core_ratio = core_ratio.clamp(CORE_RATIO.0, CORE_RATIO.1);
                let options = trace::TraceOptions {
                    length: *length_seconds,
                    core_ratio,
                    ..trace::TraceOptions::default()
                };
                serde_json::to_value(Fact::from(trace::of_vm(vm, &options)))
            }
        }
    }
}

/// Reads one question, answers it, and writes the answer.
pub fn serve(question: impl Read, mut answer: impl Write, program: &str) -> Result<(), InvalidQuestion> {
    let mut text = String::new();
    question.take(QUESTION_LIMIT).read_to_string(&mut text)?;
    let asked: Value = serde_json::from_str(&text)?;
    let reply = match serde_json::from_value::<Question>(asked.clone()) {
        Ok(question) => json!({ "vmgate": WIRE, "program": program, "answer": question.answer()? }),
        Err(error) if asked.get("ask").is_some_and(Value::is_string) => {
            json!({ "vmgate": WIRE, "program": program, "not_supported": plain(&error.to_string()) })
        }
        Err(error) => return Err(error.into()),
    };
    writeln!(answer, "{reply}")?;
    Ok(())
}

/// Reads an answer. Every text in it is made harmless.
pub fn read_answer<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, NoAnswer> {
    serde_json::from_value(read_value(bytes)?).map_err(|error| malformed(&error))
}

/// Reads the document of an answer. Every text in it is made harmless.
pub fn read_value(bytes: &[u8]) -> Result<Value, NoAnswer> {
    let mut reply: Value = serde_json::from_slice(bytes).map_err(|error| malformed(&error))?;
    disarm(&mut reply);
    let Some(fields) = reply.as_object_mut().filter(|fields| fields.contains_key("vmgate")) else {
        return Ok(reply);
    };
    if let Some(answer) = fields.remove("answer") {
        return Ok(answer);
    }
    let text = |name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned);
    match text("not_supported") {
        Some(reason) => Err(NoAnswer::NotSupported { program: text("program").unwrap_or_default(), reason }),
        None => Err(NoAnswer::Malformed("neither `answer` nor `not_supported` is in it".to_owned())),
    }
}

fn malformed(error: &serde_json::Error) -> NoAnswer {
    NoAnswer::Malformed(plain(&error.to_string()))
}

/// Makes every text harmless to a terminal. The parser has bounded the depth.
fn disarm(value: &mut Value) {
    match value {
        Value::String(text) => *text = plain(text),
        Value::Array(items) => items.iter_mut().for_each(disarm),
        Value::Object(fields) => fields.values_mut().for_each(disarm),
        _ => {}
    }
}

/// Durations as seconds, bounded.
pub(crate) mod seconds {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(duration.as_secs_f64())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(from)?;
        if !(0.0..=super::LONGEST_WINDOW).contains(&seconds) {
            return Err(D::Error::custom(format!(
                "{seconds} s is not a length from 0 to {} s",
                super::LONGEST_WINDOW
            )));
        }
        Ok(Duration::from_secs_f64(seconds))
    }
}

mod optional_seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Seconds(#[serde(with = "super::seconds")] Duration);

    #[allow(clippy::ref_option, reason = "the signature that serde calls")]
    pub(super) fn serialize<S: Serializer>(duration: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        duration.map(Seconds).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Seconds>::deserialize(from)?.map(|seconds| seconds.0))
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use vmgate_facts::{Guest, OpenedFile, QemuUser};

    use super::*;
    use crate::host::{
        DeviceAddress, HostProbe, HostQuestions, ManagerQuestions, PeerQuestions,
        trial::{Role, Stream, Trial},
    };

    fn reply(question: &str) -> Value {
        let mut answer = Vec::new();
        serve(question.as_bytes(), &mut answer, "9.9.9").unwrap();
        serde_json::from_slice(&answer).unwrap()
    }

    #[test]
    fn questions_come_back_as_they_went() {
        let address: IpAddr = "fe80::1".parse().unwrap();
        let stream = Stream { cap_bytes_per_second: 5, length: Duration::from_millis(1500) };
        let trial = Trial { role: Role::Listen("[::1]:49152".parse().unwrap()), stream: Some(stream) };
        let peer = PeerQuestions { address, window: Duration::from_secs(1), trial: Some(trial) };
        let host = HostQuestions {
            resolve: Some("--help".into()),
            vms: vec!["00000000-0000-0000-0000-00000000000a".parse().unwrap()],
            files: vec!["it's".into()],
            opened: vec![OpenedFile {
                purpose: "vda".into(),
                path: "it's".into(),
                writes: true,
                given: false,
            }],
            ports: vec![5901],
            qemu_user: Fact::Known(QemuUser { uid: 64_055, gid: 108 }),
            route: Some(address),
            peer: Some(peer),
            devices: vec![DeviceAddress { kind: "pci".into(), address: "0000:3b:00.1".into() }],
            programs: vec!["/usr/bin/qemu".into()],
            managers: ManagerQuestions { programs: vec!["nova-compute".into()], files: Vec::new() },
            qemu: Some(qemu::OfferQuestions {
                program: "/usr/bin/kvm".into(),
                kvm: true,
                cpu_model: Some("kvm64".into()),
                cpu_features: vec!["aes".into()],
            }),
            running: true,
        };
        for question in [
            Question::Host(host),
            Question::Host(HostQuestions::default()),
            Question::Guest { attribute_seconds: None },
            Question::Guest { attribute_seconds: Some(Duration::from_millis(500)) },
            Question::Flows { interfaces: vec!["vnet0".into()], window_seconds: Duration::from_secs(2) },
            Question::Vm { monitor: "/run/m.qmp".into(), patience_seconds: Duration::from_secs(2) },
            Question::Processes { vm: "web1".into(), patience_seconds: Duration::from_secs(2) },
            Question::Trace { vm: "web1".into(), length_seconds: Duration::from_secs(3), core_ratio: 0.05 },
        ] {
            assert_eq!(serde_json::from_slice::<Question>(&question.to_json()).unwrap(), question);
        }
    }

    #[test]
    fn unknown_fields_are_ignored_and_an_unknown_question_is_not_supported() {
        let newer = reply(r#"{"vmgate": 2, "ask": "guest", "colour": "blue"}"#);
        assert!(
            newer["answer"]["kernel_release"].is_object() || newer["answer"]["kernel_release"].is_string()
        );
        let unknown = reply(r#"{"vmgate": 2, "ask": "firmware"}"#).to_string();
        let why = read_answer::<Guest>(unknown.as_bytes()).unwrap_err();
        assert!(matches!(&why, NoAnswer::NotSupported { program, .. } if program == "9.9.9"), "{why}");
        let answer = r#"{"vmgate": 7, "news": 1, "answer": {"hostname": "web1", "no_such_fact": 1}}"#;
        let guest: Guest = read_answer(answer.as_bytes()).unwrap();
        assert_eq!(guest.hostname, Fact::Known("web1".into()));
    }

    #[test]
    fn an_answer_without_the_wire_around_it_is_read_too() {
        let guest: Guest = read_answer(br#"{"hostname": "web1"}"#).unwrap();
        assert_eq!(guest.hostname, Fact::Known("web1".into()));
    }

    #[test]
    fn a_host_answers_for_itself() {
        let text = reply(r#"{"vmgate": 1, "ask": "host"}"#).to_string();
        assert!(read_answer::<HostProbe>(text.as_bytes()).unwrap().nics.known().is_some());
    }

    #[test]
    fn what_is_no_question_is_refused() {
        for text in ["", "hello", "[]", "{}", r#"{"ask": 1}"#] {
            let mut answer = Vec::new();
            assert!(serve(text.as_bytes(), &mut answer, "1").is_err() && answer.is_empty(), "{text}");
        }
        let long = reply(r#"{"ask": "trace", "vm": "a", "length_seconds": 1e300, "core_ratio": 0.1}"#);
        assert!(long["not_supported"].as_str().unwrap().contains("not a length"), "{long}");
    }
}
