//! Golden samples of each format in `reports/samples/`, and a test that fails when one is out of date.
//!
//! `UPDATE=1 cargo test samples` writes them anew.

use std::{fs, path::PathBuf};

use vmgate_verdict::{Verdict, sample};

use super::{Format, Style, write};

fn verdicts(format: Format) -> Vec<Verdict> {
    match format {
        Format::Table | Format::Json | Format::Yaml => vec![sample::no_go()],
        Format::Markdown
        | Format::Junit
        | Format::Github
        | Format::Csv
        | Format::Prometheus
        | Format::Sarif
        | Format::Html => {
            vec![sample::no_go(), sample::go()]
        }
    }
}

#[test]
fn the_samples_are_what_the_formats_write() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("reports/samples");
    let mut drifted = Vec::new();
    for format in Format::ALL {
        let mut bytes = Vec::new();
        write(format, &verdicts(format), &mut bytes, &Style::default()).unwrap();
        // The samples must not change with every release.
        let text = String::from_utf8(bytes).unwrap().replace(env!("CARGO_PKG_VERSION"), "0.0.0");
        let file = folder.join(format!("{format}.{}", format.extension()));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&file, text).unwrap();
        } else if fs::read_to_string(&file).ok() != Some(text) {
            drifted.push(file);
        }
    }
    assert!(drifted.is_empty(), "drifted: {drifted:?}; look at them and run UPDATE=1 cargo test samples");
}
