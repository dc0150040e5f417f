//! Checks of the pages in docs/ against the repository: links have targets, every page is in the book, the
//! commands are valid for vmgate, and the example files can be parsed.

#![allow(clippy::unwrap_used)] // in helpers of tests too

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use vmgate::config::Config;
use vmgate_verdict::Waivers;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every page that people read, with its text.
fn pages() -> Vec<(PathBuf, String)> {
    let folders = ["", "docs", "reports", "tests/lab", "examples/ci", "benches/forecast/results"];
    let mut pages = Vec::new();
    for folder in folders {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let text = fs::read_to_string(&path).unwrap();
                pages.push((path, text));
            }
        }
    }
    assert!(pages.len() > 15, "only {} pages were found", pages.len());
    pages
}

/// The text without fenced blocks and code spans: what looks like a link there is none.
fn prose(text: &str) -> String {
    let mut fenced = false;
    let lines = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    });
    lines.map(|line| line.split('`').step_by(2).collect::<String>() + "\n").collect()
}

fn links(text: &str) -> Vec<String> {
    let text = prose(text);
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target.to_owned()).collect()
}

/// The anchors of a page's headings, as mdBook, GitHub and GitLab make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut fenced = false;
    let headings = text.lines().filter(|line| {
        fenced ^= line.starts_with("```");
        !fenced && line.starts_with('#')
    });
    let anchor = |heading: &str| -> String {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    let mut seen = 0;
    for (page, text) in pages() {
        for link in
            links(&text).into_iter().filter(|link| !link.contains("://") && !link.starts_with("mailto:"))
        {
            seen += 1;
            let (file, anchor) = link.split_once('#').map_or((link.as_str(), None), |(f, a)| (f, Some(a)));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            let leads = match (fs::read_to_string(&target), anchor) {
                (Ok(text), Some(anchor)) => anchors(&text).contains(anchor),
                (Err(_), Some(_)) => false,
                (_, None) => target.exists(),
            };
            if !leads {
                broken.push(format!("{}: {link}", page.strip_prefix(root()).unwrap().display()));
            }
        }
    }
    assert!(seen > 100, "only {seen} links were found");
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
}

#[test]
fn every_page_is_in_the_book() {
    let summary = fs::read_to_string(root().join("docs/SUMMARY.md")).unwrap();
    let listed: BTreeSet<String> = links(&summary).into_iter().collect();
    let pages = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().file_name());
    let there: BTreeSet<String> = pages
        .map(|name| name.into_string().unwrap())
        .filter(|name| Path::new(name).extension().is_some_and(|end| end == "md") && name != "SUMMARY.md")
        .collect();
    assert_eq!(there, listed);
}

/// Words of a command as a shell splits them, up to a redirection. Quotes are single and enclose whole words.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (position, part) in command.split('\'').enumerate() {
        if position % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    let end = words.iter().position(|word| word == ">" || word == "|").unwrap_or(words.len());
    words.truncate(end);
    words
}

#[test]
fn every_command_that_is_shown_is_understood() {
    let mut misunderstood = Vec::new();
    let mut seen = 0;
    for (page, text) in pages() {
        let commands = text
            .lines()
            .filter_map(|line| line.strip_prefix("$ "))
            .filter(|line| line.starts_with("vmgate "));
        for command in commands {
            let command = command.split("  #").next().unwrap();
            if command.contains('…') {
                continue;
            }
            seen += 1;
            match vmgate::cli::command().try_get_matches_from(words(command)) {
                Err(error) if error.use_stderr() => {
                    misunderstood.push(format!("{}: {command}\n{error}", page.display()));
                }
                _ => {}
            }
        }
    }
    assert!(seen > 20, "only {seen} commands were found");
    // The build without libvirt does not know the commands that need it.
    if cfg!(feature = "libvirt") {
        assert!(misunderstood.is_empty(), "{}", misunderstood.join("\n"));
    }
}

#[test]
fn the_example_files_are_read() {
    let concepts = fs::read_to_string(root().join("docs/concepts.md")).unwrap();
    let block = |schema: &str| {
        let start = concepts.find(&format!("```yaml\nschema: {schema}")).unwrap() + "```yaml\n".len();
        concepts[start..].split("```").next().unwrap()
    };
    Waivers::parse("concepts.md", block("vmgate/waivers/v1").as_bytes()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("vmgate.yaml");
    fs::write(&file, block("vmgate/config/v1")).unwrap();
    let config = Config::load(Some(&file)).unwrap();
    assert_eq!(config.profile.as_deref(), Some("strict"));
}

#[test]
fn every_cause_and_every_exit_code_is_explained() {
    let failures = fs::read_to_string(root().join("docs/failures.md")).unwrap().to_lowercase();
    let schema = serde_json::to_value(vmgate_verdict::schema()).unwrap();
    let causes = schema["$defs"]["Cause"]["oneOf"].as_array().unwrap().clone();
    assert!(causes.len() > 10, "{causes:?}");
    let unexplained: Vec<String> = causes
        .iter()
        .map(|cause| cause["const"].as_str().unwrap().replace('-', " "))
        .filter(|cause| !failures.contains(cause.as_str()))
        .collect();
    assert!(unexplained.is_empty(), "docs/failures.md says nothing of {unexplained:?}");
    let concepts = fs::read_to_string(root().join("docs/concepts.md")).unwrap();
    for code in vmgate_verdict::ExitCode::ALL {
        assert!(
            concepts.contains(&format!("| {} |", code.code())),
            "docs/concepts.md has no exit code {}",
            code.code()
        );
    }
}

/// Rust files below a folder of the repository.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// A stranger searches for things, not for questions: "Result of one simulated migration", not "How one replay went".
#[test]
fn documentation_of_code_begins_with_what_the_thing_is() {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    sources(&root().join("crates"), &mut files);
    assert!(files.len() > 300, "only {} files were found", files.len());
    let questions = ["What", "Whether", "How", "Where", "Which", "Who", "When", "Why"];
    let mut wrong = Vec::new();
    for file in files {
        let source = fs::read_to_string(&file).unwrap();
        let mut before = "";
        for (number, line) in source.lines().enumerate() {
            let text = line.trim_start();
            let comment = ["/// ", "//! "].iter().find_map(|mark| text.strip_prefix(mark));
            let begins = !matches!(before.get(..4), Some("/// " | "//! "));
            if let Some(comment) = comment.filter(|_| begins)
                && comment
                    .split(|letter: char| !letter.is_alphabetic())
                    .next()
                    .is_some_and(|w| questions.contains(&w))
            {
                wrong.push(format!("{}:{}: {comment}", file.display(), number + 1));
            }
            before = text;
        }
    }
    assert!(wrong.is_empty(), "documentation that begins with a question:\n{}", wrong.join("\n"));
}

/// Levels of the headings of a page, and the commands in its fenced blocks without what follows a `#`.
fn outline(page: &str) -> (Vec<usize>, Vec<String>) {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let mut fenced = false;
    let (mut levels, mut commands) = (Vec::new(), Vec::new());
    for line in text.lines() {
        fenced ^= line.starts_with("```");
        match line.strip_prefix("$ ") {
            Some(command) if fenced => {
                commands.push(command.split(" #").next().unwrap_or("").trim().to_owned());
            }
            _ if !fenced && line.starts_with('#') => {
                levels.push(line.len() - line.trim_start_matches('#').len());
            }
            _ => {}
        }
    }
    (levels, commands)
}

#[test]
fn the_japanese_pages_have_the_headings_and_commands_of_the_english_ones() {
    for (english, japanese) in [("README.md", "README.ja.md"), ("docs/start.md", "docs/start.ja.md")] {
        let (levels, commands) = outline(english);
        assert!(levels.len() > 4 && commands.len() > 7, "{english}: {levels:?} {commands:?}");
        assert_eq!(outline(japanese), (levels, commands), "{japanese} is not what {english} is");
    }
}

#[test]
fn the_table_of_clusters_is_fresh() {
    let path = root().join("docs/clusters.md");
    let page = fs::read_to_string(&path).unwrap();
    let start = page.find("| software | vendor").unwrap();
    let end = start + page[start..].find("\n\n").unwrap() + 1;
    let catalogue = fs::read_to_string(root().join("rules/catalogues/memory-sync.yaml")).unwrap();
    let catalogue: serde_yaml::Value = serde_yaml::from_str(&catalogue).unwrap();
    let mut rows = vec![
        "| software | vendor's word on a live move of an active member | taken out by | may be done when | brought back by | tried |".to_owned(),
        "|---|---|---|---|---|---|".to_owned(),
    ];
    for entry in catalogue["entries"].as_sequence().unwrap() {
        let text = |key: &str| entry[key].as_str().unwrap_or_default();
        if text("stop").is_empty() {
            continue;
        }
        let word = &entry["live_move"];
        let word = match word["support"].as_str() {
            None => "none found".to_owned(),
            Some(support) => format!(
                "{}: {} ([reference]({}))",
                if support == "unsupported" { "no" } else { "with conditions" },
                word["why"].as_str().unwrap(),
                word["reference"]["url"].as_str().unwrap()
            ),
        };
        let with = text("taken_out_with");
        let (taken_out, tried) = match (entry["take_out"].is_null(), with.is_empty()) {
            (false, _) => (format!("`take_out: {}`; by hand {}", text("id"), text("stop")), "lab".to_owned()),
            (_, false) => (format!("`take_out: {with}`; by hand {}", text("stop")), format!("with {with}")),
            _ => (text("stop").to_owned(), "documents".to_owned()),
        };
        let row = [text("title"), &word, &taken_out, text("ready"), text("start"), &tried];
        rows.push(format!("| {} |", row.map(|cell| cell.replace('|', "\\|")).join(" | ")));
    }
    let fresh = format!("{}{}\n{}", &page[..start], rows.join("\n"), &page[end..]);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &fresh).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), fresh, "docs/clusters.md is stale: run `make generate`");
}
