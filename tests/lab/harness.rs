//! Runs vmgate in the operator's namespace against the lab's two hosts, and starts guests that stop with the test.

use std::{
    env, fs,
    io::{Read, Write},
    os::fd::AsRawFd,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;
use vmgate_collect::agent::AgentGuest;
use vmgate_libvirt::{Domain, Hypervisor, LibvirtError};
use vmgate_reach::agent::{AgentChannel, AgentFailure};

/// Output and exit code of a command that has ended.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Said {
    /// Asserts the exit code, and prints everything if it differs.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "exit code\n--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr);
        self
    }

    /// Asserts that stdout or stderr contains the text, wherever its lines are broken.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        let on_one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let said = [&self.stdout, &self.stderr].map(|stream| on_one_line(stream));
        let found = said.iter().any(|stream| stream.contains(&on_one_line(text)));
        assert!(found, "`{text}` is missing\n--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr);
        self
    }

    /// The report of `--output json`.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}\n{}\n{}", self.stdout, self.stderr))
    }
}

/// Value that `tests/lab/lab env` exports.
pub(crate) fn setting(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run these tests with `make lab-test`"))
}

pub(crate) fn uri_a() -> String {
    setting("VMGATE_LAB_URI_A")
}

pub(crate) fn uri_b() -> String {
    setting("VMGATE_LAB_URI_B")
}

/// Runs the lab's own command.
pub(crate) fn lab(arguments: &[&str]) -> Said {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/lab/lab");
    Command::new(script).args(arguments).stdin(Stdio::null()).output().unwrap().into()
}

/// Runs a shell script on a host, with `input` on its standard input.
pub(crate) fn on_host(host: &str, script: &str, input: &[u8]) -> Said {
    let mut child = Command::new(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/lab/lab"))
        .args(["host", host, "sh", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap().into()
}

/// Makes a socket in the operator's network namespace, for use anywhere: a socket stays in the namespace it was made in.
pub(crate) fn in_operators_network<T: Send + 'static>(make: impl FnOnce() -> T + Send + 'static) -> T {
    let namespace = fs::File::open(format!("/run/netns/{}", setting("VMGATE_LAB_NETNS"))).unwrap();
    let made = thread::spawn(move || {
        // SAFETY: setns(2) takes no pointers; it moves this thread alone, which ends after this.
        assert_eq!(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
        make()
    });
    made.join().unwrap()
}

thread_local! {
    /// Ledger of the present test, which runs in a thread of its own. The user's own ledger is not written to, and no test sees
    /// the moves of another one.
    static LEDGER: TempDir = tempfile::tempdir().unwrap();
}

/// Path of the ledger of this test.
pub(crate) fn ledger() -> PathBuf {
    LEDGER.with(|folder| folder.path().join("ledger.db"))
}

pub(crate) fn vmgate_command(arguments: &[&str]) -> Command {
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", &setting("VMGATE_LAB_NETNS"), env!("CARGO_BIN_EXE_vmgate")])
        .args(arguments)
        .env("VMGATE_LEDGER", ledger())
        .stdin(Stdio::null());
    command
}

/// Runs vmgate in the operator's namespace.
pub(crate) fn vmgate(arguments: &[&str]) -> Said {
    vmgate_command(arguments).output().unwrap().into()
}

/// Starts vmgate in the operator's namespace. `ip netns exec` becomes vmgate, so the pid is vmgate's.
pub(crate) fn start_vmgate(arguments: &[&str]) -> Running {
    Running::start(arguments)
}

fn piped(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// A running vmgate. Its output is read continuously: with a full pipe vmgate would block.
pub(crate) struct Running {
    pub(crate) child: Child,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
}

impl Running {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    /// The same with these variables in its environment.
    pub(crate) fn start_with(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = vmgate_command(arguments);
        command.envs(environment.iter().copied());
        let mut child = piped(command);
        let (stdout, stderr) = (read_all(child.stdout.take()), read_all(child.stderr.take()));
        Self { child, stdout, stderr }
    }

    /// Waits until something holds while it runs. If it ends before, the test fails with its words.
    #[track_caller]
    pub(crate) fn wait_until(mut self, what: &str, holds: impl Fn() -> bool) -> Self {
        let start = Instant::now();
        while !holds() {
            if self.child.try_wait().unwrap().is_some() {
                let said = self.said();
                panic!("vmgate ended before this: {what}\n{}{}", said.stdout, said.stderr);
            }
            assert!(start.elapsed() < Duration::from_mins(5), "not within five minutes: {what}");
            thread::sleep(Duration::from_millis(20));
        }
        self
    }

    /// Waits until the memory of the guest is being copied from host `a`.
    #[track_caller]
    pub(crate) fn copies(self, guest: &Guest) -> Self {
        self.wait_until("the migration copies memory", || {
            let job = lab(&["host", "a", "virsh", "-q", "domjobinfo", guest.name]).stdout;
            job.contains("Memory processed") && job.contains("Unbounded")
        })
    }

    /// Ctrl-C.
    pub(crate) fn interrupt(&self) {
        let pid = libc::pid_t::try_from(self.child.id()).unwrap();
        // SAFETY: kill(2) takes no pointers, and the child has not been waited for, so the pid is its own.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGINT) }, 0);
    }

    /// Its output after its end.
    pub(crate) fn said(mut self) -> Said {
        let status = self.child.wait().unwrap();
        let (stdout, stderr) = (self.stdout.join().unwrap(), self.stderr.join().unwrap());
        Output { status, stdout, stderr }.into()
    }
}

fn read_all<R: Read + Send + 'static>(pipe: Option<R>) -> JoinHandle<Vec<u8>> {
    let mut pipe = pipe.unwrap();
    thread::spawn(move || {
        let mut text = Vec::new();
        pipe.read_to_end(&mut text).unwrap();
        text
    })
}

/// Options of a move from a to b over the migration link.
pub(crate) fn a_to_b() -> Vec<String> {
    the_move(&uri_a(), &uri_b(), &setting("VMGATE_LAB_MIGRATE_B"))
}

/// Options of a move from b to a over the migration link.
pub(crate) fn b_to_a() -> Vec<String> {
    the_move(&uri_b(), &uri_a(), &setting("VMGATE_LAB_MIGRATE_A"))
}

/// Options of a move.
pub(crate) fn the_move(from: &str, to: &str, address: &str) -> Vec<String> {
    ["--from", from, "--to", to, "--migrate-address", address].map(str::to_owned).to_vec()
}

/// Arguments of one call, from parts.
pub(crate) fn words<'a>(first: &[&'a str], rest: &'a [String]) -> Vec<&'a str> {
    first.iter().copied().chain(rest.iter().map(String::as_str)).collect()
}

/// Guest that is removed when the test ends, also after a failure.
pub(crate) struct Guest {
    pub(crate) name: &'static str,
}

impl Guest {
    /// Starts a guest and waits until it is ready; `options` as `lab guest start` takes them.
    pub(crate) fn start(name: &'static str, options: &[&str]) -> Self {
        lab(&["guest", "stop", name]);
        let mut arguments = vec!["guest", "start", name];
        arguments.extend(options);
        lab(&arguments).exits(0);
        Self { name }
    }

    /// State of the guest by libvirt on host `a` or `b`: `running`, `paused`, or empty if the host does not know the guest.
    pub(crate) fn state_on(&self, host: &str) -> String {
        lab(&["host", host, "virsh", "domstate", self.name]).stdout.trim().to_owned()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        lab(&["guest", "stop", self.name]);
    }
}

/// What vmgate's agent transport learns of a guest, on whichever host it runs.
pub(crate) fn facts_of(name: &str) -> vmgate_facts::Guest {
    vmgate_probe::guest::look(&AgentGuest::open(agent_of(name), AGENT_LIMIT).unwrap())
}

/// The same where the agent reads files and runs nothing.
pub(crate) fn facts_without_exec(name: &str) -> vmgate_facts::Guest {
    vmgate_probe::guest::look(&AgentGuest::open(NoExec(agent_of(name)), AGENT_LIMIT).unwrap())
}

/// Time limit for all requests to one guest: it is emulated, on a machine with other load.
const AGENT_LIMIT: Duration = Duration::from_mins(1);

struct NoExec<C>(C);

impl<C: AgentChannel> AgentChannel for NoExec<C> {
    fn command(&self, json: &str, patience: Duration) -> Result<String, AgentFailure> {
        if json.contains("\"guest-exec") {
            return Err(AgentFailure::Refused("Command guest-exec has been disabled".to_owned()));
        }
        self.0.command(json, patience)
    }
}

fn agent_of(name: &str) -> Domain {
    ['A', 'B'].into_iter().find_map(|host| domain_on(host, name).ok()).expect("no host knows the guest")
}

/// libvirt on host `A` or `B`.
pub(crate) fn host(name: char) -> Hypervisor {
    let socket = setting(&format!("VMGATE_LAB_SOCKET_{name}"));
    let uri = format!("qemu+unix:///system?socket={socket}");
    Hypervisor::open(&vmgate_facts::Uri::from_operator(&uri).unwrap(), AGENT_LIMIT).unwrap()
}

/// A guest on host `A` or `B`.
pub(crate) fn domain_on(name: char, guest: &str) -> Result<Domain, LibvirtError> {
    host(name).domain(guest)
}

/// What `vmgate collect` writes down of a move of this guest.
pub(crate) fn collected(name: &str, options: &[String]) -> vmgate_facts::Facts {
    let said = vmgate(&words(&["collect", name], options)).exits(0);
    serde_yaml::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}\n{}", said.stdout))
}

/// The guest's address in the business network.
pub(crate) fn address_of(name: &str) -> String {
    let list = lab(&["guest", "list"]).stdout;
    let line = list.lines().find(|line| line.split('\t').next() == Some(name));
    line.and_then(|line| line.rsplit('\t').next()).unwrap_or_else(|| panic!("no {name} in {list}")).to_owned()
}

/// Statuses of a rule in a JSON report, one per subject.
pub(crate) fn statuses(verdict: &Value, rule: &str) -> Vec<String> {
    let outcomes = verdict["outcomes"].as_array().expect("a verdict has outcomes");
    outcomes
        .iter()
        .filter(|outcome| outcome["rule"] == rule)
        .map(|outcome| outcome["status"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// Waits until the memory of a guest is being sent.
#[track_caller]
pub(crate) fn wait_for_the_copy(guest: &Guest) {
    for _ in 0..240 {
        let job = lab(&["host", "a", "virsh", "-q", "domjobinfo", guest.name]).stdout;
        if job.contains("Memory processed") && job.contains("Unbounded") {
            return;
        }
        thread::sleep(Duration::from_millis(500));
    }
    panic!("no migration of {} began within two minutes", guest.name);
}

/// The migration link at a lower rate, for as long as this lives.
pub(crate) struct SlowLink;

impl SlowLink {
    pub(crate) fn at(rate: &str) -> Self {
        lab(&["link", "rate", rate]).exits(0);
        Self
    }
}

impl Drop for SlowLink {
    fn drop(&mut self) {
        lab(&["link", "rate", "off"]);
    }
}

/// Waivers of what the forecast says of any guest, for tests of something else: a busy machine makes idle guests write a
/// lot, and a NO-GO for that is right.
pub(crate) struct AnyForecast {
    file: tempfile::NamedTempFile,
}

impl AnyForecast {
    pub(crate) fn will_do() -> Self {
        let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
        let today = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
        let waivers: Vec<Value> =
            ["dirty-rate-below-goodput", "forecast-converges", "forecast-blackout-within-limit"]
                .into_iter()
                .map(|rule| {
                    serde_json::json!({
                        "rule": rule,
                    "match": { "vm": "*" },
                        "owner": "lab@example.org",
                        "reason": "The guest is here for another test.",
                        "ticket": "LAB-1",
                        "created": today,
                        "expires": today,
                    })
                })
                .collect();
        let text = serde_json::json!({ "schema": "vmgate/waivers/v1", "waivers": waivers }).to_string();
        fs::write(file.path(), text).unwrap();
        Self { file }
    }

    pub(crate) fn path(&self) -> &str {
        self.file.path().to_str().unwrap()
    }
}

/// Migrations that have ended, by this test's ledger.
pub(crate) fn completed_migrations() -> usize {
    let said = vmgate(&["ledger", "list", "--kind", "migration", "--json"]).exits(0);
    said.stdout.lines().filter(|line| line.contains(r#""outcome":"completed""#)).count()
}
