//! `vmgate rules`: lists, explains, lints and tests the rules, and prints schemas and the facts that rules can name.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use schemars::schema_for;
use vmgate_attest::RulesOrigin;
use vmgate_documents::{Problem, Problems, closest};
use vmgate_facts::text::{plain, with_causes};
use vmgate_judge::{InvalidPolicy, Policy, SIGNATURE_FILE, change};
use vmgate_rules::{Pack, Rule, RuleSource, test};
use vmgate_verdict::ExitCode;

use super::{Failure, key_files, options::GlobalOptions, output, session::Session};
use crate::{audit::Audit, config, fleet::inventory};

#[derive(Debug, Args)]
pub(super) struct Rules {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the rules by step
    List,
    /// Explain a rule: its reason, the remedy, and its parameters with their values
    Show {
        /// Id of the rule
        id: String,
    },
    /// Check the texts of rules and catalogues for style
    Lint,
    /// Run the tests beside the rules and catalogues
    Test {
        /// Only rules, cases (written `id: case`) and catalogues with this text in their name
        #[arg(long, value_name = "PATTERN")]
        run: Option<String>,
        /// Show expected and actual results side by side
        #[arg(long)]
        diff: bool,
    },
    /// Print a JSON Schema
    Schema {
        /// Name of the schema, such as rule.v1; all names are listed if not given
        name: Option<String>,
    },
    /// List the facts that a rule can name
    Facts {
        /// Only this fact and those below it, such as guest.tcp
        path: Option<String>,
        /// As the Markdown of docs/facts.md
        #[arg(long, conflicts_with = "path")]
        markdown: bool,
    },
    /// Print the digest of each pack of rules and of the parameters, as `demand: rules` of a host's hook.yaml names them
    Digest,
    /// Sign a folder of rules, so that hosts can demand its key: writes pack.dsse.json into the folder
    Sign {
        /// Folder of rules
        folder: PathBuf,
        /// Private key, PKCS#8 in PEM; if not given, the variable VMGATE_SIGNING_KEY holds the key
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// Print the reference of all rules, the Markdown of docs/rules.md
    Reference,
}

impl Rules {
    pub(super) fn run(&self, shared: &GlobalOptions) -> Result<ExitCode, Failure> {
        let session = Session::open(shared)?;
        match &self.action {
            Action::List => list(&some_rules(&session)?.pack),
            Action::Show { id } => show(&session.policy()?.pack, id),
            Action::Lint => lint(&some_rules(&session)?, shared),
            Action::Test { run, diff } => tests(&session, run.as_deref(), *diff),
            Action::Schema { name } => schema(name.as_deref()),
            Action::Facts { markdown: true, .. } => print(&vmgate_rules::facts_markdown()),
            Action::Facts { path, .. } => {
                print(&vmgate_rules::facts_reference(path.as_deref()).map_err(Failure::usage)?)
            }
            Action::Digest => digests(&some_rules(&session)?),
            Action::Sign { folder, key } => sign(folder, key.as_deref()),
            Action::Reference => print(&vmgate_rules::rules_reference(&some_rules(&session)?.pack)),
        }
    }
}

/// The rules that the options select; a failure if there are none.
fn some_rules(session: &Session) -> Result<Policy, Failure> {
    let policy = session.policy()?;
    if policy.pack.rules().is_empty() {
        let text = "no rule is loaded: leave out --no-builtin-rules, or give a folder of rules with --rules"
            .to_owned();
        return Err(Failure { exit: ExitCode::NothingEvaluated, text });
    }
    Ok(policy)
}

fn list(pack: &Pack) -> Result<ExitCode, Failure> {
    let line = |rule: &Rule| {
        let lead = format!("{:<8} {:<6} {:<46}", rule.step.word(), rule.effect.word(), rule.id);
        output::in_columns(&lead, &rule.title) + "\n"
    };
    print(&pack.rules().iter().map(line).collect::<String>())
}

fn digests(policy: &Policy) -> Result<ExitCode, Failure> {
    let rows = policy.basis().iter().map(|pack| {
        let name = match (pack.origin, &pack.name) {
            (RulesOrigin::Builtin, _) => "builtin".to_owned(),
            (RulesOrigin::Parameters, Some(name)) => format!("parameters {}", plain(name)),
            (RulesOrigin::Parameters, None) => "parameters".to_owned(),
            (_, name) => plain(name.as_deref().unwrap_or_default()),
        };
        let signer = pack.signed_by.as_ref().map_or_else(String::new, |key| format!("signed by key {key}"));
        [pack.digest.to_string(), name, signer]
    });
    let mut table = rows.collect::<tabled::builder::Builder>().build();
    table.with(tabled::settings::Style::blank());
    print(&format!("{table}\n"))
}

fn sign(folder: &Path, key: Option<&Path>) -> Result<ExitCode, Failure> {
    // Rules that do not load are not worth a signature.
    Pack::load(&[RuleSource::Builtin, RuleSource::Dir(folder.to_owned())]).map_err(Failure::usage)?;
    let key = key_files::signing_key(key)?;
    let text =
        vmgate_judge::sign_rules(folder, &key).map_err(|error| Failure::failed(with_causes(&error)))?;
    let file = folder.join(SIGNATURE_FILE);
    output::OpenFile::open(&file)?.write(|out| out.write_all(text.as_bytes()))?;
    print(&format!("{}: signed by key {}\n", file.display(), key.public().id()))
}

fn show(pack: &Pack, id: &str) -> Result<ExitCode, Failure> {
    if let Some(rule) = pack.rule(id) {
        output::prose_to_stdout(vmgate_rules::explain_rule(rule))?;
        return Ok(ExitCode::Go);
    }
    let like = closest(id, pack.rules().iter().map(|rule| &*rule.id));
    let hint = like.map_or_else(
        || "`vmgate rules list` lists the ids".to_owned(),
        |like| format!("did you mean `{like}`?"),
    );
    Err(Failure::usage(format!("there is no rule `{id}`; {hint}")))
}

fn lint(policy: &Policy, shared: &GlobalOptions) -> Result<ExitCode, Failure> {
    let problems: Vec<Problem> =
        vmgate_rules::lint(&policy.pack).into_iter().chain(policy.catalogues.lint()).collect();
    if problems.is_empty() {
        return Ok(ExitCode::Go);
    }
    let colour = output::colours_stdout(shared);
    let text: String =
        problems.iter().flat_map(|problem| [problem.render(colour), "\n\n".to_owned()]).collect();
    output::to_stdout_in_colour(shared, |out| out.write_all(text.as_bytes()))?;
    Err(Failure::usage(format!("{} findings of style: each one above says what to change", problems.len())))
}

fn tests(session: &Session, pattern: Option<&str>, diff: bool) -> Result<ExitCode, Failure> {
    let policy = session.rules().map_err(|error| match error {
        InvalidPolicy::Files(mut errors) => {
            errors.problems.extend(test::problems_of_files(&session.rule_sources()));
            Failure::usage(Problems::from(errors.problems))
        }
        other @ InvalidPolicy::Parameters(_) => Failure::usage(other),
    })?;
    let report = test::run(&policy.pack, &policy.catalogues, &session.rule_sources(), pattern);
    let text = report.render(output::colours_stdout(session.shared), diff);
    output::to_stdout_in_colour(session.shared, |out| out.write_all(text.as_bytes()))?;
    Ok(match report.passed() {
        true => ExitCode::Go,
        false if report.is_empty() => ExitCode::NothingEvaluated,
        false => ExitCode::Invalid,
    })
}

fn schema(name: Option<&str>) -> Result<ExitCode, Failure> {
    let mut schemas = vmgate_rules::schemas();
    schemas.extend([
        ("change.v1", change::schema().to_value()),
        ("config.v1", config::schema().to_value()),
        ("inventory.v1", inventory::schema().to_value()),
        ("verdict.v1", vmgate_verdict::schema().to_value()),
        ("audit.v1", schema_for!(Audit).to_value()),
        ("waivers.v1", vmgate_verdict::waivers_schema().to_value()),
    ]);
    let names: Vec<&str> = schemas.iter().map(|(name, _)| *name).collect();
    let Some(wanted) = name else { return print(&format!("{}\n", names.join("\n"))) };
    let Some((_, schema)) = schemas.iter().find(|(name, _)| *name == wanted) else {
        return Err(Failure::usage(format!("there is no schema `{wanted}`; there are {}", names.join(", "))));
    };
    let text = serde_json::to_string_pretty(schema).map_err(Failure::failed)?;
    print(&format!("{text}\n"))
}

fn print(text: &str) -> Result<ExitCode, Failure> {
    output::to_stdout(|out| out.write_all(text.as_bytes()))?;
    Ok(ExitCode::Go)
}
