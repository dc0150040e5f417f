//! Loader of change files: reads and checks a file, and reports all problems with their places.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, LazyLock},
};

use vmgate_attest::Digest;
use vmgate_documents::{Node, Problem, Problems, Shape, SourceFile, closest};
use vmgate_facts::HostUri;
use vmgate_rules::Catalogues;
use vmgate_verdict::{FileLine, waiver};

use super::{
    Action, ActionKind, ChangeFile, GuestWay, MovePlan, Notify, PlannedMove, UnknownGuestWay, WaitFor, Wave,
    document::{ActionDocument, ChangeDocument, Goals, MoveDocument, NotifyDocument, WaveDocument},
};

static CHANGE: Shape<ChangeDocument> = Shape::new();

/// Default time limit of an action.
const TIME_LIMIT_SECONDS: f64 = 60.0;

/// Default time limit of taking a member out: a member that comes back must first catch up with the others.
const TAKE_OUT_TIME_LIMIT_SECONDS: f64 = 300.0;

/// The shipped catalogues: a change file runs no commands of others but those that it spells out.
pub(super) static CATALOGUES: LazyLock<Catalogues> =
    LazyLock::new(|| Catalogues::shipped().unwrap_or_default());

/// Limit on every time in a change file: a day.
const LONGEST_SECONDS: f64 = 86_400.0;

/// Limit on the size of a change file, in bytes: a plan with tens of thousands of moves is smaller.
pub const LARGEST_BYTES: u64 = 16 << 20;

pub(super) fn parse(name: &str, bytes: &[u8]) -> Result<ChangeFile, Problems> {
    let file = SourceFile::bounded(name, bytes.to_vec(), LARGEST_BYTES)?;
    let (document, root) = CHANGE.read(&file, |root| {
        let mut check = ChangeCheck { file: &file, problems: Vec::new() };
        check.change(root);
        check.problems
    })?;
    let digest = Digest::of(sorted(&root.to_json()).to_string().as_bytes());
    finish(&file, &root, document, digest)
}

/// Copy of a document with sorted keys, so that the order of lines does not change the digest.
fn sorted(value: &serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Array(items) => items.iter().map(sorted).collect(),
        Value::Object(fields) => {
            let mut fields: Vec<_> =
                fields.iter().map(|(name, value)| (name.clone(), sorted(value))).collect();
            fields.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(fields.into_iter().collect())
        }
        other => other.clone(),
    }
}

fn finish(
    file: &Arc<SourceFile>,
    root: &Node,
    document: ChangeDocument,
    digest: Digest,
) -> Result<ChangeFile, Problems> {
    let nodes = root.get("moves").map(Node::items).unwrap_or_default();
    let moves: Result<Vec<_>, Problem> =
        document.moves.iter().zip(nodes).map(|(asked, node)| planned(asked, &document, file, node)).collect();
    let nodes = root.get("waves").map(Node::items).unwrap_or_default();
    let waves: Result<Vec<_>, Problem> =
        document.waves.iter().zip(nodes).map(|(wave, node)| self::wave(wave, file, node)).collect();
    let waves = Some(waves?).filter(|waves| !waves.is_empty()).unwrap_or_else(|| vec![Wave::default()]);
    Ok(ChangeFile {
        moves: moves?,
        waves,
        at_once: document.at_once,
        error_budget: document.error_budget,
        id: document.id,
        title: document.title,
        window_start: document.window.as_ref().map(|window| window.start),
        window_end: document.window.as_ref().map(|window| window.end),
        limits: document.limits,
        after_no_go: document.after_no_go,
        waivers: document.waivers.into_iter().collect(),
        digest,
    })
}

fn wave(wave: &WaveDocument, file: &Arc<SourceFile>, node: &Node) -> Result<Wave, Problem> {
    let wait_for = wave.wait_for.as_ref().map(|wanted| {
        let hosts = wanted.hosts.iter().map(|uri| uri.parse::<HostUri>());
        Ok(WaitFor { hosts: hosts.collect::<Result<_, _>>()?, versions: wanted.versions })
    });
    let wait_for = wait_for
        .transpose()
        .map_err(|error: vmgate_facts::InvalidUri| Problem::at(file, node.span.clone(), error.to_string()))?;
    Ok(Wave { name: wave.name.clone(), wait_for })
}

fn planned(
    asked: &MoveDocument,
    change: &ChangeDocument,
    file: &Arc<SourceFile>,
    node: &Node,
) -> Result<PlannedMove, Problem> {
    let problem = |error: String| Problem::at(file, node.span.clone(), error);
    let line = problem(String::new()).position().map_or(1, |(line, _)| line);
    let uri = |text: &str| text.parse::<HostUri>().map_err(|error| problem(error.to_string()));
    let address = asked.migrate_address.as_deref().map(str::parse::<IpAddr>).transpose();
    let actions = change.prepare.iter().chain(&asked.prepare);
    Ok(PlannedMove {
        vm: asked.vm.clone(),
        from: uri(&asked.from)?,
        to: uri(&asked.to)?,
        migrate_address: address.map_err(|error| problem(error.to_string()))?,
        guest: asked.guest.as_deref().map(guest_way).transpose().map_err(&problem)?,
        plan: MovePlan {
            longest_blackout_seconds: blackout(&asked.goals)
                .or(blackout(&change.goals))
                .unwrap_or(vmgate_facts::Change::default().longest_blackout_seconds),
            network_dark_seconds: asked.goals.network_dark_seconds.or(change.goals.network_dark_seconds),
            deadline_seconds: asked.goals.deadline_seconds.or(change.goals.deadline_seconds),
            settings: asked.settings.clone().or(&change.settings),
            rehearsal: change.rehearsal,
            notify: notify(&asked.notify, &change.notify),
            actions: actions
                .map(|action| self::action(action).map_err(&problem))
                .collect::<Result<_, _>>()?,
        },
        wave: change
            .waves
            .iter()
            .position(|wave| Some(&wave.name) == asked.wave.as_ref())
            .unwrap_or_default(),
        exclusive: asked.exclusive.clone(),
        expected_seconds: asked.expected_seconds,
        place: FileLine { file: file.name.clone(), line: u32::try_from(line).unwrap_or(u32::MAX) },
    })
}

fn guest_way(text: &str) -> Result<GuestWay, String> {
    text.parse().map_err(|error: UnknownGuestWay| error.to_string())
}

fn blackout(goals: &Goals) -> Option<f64> {
    goals.longest_blackout_seconds
}

fn notify(asked: &NotifyDocument, change: &NotifyDocument) -> Option<Notify> {
    asked.enabled.or(change.enabled).unwrap_or(true).then(|| Notify {
        folder: asked
            .folder
            .clone()
            .or_else(|| change.folder.clone())
            .unwrap_or_else(|| Notify::FOLDER.to_owned()),
        longest_delay_seconds: asked
            .longest_delay_seconds
            .or(change.longest_delay_seconds)
            .unwrap_or(Notify::LONGEST_DELAY_SECONDS),
    })
}

fn action(action: &ActionDocument) -> Result<Action, String> {
    let (deed, limit) = match (&action.take_out, &action.stop_service, &action.run, &action.undo) {
        (Some(software), None, None, None) => (take_out(software)?, TAKE_OUT_TIME_LIMIT_SECONDS),
        (None, Some(service), None, None) => {
            let processes = action.processes.clone().unwrap_or_else(|| vec![service.clone()]);
            (ActionKind::StopService { service: service.clone(), processes }, TIME_LIMIT_SECONDS)
        }
        (None, None, Some(run), Some(undo)) => {
            (ActionKind::Run { on: action.on, run: run.clone(), undo: undo.clone() }, TIME_LIMIT_SECONDS)
        }
        _ => return Err("an action is `take_out`, `stop_service`, or `run` with `undo`".to_owned()),
    };
    Ok(Action { deed, time_limit_seconds: action.time_limit_seconds.unwrap_or(limit) })
}

fn take_out(software: &str) -> Result<ActionKind, String> {
    let found = CATALOGUES.take_out(software);
    let (entry, scripts) = found.ok_or_else(|| format!("vmgate cannot take `{software}` out by itself"))?;
    Ok(ActionKind::TakeOut {
        software: entry.id.clone(),
        proof: scripts.proof.clone(),
        stop: scripts.stop.clone(),
        start: scripts.start.clone(),
        processes: scripts.ends.clone(),
    })
}

/// Checks that the types cannot express.
struct ChangeCheck<'a> {
    file: &'a Arc<SourceFile>,
    problems: Vec<Problem>,
}

impl ChangeCheck<'_> {
    fn wrong(&mut self, node: &Node, message: impl Into<String>, label: &str, help: &str) {
        self.problems.push(Problem::at(self.file, node.span.clone(), message).label(label).help(help));
    }

    fn change(&mut self, root: &Node) {
        if let Some(id) = root.get("id") {
            self.text(id, "id", 128);
        }
        if let Some(window) = root.get("window") {
            self.window(window);
        }
        self.common_fields(root);
        if let Some(limits) = root.get("limits") {
            for (name, limit) in limits.entries() {
                if limit.to_json().as_i64().is_some_and(|limit| limit < 1) {
                    let what = name.text().unwrap_or_default().to_owned();
                    self.wrong(
                        limit,
                        format!("`limits.{what}` must be 1 or more"),
                        "with this limit no VM can move",
                        "leave this limit out: the default is 1",
                    );
                }
            }
        }
        for node in root.get("waivers").map(Node::items).unwrap_or_default() {
            self.problems.extend(waiver::problems(self.file, node));
        }
        if let Some(moves) = root.get("moves") {
            self.moves(moves);
            self.waves(root.get("waves").map(Node::items).unwrap_or_default(), moves.items());
        }
    }

    /// Checks that each move belongs to a wave that exists, and that the moves are in the order of the waves.
    fn waves(&mut self, waves: &[Node], moves: &[Node]) {
        let mut names: Vec<&str> = Vec::new();
        for wave in waves {
            if let Some(name) = wave.get("name") {
                self.text(name, "name", 128);
                let text = name.text().unwrap_or_default();
                if names.contains(&text) {
                    self.wrong(
                        name,
                        format!("two waves have the name `{text}`"),
                        "the same name",
                        "rename one of the waves",
                    );
                }
                names.push(text);
            }
            for host in
                wave.get("wait_for").and_then(|wait| wait.get("hosts")).map(Node::items).unwrap_or_default()
            {
                self.uri(host);
            }
        }
        let mut reached = 0;
        for node in moves {
            let Some(wave) = node.get("wave") else {
                if !waves.is_empty() && !node.entries().is_empty() {
                    let help = "add `wave:` with a name from `waves`, or remove `waves`";
                    self.wrong(node, "this move belongs to no wave", "`wave` is missing", help);
                }
                continue;
            };
            let text = wave.text().unwrap_or_default();
            match names.iter().position(|name| *name == text) {
                None => self.wrong(
                    wave,
                    format!("there is no wave `{text}`"),
                    "no such wave",
                    "add the wave to `waves`, or correct the name",
                ),
                Some(at) if at < reached => {
                    let help = "write the moves in the order of their waves";
                    self.wrong(
                        wave,
                        format!("this move of the wave `{text}` comes after a move of a later wave"),
                        "out of order",
                        help,
                    );
                }
                Some(at) => reached = at,
            }
        }
    }

    fn window(&mut self, window: &Node) {
        let time = |key: &str| window.get(key)?.text()?.parse::<jiff::Timestamp>().ok();
        if let (Some(start), Some(end), Some(node)) = (time("start"), time("end"), window.get("end"))
            && end <= start
        {
            self.wrong(
                node,
                "the window ends before it starts",
                "not after the start",
                "exchange `start` and `end`",
            );
        }
    }

    /// Checks the fields that a change and a move both have.
    fn common_fields(&mut self, node: &Node) {
        if let Some(goals) = node.get("goals") {
            for key in ["longest_blackout_seconds", "deadline_seconds", "network_dark_seconds"] {
                self.seconds(goals, key);
            }
        }
        if let Some(settings) = node.get("settings") {
            self.settings(settings);
        }
        if let Some(notify) = node.get("notify") {
            self.seconds(notify, "longest_delay_seconds");
            if let Some(folder) = notify.get("folder")
                && !folder.text().unwrap_or("/").starts_with('/')
            {
                self.wrong(
                    folder,
                    "the folder of hooks must be an absolute path",
                    "does not begin with /",
                    "begin the path with /",
                );
            }
        }
        for action in node.get("prepare").map(Node::items).unwrap_or_default() {
            self.action(action);
        }
    }

    fn settings(&mut self, settings: &Node) {
        let number = |key: &str| Some((settings.get(key)?, settings.get(key)?.to_json().as_u64()?));
        if let Some((node, limit)) = number("bandwidth_limit_bytes_per_second")
            && limit < 1 << 20
        {
            self.wrong(
                node,
                format!("{limit} bytes per second is less than libvirt can set"),
                "less than 1 MiB/s",
                "set 1048576 or more, or leave this limit out",
            );
        }
        if let Some((node, channels)) = number("multifd_channels")
            && !(1..=255).contains(&channels)
        {
            self.wrong(node, "`multifd_channels` must be from 1 to 255", "out of range", "2 to 8 are usual");
        }
        let set = |key: &str| settings.get(key).is_some_and(|node| node.text() == Some("true"));
        if let Some(node) = settings.get("post_copy")
            && set("post_copy")
            && settings.get("multifd_channels").is_some()
        {
            self.wrong(
                node,
                "QEMU before 10.1 cannot combine post-copy with multifd",
                "leave out one of the two",
                "use multifd for a fast link, post-copy for a guest whose migration never converges",
            );
        }
    }

    fn action(&mut self, action: &Node) {
        self.seconds(action, "time_limit_seconds");
        let given = |key: &str| action.get(key).is_some();
        let kinds = ["take_out", "stop_service", "run"].into_iter().filter(|key| given(key)).count();
        let is_map = !action.entries().is_empty();
        if is_map && kinds != 1 {
            self.wrong(
                action,
                "an action is one of `take_out`, `stop_service` and `run`",
                if kinds == 0 { "this has none" } else { "this has several" },
                "`- take_out: SOFTWARE`, `- stop_service: NAME`, or `- run: [PROGRAM, ARGUMENT]` with `undo: [PROGRAM, ARGUMENT]`",
            );
        } else if given("run") && !given("undo") {
            self.wrong(
                action,
                "a command needs its `undo`",
                "this has none",
                "add `undo: [PROGRAM, ARGUMENT]`, or `undo: []` if there is nothing to undo",
            );
        } else if !given("run") && (given("undo") || given("on")) {
            self.wrong(
                action,
                "only `run` has `undo` and `on`: vmgate starts in the guest again what it stops there",
                "`undo` and `on` belong to `run`",
                "remove `undo` and `on`",
            );
        }
        if let Some(software) = action.get("take_out") {
            self.software(software);
        }
        if let Some(service) = action.get("stop_service") {
            let name = service.text().unwrap_or_default();
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.@:".contains(c);
            if name.is_empty() || name.starts_with('-') || !name.chars().all(plain) {
                self.wrong(
                    service,
                    format!("`{name}` is not a valid service name"),
                    "only letters, digits and - _ . @ : are allowed",
                    "write the name that `systemctl stop` accepts",
                );
            }
        }
        if let Some(run) = action.get("run")
            && run.items().first().and_then(Node::text).unwrap_or_default().is_empty()
        {
            self.wrong(run, "the command is empty", "no program", "write the program as the first item");
        }
    }

    fn software(&mut self, software: &Node) {
        let id = software.text().unwrap_or_default();
        if CATALOGUES.take_out(id).is_some() {
            return;
        }
        let by_hand = CATALOGUES.memory_sync().iter().find(|entry| entry.id == id);
        let known = || CATALOGUES.memory_sync().iter().filter(|entry| entry.take_out.is_some());
        let (label, help) = match (by_hand, closest(id, known().map(|entry| entry.id.as_str()))) {
            (Some(entry), _) => (
                "known, but not taken out by vmgate",
                format!(
                    "write the commands yourself, as `run` and `undo` with `on: guest`: {}; {}",
                    entry.stop, entry.start
                ),
            ),
            (None, Some(like)) => ("no such software", format!("did you mean `{like}`?")),
            (None, None) => {
                let ids: Vec<&str> = known().map(|entry| entry.id.as_str()).collect();
                ("no such software", format!("vmgate takes out: {}", ids.join(", ")))
            }
        };
        self.wrong(software, format!("vmgate cannot take `{id}` out by itself"), label, &help);
    }

    fn moves(&mut self, moves: &Node) {
        if moves.items().is_empty() {
            self.wrong(moves, "the change has no moves", "empty", "add at least one VM with `from` and `to`");
        }
        let mut seen: HashMap<(&str, &str), &Node> = HashMap::new();
        for node in moves.items() {
            self.common_fields(node);
            self.seconds(node, "expected_seconds");
            let vm = node.get("vm");
            if let Some(vm) = vm {
                self.text(vm, "vm", 256);
            }
            let text = |key: &str| node.get(key).and_then(Node::text);
            let uris: Vec<_> = ["from", "to"].iter().filter_map(|key| self.uri(node.get(key)?)).collect();
            if let (Some(to), [one, other]) = (node.get("to"), uris.as_slice())
                && one == other
            {
                self.wrong(
                    to,
                    "source and destination are the same host",
                    "the same host",
                    "name another destination",
                );
            }
            if let (Some(vm), Some(name), Some(from)) = (vm, text("vm"), text("from"))
                && let Some(before) = seen.insert((name, from), vm)
            {
                let problem = Problem::at(self.file, vm.span.clone(), format!("{name} is moved twice"))
                    .label("again")
                    .related(before.span.clone(), "first")
                    .help("a VM can move only once in a change: write a second change for the next move");
                self.problems.push(problem);
            }
            if let Some(address) = node.get("migrate_address")
                && address.text().unwrap_or_default().parse::<IpAddr>().is_err()
            {
                let message = format!("`{}` is not an IP address", address.text().unwrap_or_default());
                self.wrong(
                    address,
                    message,
                    "not an address",
                    "write the address in numbers and without a port, such as 10.0.1.2",
                );
            }
            if let Some(guest) = node.get("guest") {
                self.guest(guest);
            }
        }
    }

    fn guest(&mut self, guest: &Node) {
        if let Err(why) = guest_way(guest.text().unwrap_or_default()) {
            self.wrong(
                guest,
                why,
                "not such a way",
                "use agent, wire, none, exec, ssh or ssh://USER@HOST[:PORT]",
            );
        }
    }

    fn uri(&mut self, node: &Node) -> Option<HostUri> {
        match node.text()?.parse::<HostUri>() {
            Ok(uri) => Some(uri),
            Err(error) => {
                self.wrong(node, error.to_string(), "this URI", "see https://libvirt.org/uri.html");
                None
            }
        }
    }

    fn text(&mut self, node: &Node, key: &str, longest: usize) {
        let text = node.text().unwrap_or("x");
        if text.trim().is_empty() || text.len() > longest || text.chars().any(char::is_control) {
            let message =
                format!("`{key}` must be a text of 1 to {longest} bytes without control characters");
            self.wrong(node, message, "not such a text", "shorten or complete the text");
        }
    }

    fn seconds(&mut self, parent: &Node, key: &str) {
        let Some(node) = parent.get(key) else { return };
        let Some(seconds) = node.to_json().as_f64() else { return };
        if !(seconds > 0.0 && seconds <= LONGEST_SECONDS) {
            let message = format!("`{key}` must be more than 0 and at most {LONGEST_SECONDS} seconds");
            self.wrong(node, message, "out of range", "write a time in seconds, or leave this field out");
        }
    }
}
