//! Output of reports, logs and failures: reports to stdout or files, everything else to stderr.

use std::{
    backtrace::BacktraceStatus,
    fmt::Display,
    fs::File,
    io::{self, IsTerminal, Read as _, Write},
    path::{Path, PathBuf},
    str::FromStr,
    sync::OnceLock,
};

use clap::Args;
use tracing_subscriber::{EnvFilter, fmt::time::SystemTime};
use vmgate_documents::LARGEST_PROGRAM_DOCUMENT;
use vmgate_facts::text::{Colours, harmless, with_causes};
use vmgate_verdict::{Baseline, ExitCode, Verdict};

use super::{
    Failure,
    options::{ColourChoice, GlobalOptions, LogFormat},
    output_file::{OutputFile, pipe_may_close},
};
#[cfg(feature = "libvirt")]
use crate::audit::Audit;
use crate::report::{self, Format, ReportError, Style, Templates, lines::Lines, wrap};

/// Largest template, in bytes.
const LARGEST_TEMPLATE: u64 = 1 << 20;

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

/// Reports whose files could be opened. A regular file appears complete or not at all.
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

/// File that could be opened, under the name that messages call it.
pub(super) struct OpenFile {
    path: PathBuf,
    file: OutputFile,
}

impl Reports {
    /// Makes sure that every report can be written, before the work begins that it reports.
    pub(super) fn open(&self) -> Result<OpenReports, Failure> {
        let open = |target: &ReportTarget| match &target.file {
            Some(path) => Ok((target.format, Some(OpenFile::open(path)?))),
            None => Ok((target.format, None)),
        };
        Ok(OpenReports {
            targets: self.targets.iter().map(open).collect::<Result<_, _>>()?,
            baseline: self.baseline.as_deref().map(saved).transpose()?,
            templates: self
                .templates
                .iter()
                .try_fold(Templates::default(), |templates, file| with_template(templates, file))?,
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

fn with_template(templates: Templates, file: &Path) -> Result<Templates, Failure> {
    let unusable = |why: &dyn Display| Failure::usage(format!("--template {}: {why}", file.display()));
    let bytes = vmgate_trust::read(file, LARGEST_TEMPLATE).map_err(|why| unusable(&why))?;
    let text = String::from_utf8(bytes).map_err(|error| unusable(&error))?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    templates.with(&name, text).map_err(|error| unusable(&error))
}

impl OpenFile {
    /// Opens a file for writing; an existing file stays as it is until [`OpenFile::write`].
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let file = OutputFile::open(path).map_err(|why| unwritable(path, &why))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Writes the whole content. If that fails, an existing file is what it was.
    pub(super) fn write(
        mut self,
        content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let written = content(&mut self.file);
        pipe_may_close(written).and_then(|()| self.file.finish()).map_err(|why| unwritable(&self.path, &why))
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
            let style = Style { templates: templates.clone(), ..style_for(file.as_ref(), shared) };
            write_to(file, |out| report::write(format, verdicts, out, &style).map_err(sink_error))?;
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
        template @ ReportError::Template(_) => io::Error::other(with_causes(&template)),
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
            let style = Style { templates: self.templates.clone(), ..style_for(file.as_ref(), shared) };
            write_to(file, |out| {
                report::write_audit(format, audit, verdicts, out, &style).map_err(sink_error)
            })?;
        }
        Ok(())
    }
}

/// Style of a report for a file, or for stdout.
fn style_for(file: Option<&OpenFile>, shared: &GlobalOptions) -> Style {
    match file {
        Some(_) => Style { verbose: shared.verbose > 0, ..Style::default() },
        None => style(shared),
    }
}

/// Writes to a file, or to stdout. The content makes itself harmless.
fn write_to(
    file: Option<OpenFile>,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Failure> {
    match file {
        Some(file) => file.write(content),
        None => to_stdout_as_it_is(content),
    }
}

/// Prints text or JSON on stdout, in lines that neither a terminal nor a CI runner obeys; a closed pipe is not an error.
pub(super) fn to_stdout(print: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    to_stdout_with(Colours::Escaped, print)
}

/// Prints text with vmgate's own colours, if the options allow them, and all else as [`to_stdout`] does.
pub(super) fn to_stdout_in_colour(
    shared: &GlobalOptions,
    print: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Failure> {
    to_stdout_with(if colours_stdout(shared) { Colours::Kept } else { Colours::Escaped }, print)
}

fn to_stdout_with(
    colours: Colours,
    print: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Failure> {
    to_stdout_as_it_is(|out| {
        let mut lines = Lines::new(out, colours);
        print(&mut lines).and_then(|()| lines.flush())
    })
}

/// Prints on stdout what is harmless by itself: reports, and what the program alone has made.
pub(super) fn to_stdout_as_it_is(
    print: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    pipe_may_close(print(&mut out).and_then(|()| out.flush())).map_err(|error| {
        Failure::failed(format!(
            "stdout: cannot be written: {error}; write to a file with --output FORMAT=PATH"
        ))
    })
}

/// Progress bar over this number of parts, on a terminal only.
#[cfg(feature = "libvirt")]
pub(super) fn progress(shared: &GlobalOptions, parts: u64, what: &'static str) -> indicatif::ProgressBar {
    if shared.quiet || !io::stderr().is_terminal() {
        return indicatif::ProgressBar::hidden();
    }
    let bar = indicatif::ProgressBar::new(parts);
    if let Ok(style) =
        indicatif::ProgressStyle::with_template("{prefix} [{bar:40}] {pos} of {len}, {elapsed}, {eta} left")
    {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(what);
    bar
}

/// Line on a terminal that says what is awaited and for how long it has been; gone when it is dropped.
#[cfg(feature = "libvirt")]
pub(super) struct Waiting(indicatif::ProgressBar);

#[cfg(feature = "libvirt")]
impl Waiting {
    /// Begins to wait for `what`, which takes about `expected`.
    pub(super) fn begin(shared: &GlobalOptions, what: &str, expected: std::time::Duration) -> Self {
        if shared.quiet || !io::stderr().is_terminal() {
            return Self(indicatif::ProgressBar::hidden());
        }
        let bar = indicatif::ProgressBar::new_spinner();
        if let Ok(style) = indicatif::ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.set_message(harmless(
            &format!("{what}: about {} s", expected.as_secs().max(1)),
            Colours::Escaped,
        ));
        bar.enable_steady_tick(std::time::Duration::from_millis(250));
        Self(bar)
    }
}

#[cfg(feature = "libvirt")]
impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// True if reports on stdout are coloured.
pub(super) fn colours_stdout(shared: &GlobalOptions) -> bool {
    match shared.color {
        ColourChoice::Always => true,
        ColourChoice::Never => false,
        ColourChoice::Auto => io::stdout().is_terminal() && colour_is_wanted(),
    }
}

/// True unless NO_COLOR asks for no colour (https://no-color.org).
fn colour_is_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Style of reports on stdout.
pub(super) fn style(shared: &GlobalOptions) -> Style {
    let colour = colours_stdout(shared);
    let width = terminal_width(io::stdout().is_terminal());
    let defaults = Style::default();
    Style { colour, verbose: shared.verbose > 0, width: width.unwrap_or(defaults.width), ..defaults }
}

/// Columns of the terminal, for a stream that is one.
fn terminal_width(is_terminal: bool) -> Option<usize> {
    terminal_size::terminal_size().filter(|_| is_terminal).map(|(width, _)| usize::from(width.0))
}

/// A lead and a sentence of a result beside it, in lines as wide as the terminal that shows them. The sentence is below a lead
/// that takes more than half of it.
pub(super) fn in_columns(lead: &str, text: &str) -> String {
    match terminal_width(io::stdout().is_terminal()) {
        None => format!("{lead}{text}"),
        Some(width) if lead.len() * 2 > width => {
            format!("{}\n{}", lead.trim_end(), wrap::fill(text, "    ", "    ", width))
        }
        Some(width) => wrap::fill(text, lead, &" ".repeat(lead.len().max(2)), width),
    }
}

/// Prints a message on stderr, unless `-q` was given.
pub(super) fn say(shared: &GlobalOptions, text: &str) {
    if !shared.quiet {
        message("INFO", text);
    }
}

/// Prints a failure on stderr.
pub(super) fn say_failure(failure: &Failure) {
    message("ERROR", failure.text.trim_end());
}

/// Format of messages, once the options are read.
static LOG_FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// Prints a message on stderr, in the format of the log.
fn message(level: &str, text: &str) {
    if LOG_FORMAT.get() == Some(&LogFormat::Json) {
        let now = jiff::Timestamp::now().to_string();
        let line = serde_json::json!({ "timestamp": now, "level": level, "fields": { "message": text } });
        to_stderr(&format!("{line}\n"));
    } else {
        to_stderr(&for_terminal(format!("vmgate: {text}\n"), io::stderr().is_terminal()));
    }
}

/// Text in lines as wide as the terminal, if its stream is one. Code and an excerpt of a document keep their lines: a caret
/// points into it.
fn for_terminal(text: String, is_terminal: bool) -> String {
    const LEADS: [&str; 3] = ["vmgate: ", "= help: ", "- "];
    let Some(width) = terminal_width(is_terminal) else { return text };
    let mut is_code = false;
    let wrapped = |line: &str| {
        let begins = line.trim_start();
        is_code ^= begins.starts_with("```");
        if is_code || line.contains(" |") || line.contains("-->") {
            return format!("{line}\n");
        }
        let lead = LEADS.iter().find(|lead| begins.starts_with(**lead)).map_or(0, |lead| lead.len());
        let (lead, rest) = line.split_at(line.len() - begins.len() + lead);
        wrap::fill(rest, lead, &" ".repeat(lead.len()), width) + "\n"
    };
    text.lines().map(wrapped).collect()
}

/// Prints prose on stdout, in lines as wide as the terminal.
pub(super) fn prose_to_stdout(text: String) -> Result<(), Failure> {
    let text = for_terminal(text, io::stdout().is_terminal());
    to_stdout(|out| out.write_all(text.as_bytes()))
}

/// Prints on stderr, in lines that neither a terminal nor a CI runner obeys.
fn to_stderr(text: &str) {
    let _ = io::stderr().write_all(harmless(text, Colours::Escaped).as_bytes());
}

/// Prints what clap says about the arguments: help on stdout, a mistake on stderr. It repeats the arguments, which may
/// be names from anywhere; clap takes escape sequences out of them.
pub(super) fn say_of_arguments(said: &clap::Error) {
    let terminal = if said.use_stderr() { io::stderr().is_terminal() } else { io::stdout().is_terminal() };
    let (text, colours) = if terminal && colour_is_wanted() {
        (said.render().ansi().to_string(), Colours::Kept)
    } else {
        (said.render().to_string(), Colours::Escaped)
    };
    if said.use_stderr() {
        let text = for_terminal(text, terminal);
        let _ = io::stderr().write_all(harmless(&text, colours).as_bytes());
    } else {
        // There is no other way to say anything.
        let _ = to_stdout_with(colours, |out| out.write_all(text.as_bytes()));
    }
}

/// Standard error for the log, made harmless: an event may hold text from a guest.
struct HarmlessStderr(Colours);

impl Write for HarmlessStderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stderr().write_all(harmless(&String::from_utf8_lossy(bytes), self.0).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Prints panics on stderr, made harmless: the message of one may quote the text that it choked on.
pub(super) fn start_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let trace = std::backtrace::Backtrace::capture();
        let trace = match trace.status() {
            BacktraceStatus::Captured => format!("{trace}"),
            _ => "set RUST_BACKTRACE=1 to see where".to_owned(),
        };
        to_stderr(&format!("vmgate: this is a defect of vmgate, please report it: {panic}\n{trace}\n"));
    }));
}

/// Starts the log on stderr: warnings, or more with `-v`, or as VMGATE_LOG says.
pub(super) fn start_log(shared: &GlobalOptions) {
    let level = match (shared.quiet, shared.verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "vmgate=info,warn",
        (false, _) => "vmgate=debug,info",
    };
    let in_colour = io::stderr().is_terminal() && shared.color != ColourChoice::Never;
    let colours = if in_colour { Colours::Kept } else { Colours::Escaped };
    let filter = EnvFilter::try_from_env("VMGATE_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let _ = LOG_FORMAT.set(shared.log_format);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_timer(SystemTime);
    match shared.log_format {
        LogFormat::Json => log.json().with_writer(|| HarmlessStderr(Colours::Escaped)).init(),
        LogFormat::Text => {
            log.with_ansi(colours == Colours::Kept).with_writer(move || HarmlessStderr(colours)).init();
        }
    }
}
