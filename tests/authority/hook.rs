//! Promises 2, 5 and 7 at the destination: the hook decides in time and journals each decision, a verdict serves once, and
//! what was refused cannot be used later.

use std::{
    fs,
    io::Read,
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use vmgate_hook::requests::HookRequest;

use crate::destination::{
    Destination, HOST, SITE, begin, call, evaluated, go, in_minutes, let_in, no_go, refused, signed, touch,
    vm, with, write_for_root,
};

/// Domain XML from a libvirt that never finishes writing it.
struct Endless;

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        thread::sleep(Duration::from_millis(20));
        buffer[0] = b' ';
        Ok(1)
    }
}

/// Promise 5: two thousand verdicts wait for other VMs and two hundred files for one VM, and sixteen migrations that begin at
/// once are decided on their own, with one whole line each.
#[test]
fn waiting_verdicts_of_other_vms_do_not_delay_a_decision() {
    let host = Destination::new();
    let envelope = signed(&go(1), SITE);
    for number in 100..2100 {
        host.place(number, &format!("{}.4102444800", "0".repeat(64)), &envelope);
    }
    for number in 0..200 {
        host.place(99, &format!("placed{number}"), &envelope);
    }
    for number in (0..16).step_by(2) {
        host.push(&go(number), SITE).unwrap();
    }
    let threads: Vec<_> = (0..16)
        .map(|number| {
            let layout = host.layout.clone();
            thread::spawn(move || begin(&layout, &format!("web{number}"), &vm(number)))
        })
        .collect();
    for (number, thread) in threads.into_iter().enumerate() {
        assert_eq!(thread.join().unwrap().let_in, number % 2 == 0, "web{number}");
    }
    refused(&host.migrate("web99", &vm(99)), "this host has no signed verdict");
    let mut names: Vec<String> =
        host.decisions().iter().map(|line| line["vm"].as_str().unwrap().to_owned()).collect();
    names.sort();
    let mut wanted: Vec<String> = (0..16).chain([99]).map(|number| format!("web{number}")).collect();
    wanted.sort();
    assert_eq!(names, wanted, "one line for each decision");
}

/// Promise 5: libvirt's XML never ends, so the time does, and there is one line that says so, with `on-error: open` too.
#[test]
fn a_time_out_is_written_down_by_whoever_ran_out_of_time() {
    let host = Destination::new();
    for (number, (setting, expected)) in [("open", true), ("closed", false)].into_iter().enumerate() {
        host.configure(&format!("mode: enforce\non-error: {setting}\ntime-limit-seconds: 0.3\n"));
        let answer = vmgate_hook::run(host.layout.clone(), &call("slow"), Endless);
        assert_eq!(answer.let_in, expected, "{answer:?}");
        assert!(answer.message.as_deref().unwrap().contains("no decision within 0.3 s"), "{answer:?}");
        let lines = host.decisions();
        assert_eq!(lines.len(), number + 1, "{lines:#?}");
        let line = lines.last().unwrap();
        assert_eq!(
            (&line["vm"], &line["let_in"], &line["because"]),
            (&"slow".into(), &expected.into(), &"error".into())
        );
        assert!(line["reason"].as_str().unwrap().contains("no decision within"), "{line}");
    }
}

/// Promise 5: another process holds the lock of the hook's files for as long as it likes, and migrations are decided all the
/// same.
#[test]
fn a_lock_that_somebody_holds_does_not_stop_a_decision() {
    let host = Destination::new();
    host.push(&go(1), SITE).unwrap();
    host.configure("on-error: closed\ntime-limit-seconds: 1\n");
    let lock = fs::File::open(host.layout.lock()).unwrap();
    lock.lock().unwrap();
    let_in(&host.migrate("web1", &vm(1)));
    refused(&host.migrate("web2", &vm(2)), "this host has no signed verdict");
    assert_eq!(host.decisions().len(), 2);
}

/// Promise 5: the disk takes no line of the log, so the system log has exactly one for each decision.
#[test]
fn a_full_disk_does_not_swallow_a_decision() {
    let host = Destination::new();
    host.push(&go(1), SITE).unwrap();
    fs::create_dir_all(host.path("dev")).unwrap();
    let system_log = UnixDatagram::bind(host.path("dev/log")).unwrap();
    system_log.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // A node like /dev/full in place of the log; a folder where this user may not make one.
    fs::remove_file(host.layout.journal()).unwrap();
    let node =
        Command::new("mknod").args(["-m", "600"]).arg(host.layout.journal()).args(["c", "1", "7"]).status();
    if !node.is_ok_and(|status| status.success()) {
        fs::create_dir(host.layout.journal()).unwrap();
    }
    let_in(&host.migrate("web1", &vm(1)));
    host.configure("on-error: open\nno-such-setting: 1\n");
    let_in(&host.migrate("web2", &vm(2)));
    for (name, because) in [("web1", "verdict"), ("web2", "error")] {
        let mut buffer = vec![0; 64 << 10];
        let length = system_log.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let line: Value = serde_json::from_str(text.split_once("vmgate-hook: ").unwrap().1).unwrap();
        assert_eq!((&line["vm"], &line["because"]), (&name.into(), &because.into()), "{text}");
    }
    system_log.set_nonblocking(true).unwrap();
    assert!(system_log.recv(&mut [0; 16]).is_err(), "there is one line too many");
}

/// Runs the installed script as libvirt does, and returns true if the VM is let in, and what it says.
fn run_script(host: &Destination) -> (bool, String) {
    let output = Command::new(host.layout.folder_hook()).args(call("web1")).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Promise 5: the program cannot run, so the script decides by `on-error` alone, in the same way as the program would, and
/// writes its line.
#[test]
fn the_script_decides_as_the_program_would_and_writes_it_down() {
    // The installed program ends with 9, as one that is killed would.
    let host = Destination::new();
    let cases = [
        ("on-error: open\n", true),
        ("on-error:   open\t # for now\r\n", true),
        ("mode: audit-only  # note\n", true),
        ("on-error: closed\n", false),
        ("# on-error: open\n", false),
        ("on-error: open# x\n", false),
        ("on-error:open\n", false),
        (" on-error: open\n", false),
    ];
    for (number, (text, expected)) in cases.into_iter().enumerate() {
        host.configure(text);
        let (admitted, said) = run_script(&host);
        assert_eq!(admitted, expected, "{text:?}: {said}");
        assert!(admitted || said.contains("could not run (code 9)"), "{said}");
        // What the script finds is what the program finds in settings that it cannot parse.
        host.configure(&format!("no-such-setting: 1\n{text}"));
        assert_eq!(host.migrate("web1", &vm(1)).let_in, expected, "{text:?}");
        let lines = host.decisions();
        assert_eq!(lines.len(), 2 * (number + 1), "{text:?}: one line each");
        assert!(lines.iter().all(|line| line["because"] == "error"), "{lines:#?}");
    }
}

/// Promise 8: others can write hook.yaml, its folder, or the program, and `on-error: open` in it is not believed, nor the
/// program run.
#[test]
fn the_script_believes_only_what_root_alone_can_write() {
    let host = Destination::new();
    host.configure("on-error: open\n");
    assert!(run_script(&host).0);
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let settings = host.layout.config();
    let folder = settings.parent().unwrap().to_owned();
    for (path, wrong, right) in
        [(&settings, 0o666, 0o644), (&settings, 0o664, 0o644), (&folder, 0o777, 0o755)]
    {
        set(path, wrong);
        let (admitted, said) = run_script(&host);
        assert!(!admitted, "{} with {wrong:o}: {said}", path.display());
        set(path, right);
        assert!(run_script(&host).0);
    }
    let elsewhere = host.path("elsewhere.yaml");
    fs::rename(&settings, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &settings).unwrap();
    assert!(!run_script(&host).0, "a link may lead to a file of somebody else");
    fs::remove_file(&settings).unwrap();
    fs::rename(&elsewhere, &settings).unwrap();

    host.configure("on-error: closed\n");
    let program = host.layout.program();
    fs::write(&program, "#!/bin/sh\nexit 0\n").unwrap();
    assert!(run_script(&host).0, "the program lets in");
    set(&program, 0o777);
    let (admitted, said) = run_script(&host);
    assert!(!admitted && said.contains("others than root could have written it"), "{said}");
}

/// Promise 14: verdicts that an older version stored, and its marks of used ones, count after the hook is updated.
#[test]
fn verdicts_and_marks_of_an_older_version_are_found() {
    let host = Destination::new();
    let digest = |answer: &Value| answer["verdict"].as_str().unwrap()[7..].to_owned();
    let (waiting, used) = (go(1), go(2));
    // The digests, from a host of its own.
    let elsewhere = Destination::new();
    let (waiting_digest, used_digest) =
        (digest(&elsewhere.push(&waiting, SITE).unwrap()), digest(&elsewhere.push(&used, SITE).unwrap()));
    let flat = |number, digest: &str| format!("{}.{digest}.json", vm(number));
    write_for_root(&host.layout.verdicts().join(flat(1, &waiting_digest)), &signed(&waiting, SITE));
    write_for_root(&host.layout.spent().join(flat(2, &used_digest)), &signed(&used, SITE));
    host.install(&[]);
    assert_eq!(host.status()["waiting"], 1);
    let_in(&host.migrate("web1", &vm(1)));
    let why = host.push(&used, SITE).unwrap_err();
    assert!(why.contains("can be used only once"), "{why}");
}

/// Promise 5: drafts, folders and notes lie beside a verdict, and `status` counts the verdict alone.
#[test]
fn status_counts_verdicts_and_nothing_else() {
    let host = Destination::new();
    host.push(&go(1), SITE).unwrap();
    host.push(&no_go(3), SITE).unwrap();
    let folder = host.layout.verdicts().join(vm(1));
    write_for_root(&folder.join(".vmgate-draft"), "x");
    write_for_root(&folder.join("README"), "x");
    write_for_root(&host.layout.verdicts().join("notes.txt"), "x");
    fs::create_dir(host.layout.verdicts().join(vm(2))).unwrap();
    host.place(4, &format!("{}.100", "0".repeat(64)), &signed(&go(4), SITE));
    let status = host.status();
    assert_eq!(status["waiting"], 1, "{status:#}");
    assert_eq!(status["verdicts"][0]["vm"]["name"], "web1");
    assert_eq!(status["verdicts"][0]["source"]["name"], "hv1");
    host.push(&go(5), SITE).unwrap();
    assert!(!host.layout.verdicts().join(vm(4)).exists(), "what expired is removed");
    assert!(!host.layout.verdicts().join(vm(2)).exists());
}

/// Promise 2: a verdict that was evaluated in the future, that lives longer than the host allows, or that is simulated is
/// refused when it is sent and when it is used.
#[test]
fn a_verdict_from_another_time_lets_nobody_in() {
    let host = Destination::new();
    let mut simulated = go(1);
    simulated["simulated"] = json!(true);
    let later = evaluated(go(1), 30);
    let cases = [
        (later, "evaluated at"),
        (with(go(1), "/expires_at", in_minutes(10 * 365 * 24 * 60)), "at most"),
        (with(go(1), "/expires_at", in_minutes(90)), "at most"),
        (simulated, "simulated"),
    ];
    for (number, (verdict, why)) in cases.iter().enumerate() {
        let said = host.push(verdict, SITE).unwrap_err();
        assert!(said.contains(why), "{said}");
        host.place(1, &format!("placed{number}"), &signed(verdict, SITE));
        refused(&host.migrate("web1", &vm(1)), why);
        fs::remove_dir_all(host.layout.verdicts().join(vm(1))).unwrap();
    }
    host.configure("max-lifetime-minutes: 120\nmax-clock-skew-seconds: 3600\n");
    host.push(&cases[2].0, SITE).unwrap();
    let_in(&host.migrate("web1", &vm(1)));
}

/// Promise 2: all times of the files of a used verdict are set back by years, other verdicts come and go, and it does not
/// serve a second time.
#[test]
fn a_used_verdict_stays_used_whatever_the_times_of_files() {
    let host = Destination::new();
    let verdict = go(1);
    host.push(&verdict, SITE).unwrap();
    let_in(&host.migrate("web1", &vm(1)));
    for date in ["2020-01-01", "2099-01-01"] {
        for mark in fs::read_dir(host.layout.spent()).unwrap() {
            touch(&mark.unwrap().path(), date);
        }
        host.push(&go(2), SITE).unwrap();
        let_in(&host.migrate("web2", &vm(2)));
        let why = host.push(&verdict, SITE).unwrap_err();
        assert!(why.contains("can be used only once"), "{why}");
        host.place(1, "placed", &signed(&verdict, SITE));
        refused(&host.migrate("web1", &vm(1)), "was already used");
    }
}

/// Promise 2: eight migrations of one VM begin at once on one verdict, and one of them is let in.
#[test]
fn a_verdict_serves_once_however_many_ask_at_once() {
    let host = Destination::new();
    host.push(&go(1), SITE).unwrap();
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let layout = host.layout.clone();
            thread::spawn(move || begin(&layout, "web1", &vm(1)).let_in)
        })
        .collect();
    assert_eq!(threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum::<usize>(), 1);
    assert_eq!(host.decisions().len(), 8);
}

/// Promise 7: a NO-GO arrives at the destination, and the GO of before lets nobody in, even if it is sent again.
#[test]
fn a_newer_no_go_cancels_what_waits() {
    let host = Destination::new();
    let older = evaluated(go(1), -2);
    host.push(&older, SITE).unwrap();
    host.push(&go(2), SITE).unwrap();
    let answer = host.push(&evaluated(no_go(1), -1), SITE).unwrap();
    assert_eq!((&answer["no_go"], answer["cancelled"].as_array().unwrap().len()), (&true.into(), 1));
    refused(&host.migrate("web1", &vm(1)), "NO-GO");
    let_in(&host.migrate("web2", &vm(2)));
    host.push(&older, SITE).unwrap_err();
    let never_sent = evaluated(go(1), -3);
    let why = host.push(&never_sent, SITE).unwrap_err();
    assert!(why.contains("newer verdict on this VM: NO-GO"), "{why}");
    host.push(&go(1), SITE).unwrap();
    let_in(&host.migrate("web1", &vm(1)));
}

/// Promise 7: a NO-GO that is older than the waiting GO, simulated, of the future, or about another host cancels nothing.
#[test]
fn a_no_go_that_is_not_of_the_present_cancels_nothing() {
    let host = Destination::new();
    host.push(&go(1), SITE).unwrap();
    let mut simulated = no_go(1);
    simulated["simulated"] = json!(true);
    let elsewhere = with(no_go(1), "/move/destination/uuid", json!(HOST.replace('b', "c")));
    let cases = [evaluated(no_go(1), -5), evaluated(no_go(1), 5), simulated, elsewhere];
    for verdict in cases {
        host.push(&verdict, SITE).unwrap_err();
    }
    let_in(&host.migrate("web1", &vm(1)));
}

/// Promise 7: a verdict is withdrawn by its digest, its VM's UUID or name, and cannot be used or sent again.
#[test]
fn a_withdrawn_verdict_lets_nobody_in() {
    let host = Destination::new();
    let withdraw = |verdict: Option<&str>, vm: Option<&str>| {
        let request = HookRequest::WithdrawVerdicts {
            verdict: verdict.map(str::to_owned),
            vm: vm.map(str::to_owned),
            by: "test".into(),
        };
        host.ask(request)
    };
    withdraw(None, None).unwrap_err();
    let verdicts = [go(1), go(2), go(3), go(4)];
    let digests: Vec<String> = verdicts
        .iter()
        .map(|verdict| host.push(verdict, SITE).unwrap()["verdict"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(withdraw(Some(&digests[0]), None).unwrap(), json!([digests[0]]));
    assert_eq!(withdraw(None, Some(&vm(2).to_uppercase())).unwrap(), json!([digests[1]]));
    assert_eq!(withdraw(None, Some("web3")).unwrap(), json!([digests[2]]));
    assert_eq!(withdraw(Some(&digests[3]), Some("web3")).unwrap(), json!([]));
    for (number, verdict) in (1..=3).zip(&verdicts) {
        let name = format!("web{number}");
        refused(&host.migrate(&name, &vm(number)), "already used");
        let why = host.push(verdict, SITE).unwrap_err();
        assert!(why.contains("was withdrawn"), "{why}");
    }
    let_in(&host.migrate("web4", &vm(4)));
    assert_eq!(withdraw(Some(&digests[3]), None).unwrap(), json!([]), "it was used");
}
