//! A malicious guest agent: it greets as qemu-ga does, so that it is trusted, and then behaves as its first
//! argument says. libvirt and vmgate must tolerate each behaviour.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::thread;
use std::time::Duration;

/// Text of which an endless answer consists: one gigabyte of it.
const FLOOD: [u8; 1 << 20] = [b'A'; 1 << 20];

fn main() {
    let mut words = std::env::args().skip(1);
    let (Some(manner), Some(port)) = (words.next(), words.next()) else {
        eprintln!("usage: agent garbage|flood|mute|late|other PORT");
        std::process::exit(2);
    };
    let line = OpenOptions::new().read(true).write(true).open(&port).expect("the port opens");
    let mut answer = line.try_clone().expect("the port can be written");
    println!("agent: {manner}");
    let mut before = r#"{"return": {}}"#.to_owned();
    let mut bytes = BufReader::new(line);
    loop {
        let mut request = Vec::new();
        match bytes.read_until(b'\n', &mut request) {
            // Nobody is there now.
            Ok(0) | Err(_) => {
                thread::sleep(Duration::from_millis(100));
                continue;
            }
            Ok(_) => {}
        }
        // A sync begins with a byte that is none of JSON.
        request.retain(|byte| *byte != 0xff);
        let request = String::from_utf8_lossy(&request).into_owned();
        if request.contains("guest-sync") {
            let delimiter: &[u8] = if request.contains("delimited") { b"\xff" } else { b"" };
            let after = request.split("\"id\"").nth(1).unwrap_or_default().chars();
            let id: String =
                after.skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
            let text = [delimiter, format!("{{\"return\": {id}}}\n").as_bytes()].concat();
            let _ = answer.write_all(&text);
            continue;
        }
        let honest = honest(&request);
        let said = match manner.as_str() {
            // Correct for long enough to be trusted, then anything.
            "garbage" if is_greeting(&request) => honest,
            "garbage" => format!("{{\"return\": \u{1b}[2J\u{202e}{}}}", "[".repeat(100_000)),
            "flood" if is_greeting(&request) => honest,
            "flood" => {
                let _ = answer.write_all(b"{\"return\": {\"buf-b64\": \"");
                for _ in 0..1024 {
                    if answer.write_all(&FLOOD).is_err() {
                        break;
                    }
                }
                "\"}}".to_owned()
            }
            "mute" => continue,
            "late" => {
                thread::sleep(Duration::from_secs(2));
                honest
            }
            // The right answer to the question before this one.
            _ => std::mem::replace(&mut before, honest),
        };
        let _ = answer.write_all(format!("{said}\n").as_bytes());
    }
}

fn is_greeting(request: &str) -> bool {
    request.contains("guest-ping") || request.contains("guest-info")
}

/// Plausible answers of qemu-ga, for a guest that is called `liar`.
fn honest(request: &str) -> String {
    let says = |command: &str| request.contains(&format!("\"{command}\""));
    let content = if says("guest-info") {
        let commands = ["guest-exec", "guest-exec-status", "guest-file-open", "guest-file-read", "guest-file-close"]
            .map(|name| format!("{{\"name\": \"{name}\", \"enabled\": true, \"success-response\": true}}"));
        format!("{{\"version\": \"7.2.0\", \"supported_commands\": [{}]}}", commands.join(", "))
    } else if says("guest-exec") {
        "{\"pid\": 7}".to_owned()
    } else if says("guest-exec-status") {
        "{\"exited\": true, \"exitcode\": 0, \"out-data\": \"bGlhcgo=\"}".to_owned()
    } else if says("guest-file-open") {
        "1000".to_owned()
    } else if says("guest-file-read") {
        "{\"count\": 5, \"buf-b64\": \"bGlhcgo=\", \"eof\": true}".to_owned()
    } else {
        "{}".to_owned()
    };
    format!("{{\"return\": {content}}}")
}
