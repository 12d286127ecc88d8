use std::process::Command;

use crate::machine::Machine;

/// Sets or clears the attribute that keeps even root from removing a file; whether this file system has it.
fn immutable(path: &std::path::Path, on: bool) -> bool {
    let changed = Command::new("chattr")
        .arg(if on { "+i" } else { "-i" })
        .arg(path)
        .status();
    changed.is_ok_and(|status| status.success())
}

#[test]
fn a_machine_that_cannot_be_cleaned_is_in_quarantine_and_says_why() {
    let machine = Machine::start();
    assert_eq!(
        machine.put("/write?path=d/stuck&mode=420", b"x").shown(),
        "200 OK"
    );
    let stuck = machine.work("d/stuck");
    if !immutable(&stuck, true) {
        assert!(
            std::env::var_os("BURROW_TEST_REQUIRE").is_none(),
            "no `chattr +i` here"
        );
        eprintln!("skipped: no `chattr +i` here");
        return;
    }
    let failed = machine.post("/removeall", &[("path", ".")]);
    let (status, why) = (failed.status, failed.text());
    // Before anything is asserted, or the folder stays for ever.
    let refused = [
        machine.sh("true"),
        machine.put("/write?path=a&mode=420", b"x"),
        machine.put("/writetgz?dir=", b"x"),
        machine.post("/burrow/exec?id=a", &[("cmd", "/bin/true"), ("mode", "sys")]),
    ];
    let said: serde_json::Value = serde_json::from_slice(&machine.get("/status").body).unwrap();
    let listed = machine.get("/ls?dir=&recursive=true").text();
    assert!(immutable(&stuck, false));
    assert_eq!(status, 500, "{why}");
    assert!(
        why.starts_with("cannot remove `.`: Operation not permitted"),
        "{why}"
    );
    for answer in refused {
        assert_eq!(answer.status, 503);
        let text = answer.text();
        assert!(
            text.contains("quarantine") && text.contains(why.trim_end()),
            "{text}"
        );
    }
    assert_eq!(said["Quarantined"].as_str(), Some(why.trim_end()));
    assert!(listed.contains("d/stuck"), "it can be looked at: {listed}");

    assert_eq!(machine.post("/removeall", &[("path", ".")]).status, 200);
    assert_eq!(machine.sh("true").state(), "ok");
    let said: serde_json::Value = serde_json::from_slice(&machine.get("/status").body).unwrap();
    assert!(said.get("Quarantined").is_none());
}

#[test]
fn a_folder_that_is_cleaned_holds_nothing_that_a_command_puts_there_meanwhile() {
    let machine = Machine::start();
    // It outlives the connection it was asked for on, and writes for as long as it lives.
    let script = "trap '' TERM; while :; do for i in 1 2 3 4 5 6 7 8; do echo > f$i; done; done";
    let form = [
        ("cmd", "/bin/sh"),
        ("mode", "sys"),
        ("cmdArg", "-c"),
        ("cmdArg", script),
    ];
    assert_eq!(machine.post("/burrow/exec?id=a", &form).status, 200);
    let began = std::time::Instant::now();
    while !machine.work("f8").exists() {
        assert!(began.elapsed().as_secs() < 50, "the command writes nothing");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(machine.post("/removeall", &[("path", ".")]).shown(), "200 ");
    assert_eq!(std::fs::read_dir(machine.work("")).unwrap().count(), 0);
}
