//! Results of the oracle: both answers to each case, a line of JSON each.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

/// Answer of `vmgate check`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Said {
    Go,
    NoGo,
    /// No rule is violated, but one that blocks could not be decided.
    Unknown,
}

/// Answer of libvirt and QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Came {
    Accepted,
    /// Before memory was sent.
    Refused,
    /// When the state was loaded, or at another time after the copy had begun.
    RefusedAtTheEnd,
    /// The source does not have such a VM: no case.
    NotStarted,
}

/// A rule that blocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Block {
    pub(super) rule: String,
    pub(super) status: String,
    pub(super) message: String,
    #[serde(default)]
    pub(super) way_out: String,
}

/// Word of the empty twin of a VM (`vmgate rehearse`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Twin {
    Passed,
    /// It could not go there and back, as a move of the VM cannot.
    Failed,
    NotRehearsed,
}

/// Both answers to a case.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) topic: String,
    pub(super) id: String,
    pub(super) from: char,
    pub(super) to: char,
    pub(super) said: Option<Said>,
    #[serde(default)]
    pub(super) blocks: Vec<Block>,
    /// Answer with `--allow-monitor --trial`, the way out that vmgate shows where these could settle it.
    #[serde(default)]
    pub(super) asked: Option<Said>,
    /// Word of the twin, where libvirt refused at the end of the copy.
    #[serde(default)]
    pub(super) twin: Option<Twin>,
    pub(super) came: Came,
    /// Words of libvirt, if it refuses.
    #[serde(default)]
    pub(super) words: String,
}

impl Line {
    pub(super) fn key(&self) -> (String, char, char) {
        (self.id.clone(), self.from, self.to)
    }

    pub(super) fn is_case(&self) -> bool {
        self.came != Came::NotStarted && self.said.is_some()
    }

    pub(super) fn refused(&self) -> bool {
        matches!(self.came, Came::Refused | Came::RefusedAtTheEnd)
    }

    pub(super) fn go_and_refused(&self) -> bool {
        self.said == Some(Said::Go) && self.refused()
    }

    pub(super) fn no_go_and_accepted(&self) -> bool {
        self.said == Some(Said::NoGo) && self.came == Came::Accepted
    }

    /// True if only a trial, QEMU's monitor or the twin foretold the refusal.
    pub(super) fn caught_by_asking(&self) -> bool {
        let asked = self.asked == Some(Said::NoGo) || self.twin == Some(Twin::Failed);
        self.refused() && self.said != Some(Said::NoGo) && asked
    }

    /// True if the VM passed the start and failed at the end, and its twin did not. What the trial refuses has not passed the start.
    pub(super) fn without_a_twins_warning(&self) -> bool {
        self.came == Came::RefusedAtTheEnd
            && self.twin != Some(Twin::Failed)
            && self.asked != Some(Said::NoGo)
    }

    /// True where vmgate was wrong, could not tell, or was not asked.
    pub(super) fn disagrees(&self) -> bool {
        let mute = self.came != Came::NotStarted && self.said.is_none();
        mute || self.go_and_refused() || self.no_go_and_accepted() || self.said == Some(Said::Unknown)
    }
}

/// The file of results.
pub(super) struct Results {
    file: PathBuf,
    pub(super) lines: Vec<Line>,
    /// Keys of the lines that `retain` dropped.
    pub(super) dropped: Vec<(String, char, char)>,
}

impl Results {
    pub(super) fn read(file: PathBuf) -> Self {
        let text = fs::read_to_string(&file).unwrap_or_default();
        // A line that was cut off is no result.
        let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        Self { file, lines, dropped: Vec::new() }
    }

    /// Keeps these lines alone, and writes the file anew.
    pub(super) fn retain(&mut self, keep: impl Fn(&Line) -> bool) {
        let (kept, dropped) = self.lines.drain(..).partition(|line| keep(line));
        self.lines = kept;
        self.dropped = dropped.iter().map(Line::key).collect();
        let text: String =
            self.lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect();
        fs::write(&self.file, text).unwrap();
    }

    pub(super) fn add(&mut self, lines: Vec<Line>) {
        let mut file = OpenOptions::new().create(true).append(true).open(&self.file).unwrap();
        for line in &lines {
            writeln!(file, "{}", serde_json::to_string(line).unwrap()).unwrap();
        }
        self.lines.extend(lines);
    }
}
