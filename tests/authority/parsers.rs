//! Promise 17: bytes of strangers. The parsers are those that fuzz/ fuzzes, with its seeds.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::Command,
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

#[path = "../../fuzz/src/lib.rs"]
#[allow(clippy::pedantic, clippy::expect_used)] // a harness: what it cannot do is a finding
mod fuzz;

/// Changes of the seeds of each parser.
const CHANGES: usize = 150;
/// Processor time that any input may take in a debug build, far above what is needed, so that load does not matter.
const TIME: Duration = Duration::from_secs(10);
/// Memory that any input may take at once, and more for each of its bytes.
const MEMORY: u64 = 64 << 20;
const MEMORY_A_BYTE: u64 = 256;

/// Files of a parser's folder of seeds, and of what fuzzing found.
fn files(parser: &str) -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let mut paths = Vec::new();
    for folder in ["seeds", "corpus", "artifacts"] {
        let entries = fs::read_dir(root.join(folder).join(parser)).into_iter().flatten();
        paths.extend(entries.take(500).map(|entry| entry.unwrap().path()));
    }
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Runs a parser. Returns what is wrong: a panic, or more memory or time than it may take.
fn problem(parser: fn(&[u8]), data: &[u8]) -> Option<String> {
    let begin = thread_time();
    let mut ended = Ok(());
    let used = allocation_counter::measure(|| ended = catch_unwind(AssertUnwindSafe(|| parser(data))));
    let took = thread_time().saturating_sub(begin);
    let most = MEMORY + MEMORY_A_BYTE * data.len() as u64;
    let why = match ended {
        Err(_) => "panics".to_owned(),
        Ok(()) if used.bytes_max > most => format!("takes {} bytes of memory", used.bytes_max),
        Ok(()) if took > TIME => format!("takes {took:?}"),
        Ok(()) => return None,
    };
    let begin = data.get(..data.len().min(1000)).unwrap_or(data);
    Some(format!("{why} for {} bytes: {:?}", data.len(), String::from_utf8_lossy(begin)))
}

/// Runs every parser on the documents that are made for it; all problems are shown together.
fn no_problem(documents: impl Fn(usize, &str) -> Vec<Vec<u8>>) {
    let mut problems = Vec::new();
    for (number, (name, parser)) in fuzz::PARSERS.iter().enumerate() {
        // What is worked out once counts for nobody.
        parser(b"");
        let found = documents(number, name).iter().find_map(|data| problem(*parser, data));
        problems.extend(found.map(|why| format!("{name} {why}")));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

fn thread_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap()
}

/// Numbers that are the same in each run (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % most.max(1)
    }

    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let begin = self.below(length + 1);
        begin..begin + self.below((length - begin).min(64) + 1)
    }
}

const WORDS: [&str; 16] = [
    "18446744073709551615",
    "-1",
    "1e999",
    "\"",
    "'",
    "[",
    "{",
    "<a ",
    "&#0;",
    "\u{202e}",
    "\0",
    ": ",
    "- ",
    "null",
    "!unknown",
    "\n",
];

/// One to four changes of a file: bytes changed, words put in, parts left out, repeated, or taken from another file.
fn changed(dice: &mut Dice, files: &[Vec<u8>]) -> Vec<u8> {
    let mut data = files[dice.below(files.len())].clone();
    for _ in 0..=dice.below(4) {
        let range = dice.range(data.len());
        match dice.below(6) {
            0 if !data.is_empty() => {
                let at = dice.below(data.len());
                data[at] = u8::try_from(dice.below(256)).unwrap();
            }
            1 => drop(data.splice(range.start..range.start, WORDS[dice.below(WORDS.len())].bytes())),
            2 => drop(data.drain(range)),
            3 => {
                let part = data[range.clone()].repeat(1 + dice.below(50));
                drop(data.splice(range, part));
            }
            4 => {
                let other = &files[dice.below(files.len())];
                let part = other[dice.range(other.len())].to_vec();
                drop(data.splice(range, part));
            }
            _ => data.truncate(range.end),
        }
    }
    data
}

/// Promise 17: every seed of every parser and thousands of changes of them are read or refused, without a panic, and in
/// bounds of memory and time.
#[test]
fn changed_files_are_read_or_refused_within_bounds() {
    no_problem(|number, name| {
        let files = files(name);
        assert!(!files.is_empty(), "fuzz/seeds/{name} has no seed");
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15 + number as u64);
        let more: Vec<_> = (0..CHANGES).map(|_| changed(&mut dice, &files)).collect();
        [files, more].concat()
    });
}

/// Documents that are small for what a careless parser does with them, of about so many bytes.
fn bombs(bytes: usize) -> Vec<String> {
    let repeated = |part: &str| part.repeat(bytes / part.len());
    let numbered = |part: &dyn Fn(usize) -> String| (0..bytes / 12).map(part).collect::<Vec<_>>().concat();
    let aliases = (1..30).map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(", ")));
    let aliases = aliases.collect::<Vec<_>>().concat();
    let entities = (1..30).map(|n| format!("<!ENTITY a{n} '&a{};&a{};'>", n - 1, n - 1));
    let entities = entities.collect::<Vec<_>>().concat();
    vec![
        repeated("["),
        repeated("{\"a\":"),
        repeated("{a: "),
        repeated("- "),
        repeated("? "),
        repeated("("),
        repeated("=("),
        format!("={}", repeated("!")),
        format!("={}1", repeated("1+")),
        repeated("a: 1\n"),
        repeated("<a>"),
        repeated("/* "),
        format!("schema: vmgate/verdict/v1\nx: {}", repeated("[")),
        format!("{{\"schema\": \"vmgate/verdict/v1\", \"x\": {}", repeated("[")),
        format!("{{\"vmgate\": 1, \"answer\": {}", repeated("[")),
        format!("<domain{}/>", numbered(&|n| format!(" a{n}=''"))),
        numbered(&|n| format!("<a xmlns:n{n}='{n}'>")),
        format!("<domain><name>{}</name></domain>", repeated("&amp;")),
        format!("<!DOCTYPE d [<!ENTITY a0 'x'>{entities}]><d>&a29;</d>"),
        format!("a0: &a0 x\n{aliases}"),
        repeated("\"\\u0000"),
        "a".repeat(bytes),
        "\n".repeat(bytes),
    ]
}

/// Promise 17: documents made to take for ever (nesting, aliases, entities, countless attributes, keys and mistakes) are
/// refused in time by every parser.
#[test]
fn documents_made_to_take_for_ever_are_refused_in_time() {
    let bombs: Vec<Vec<u8>> = bombs(200_000).into_iter().map(String::into_bytes).collect();
    no_problem(|_, _| bombs.clone());
}

/// Promise 17: commands that read a file of a stranger end within seconds of processor time, in 2 GB, with the problem's
/// name, whatever is in the file.
#[test]
fn commands_refuse_a_bomb_in_time() {
    let folder = tempfile::tempdir().unwrap();
    for bomb in [format!("schema: vmgate/verdict/v1\nx: {}", "[".repeat(200_000)), "{\"a\":".repeat(40_000)] {
        fs::write(folder.path().join("bomb.yaml"), &bomb).unwrap();
        for command in [
            "verdict sign bomb.yaml",
            "report bomb.yaml",
            "check --facts bomb.yaml",
            "check --facts bomb.yaml --baseline bomb.yaml",
            "check --change bomb.yaml",
            "verdict verify bomb.yaml --key bomb.yaml",
        ] {
            let limited = format!("ulimit -t 20; ulimit -v 2000000; exec \"$0\" {command}");
            let output = Command::new("sh")
                .args(["-c", &limited, env!("CARGO_BIN_EXE_vmgate")])
                .current_dir(folder.path())
                .env_remove("VMGATE_CONFIG")
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{command}: {said}");
            assert!(said.contains("bomb.yaml") && !said.contains("Usage"), "{command}: {said}");
        }
    }
}
