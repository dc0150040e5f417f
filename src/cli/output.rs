//! Output of reports, logs and failures: reports to stdout or files, everything else to stderr.

use std::{
    fmt::Display,
    fs::{self, File},
    io::{self, IsTerminal, Read as _, Write},
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::Args;
use tempfile::NamedTempFile;
use tracing_subscriber::{EnvFilter, fmt::time::SystemTime};
use vmgate_documents::LARGEST_PROGRAM_DOCUMENT;
use vmgate_facts::text::with_causes;
use vmgate_verdict::{Baseline, ExitCode, Verdict};

use super::{
    Failure,
    options::{ColourChoice, GlobalOptions},
};
#[cfg(feature = "libvirt")]
use crate::audit::Audit;
use crate::report::{self, Format, ReportError, Style, Templates, visible_lines};

/// Options of the reports to write.
#[derive(Debug, Args)]
pub(super) struct Reports {
    /// Format of the report, and a file for it; may be repeated. Without a file the report goes to stdout
    #[arg(short = 'o', long = "output", value_name = "FORMAT[=PATH]", default_value = "table")]
    targets: Vec<ReportTarget>,
    /// Earlier report, written by --output json or yaml, to compare with: the report shows what is new, changed and fixed
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Template of the HTML report that replaces the built-in one: page.html, move.html, style.css or script.js; may
    /// be repeated
    #[arg(long = "template", value_name = "FILE")]
    templates: Vec<PathBuf>,
}

#[derive(Debug, Clone)]
struct ReportTarget {
    format: Format,
    file: Option<PathBuf>,
}

impl FromStr for ReportTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (format, file) = match text.split_once('=') {
            Some((_, "")) => return Err("the path after `=` is empty".to_owned()),
            Some((format, file)) => (format, Some(PathBuf::from(file))),
            None => (text, None),
        };
        Ok(Self { format: format.parse().map_err(|error: report::UnknownFormat| error.to_string())?, file })
    }
}

/// Reports whose files could be opened. A file appears complete or not at all.
pub(super) struct OpenReports {
    targets: Vec<(Format, Option<OpenFile>)>,
    baseline: Option<SavedReport>,
    templates: Templates,
}

/// Bytes of a saved report: the command decides how they are parsed.
struct SavedReport {
    name: String,
    bytes: Vec<u8>,
}

pub(super) struct OpenFile {
    path: PathBuf,
    draft: NamedTempFile,
}

impl Reports {
    /// Makes sure that every report can be written, before the work begins that it reports.
    pub(super) fn open(&self) -> Result<OpenReports, Failure> {
        let open = |target: &ReportTarget| match &target.file {
            Some(path) => Ok((target.format, Some(OpenFile::draft_for(path)?))),
            None => Ok((target.format, None)),
        };
        Ok(OpenReports {
            targets: self.targets.iter().map(open).collect::<Result<_, _>>()?,
            baseline: self.baseline.as_deref().map(saved).transpose()?,
            templates: self.templates.iter().try_fold(Templates::default(), with_template)?,
        })
    }
}

/// The verdicts of a saved report.
pub(super) fn read_verdicts(file: &Path) -> Result<Vec<Verdict>, Failure> {
    let SavedReport { name, bytes } = saved(file)?;
    vmgate_verdict::read(&name, &bytes).map_err(Failure::usage)
}

fn saved(file: &Path) -> Result<SavedReport, Failure> {
    let bytes = bytes_of(file)?;
    Ok(SavedReport { name: file.display().to_string(), bytes })
}

/// Baseline from a saved report, to compare later verdicts with.
pub(super) fn read_baseline(file: &Path) -> Result<Baseline, Failure> {
    read_verdicts(file).map(Baseline::new)
}

fn with_template(templates: Templates, file: &PathBuf) -> Result<Templates, Failure> {
    let unusable = |why: &dyn Display| Failure::usage(format!("--template {}: {why}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| unusable(&format!("cannot be read: {error}")))?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    templates.with(&name, text).map_err(|error| unusable(&error))
}

impl OpenFile {
    /// Opens a draft next to `path`, which can replace it in one step.
    pub(super) fn draft_for(path: &Path) -> Result<Self, Failure> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if path.is_dir() {
            return Err(unwritable(path, &"the path is a folder"));
        }
        let draft = NamedTempFile::new_in(folder).map_err(|error| unwritable(path, &error))?;
        Ok(Self { path: path.to_owned(), draft })
    }

    /// Writes the whole text and replaces the file by it.
    pub(super) fn finish_with(mut self, text: &str) -> Result<(), Failure> {
        self.draft.write_all(text.as_bytes()).map_err(|error| unwritable(&self.path, &error))?;
        self.finish()
    }

    fn finish(self) -> Result<(), Failure> {
        self.draft.persist(&self.path).map_err(|error| unwritable(&self.path, &error.error))?;
        Ok(())
    }
}

/// Bytes of a file that a program wrote, up to one byte more than any reader takes.
pub(super) fn bytes_of(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LARGEST_PROGRAM_DOCUMENT + 1).read_to_end(&mut bytes))
        .map_err(|error| unreadable(path, &error))?;
    Ok(bytes)
}

/// Failure for a user's file that cannot be read.
pub(super) fn unreadable(path: &Path, why: &dyn Display) -> Failure {
    Failure::usage(format!("{}: cannot be read: {why}; check its name and permissions", path.display()))
}

fn unwritable(path: &Path, why: &dyn Display) -> Failure {
    Failure::failed(format!("{}: cannot be written: {why}; choose another path", path.display()))
}

impl OpenReports {
    /// Writes every report of `verdicts` and returns the exit code.
    pub(super) fn write(self, verdicts: &[Verdict], shared: &GlobalOptions) -> Result<ExitCode, Failure> {
        let compared = self.baseline.map(|saved| compared(verdicts, &saved)).transpose()?;
        let verdicts = compared.as_deref().unwrap_or(verdicts);
        let templates = self.templates;
        for (format, file) in self.targets {
            if let Some(mut file) = file {
                let style =
                    Style { verbose: shared.verbose > 0, templates: templates.clone(), ..Style::default() };
                report::write(format, verdicts, &mut file.draft, &style)
                    .map_err(|error| unwritable(&file.path, &with_causes(&error)))?;
                file.finish()?;
            } else {
                let style = Style { templates: templates.clone(), ..style(shared) };
                to_stdout(|out| report::write(format, verdicts, out, &style).map_err(sink_error))?;
            }
        }
        Ok(ExitCode::of_all(verdicts))
    }
}

fn compared(verdicts: &[Verdict], saved: &SavedReport) -> Result<Vec<Verdict>, Failure> {
    let baseline = Baseline::new(vmgate_verdict::read(&saved.name, &saved.bytes).map_err(Failure::usage)?);
    let mut verdicts = verdicts.to_vec();
    for verdict in &mut verdicts {
        baseline.compare(verdict);
    }
    Ok(verdicts)
}

/// I/O error of the sink, so that a closed pipe can be told from other errors.
fn sink_error(error: ReportError) -> io::Error {
    match error {
        ReportError::Write { source, .. } => source,
        template @ ReportError::Template(_) => io::Error::other(template),
    }
}

#[cfg(feature = "libvirt")]
impl OpenReports {
    /// Writes every report of an audit.
    pub(super) fn write_audit(
        self,
        audit: &mut Audit,
        verdicts: &[Verdict],
        shared: &GlobalOptions,
    ) -> Result<(), Failure> {
        if let Some(SavedReport { name, bytes }) = &self.baseline {
            audit.compare_with(&Audit::read(name, bytes).map_err(Failure::usage)?);
        }
        for (format, file) in self.targets {
            if let Some(mut file) = file {
                let templates = self.templates.clone();
                let style = Style { verbose: shared.verbose > 0, templates, ..Style::default() };
                report::write_audit(format, audit, verdicts, &mut file.draft, &style)
                    .map_err(|error| unwritable(&file.path, &with_causes(&error)))?;
                file.finish()?;
            } else {
                let style = Style { templates: self.templates.clone(), ..style(shared) };
                to_stdout(|out| {
                    report::write_audit(format, audit, verdicts, out, &style).map_err(sink_error)
                })?;
            }
        }
        Ok(())
    }
}

/// Prints on stdout; a closed pipe is not an error.
pub(super) fn to_stdout(print: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match print(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::failed(format!(
            "stdout: cannot be written: {error}; write to a file with --output FORMAT=PATH"
        ))),
        _ => Ok(()),
    }
}

/// Progress bar over this number of parts, on a terminal only.
#[cfg(feature = "libvirt")]
pub(super) fn progress(shared: &GlobalOptions, parts: u64, what: &'static str) -> indicatif::ProgressBar {
    if shared.quiet || !io::stderr().is_terminal() {
        return indicatif::ProgressBar::hidden();
    }
    let bar = indicatif::ProgressBar::new(parts);
    if let Ok(style) = indicatif::ProgressStyle::with_template("{prefix} [{bar:40}] {percent}% {elapsed}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(what);
    bar
}

/// True if reports on stdout are coloured.
pub(super) fn colours_stdout(shared: &GlobalOptions) -> bool {
    match shared.color {
        ColourChoice::Always => true,
        ColourChoice::Never => false,
        ColourChoice::Auto => {
            io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        }
    }
}

/// Style of reports on stdout.
pub(super) fn style(shared: &GlobalOptions) -> Style {
    let terminal = io::stdout().is_terminal();
    let colour = colours_stdout(shared);
    let width = terminal_size::terminal_size().filter(|_| terminal).map(|(width, _)| usize::from(width.0));
    let defaults = Style::default();
    Style { colour, verbose: shared.verbose > 0, width: width.unwrap_or(defaults.width), ..defaults }
}

/// Prints a message on stderr, unless `-q` was given.
#[cfg(feature = "libvirt")]
pub(super) fn say(shared: &GlobalOptions, text: &str) {
    if !shared.quiet {
        let _ = writeln!(io::stderr(), "vmgate: {}", visible_lines(text));
    }
}

/// Prints a failure on stderr.
pub(super) fn say_failure(failure: &Failure) {
    let _ = writeln!(io::stderr(), "vmgate: {}", visible_lines(failure.text.trim_end()));
}

/// Standard error for the log, with control characters escaped: an event may hold text from a guest.
struct EscapedStderr;

impl Write for EscapedStderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stderr().write_all(visible_lines(&String::from_utf8_lossy(bytes)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Starts the log on stderr: warnings, or more with `-v`, or as VMGATE_LOG says.
pub(super) fn start_log(shared: &GlobalOptions) {
    let level = match (shared.quiet, shared.verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "vmgate=info,warn",
        (false, _) => "vmgate=debug,info",
    };
    let filter = EnvFilter::try_from_env("VMGATE_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| EscapedStderr)
        .with_ansi(io::stderr().is_terminal() && shared.color != ColourChoice::Never)
        .with_target(false)
        .with_timer(SystemTime)
        .init();
}
