use std::time::Duration;

use crate::machine::Machine;

/// Whether a process with this argument runs.
fn runs(argument: &str) -> bool {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .any(|line| {
            line.starts_with(b"sleep") && line.split(|&b| b == 0).any(|arg| arg == argument.as_bytes())
        })
}

#[test]
fn what_a_command_leaves_behind_is_killed_and_named() {
    let machine = Machine::start();
    // Numbers that no other test sleeps for: in the group, in a session of its own, and with neither
    // parents nor environment nor the output.
    let answer = machine.sh(
        "sh -c 'echo > a; exec sleep 71001' & setsid sh -c 'echo > b; exec sleep 71002' & \
         (env -i setsid sh -c 'echo > c; exec sleep 71003' >/dev/null 2>&1 &); \
         while [ ! -e a -o ! -e b -o ! -e c ]; do sleep 0.01; done; sleep 0.1; echo done",
    );
    assert_eq!(answer.state(), "ok");
    let text = answer.text();
    assert!(
        text.starts_with("done\n\nburrow: processes were left behind and have been killed: sleep ("),
        "{text}"
    );
    assert_eq!(text.matches("sleep (").count(), 3, "{text}");
    for argument in ["71001", "71002", "71003"] {
        assert!(!runs(argument), "{argument}");
    }
    let detail: serde_json::Value = serde_json::from_str(answer.trailer("burrow-exec").unwrap()).unwrap();
    assert_eq!(detail["strays"].as_array().unwrap().len(), 3);
}

#[test]
fn one_commands_end_is_not_anothers() {
    let machine = Machine::start();
    let running = [
        ("cmd", "/bin/sh"),
        ("mode", "sys"),
        ("cmdArg", "-c"),
        (
            "cmdArg",
            "setsid sh -c 'echo > begun; exec sleep 72001' & while [ ! -e gate ]; do sleep 0.01; done; printf alive",
        ),
    ];
    machine.post("/burrow/exec?id=long", &running);
    assert_eq!(
        machine
            .sh("while [ ! -e begun ]; do sleep 0.01; done; sleep 0.1")
            .state(),
        "ok"
    );
    assert!(runs("72001"));
    machine.put("/write?path=gate&mode=420", b"");
    let answer = machine.get("/burrow/exec/long");
    assert_eq!(answer.state(), "ok");
    assert!(answer.text().contains("killed: sleep ("), "{}", answer.text());
    assert!(!runs("72001"));
}

#[test]
fn what_ends_by_itself_is_waited_for_and_not_mentioned() {
    let machine = Machine::start();
    let answer = machine.sh("(sleep 0.3; printf late) & printf early");
    assert_eq!((answer.text().as_str(), answer.state()), ("earlylate", "ok"));
}

#[test]
fn one_that_does_not_listen_is_killed_the_hard_way() {
    let machine = Machine::start();
    let answer = machine.sh("(trap '' TERM; exec sleep 73001) & printf done");
    assert!(answer.text().contains("killed: "), "{}", answer.text());
    assert!(!runs("73001"));
    let detail: serde_json::Value = serde_json::from_str(answer.trailer("burrow-exec").unwrap()).unwrap();
    assert!(Duration::from_millis(detail["wall_ms"].as_u64().unwrap()) > Duration::from_secs(5));
}

#[test]
fn the_time_for_ending_strays_is_not_the_commands() {
    let machine = Machine::start();
    let script = [
        ("cmd", "/bin/sh"),
        ("mode", "sys"),
        ("cmdArg", "-c"),
        ("cmdArg", "(trap '' TERM; exec sleep 76001) & exit 3"),
        ("wall_s", "2"),
    ];
    machine.post("/burrow/exec?id=a", &script);
    assert_eq!(machine.get("/burrow/exec/a").state(), "exit status 3");
    assert!(!runs("76001"));
}

#[test]
fn adopted_processes_are_waited_for() {
    let machine = Machine::start();
    machine.sh("for i in 1 2 3 4 5; do (setsid sh -c 'exit 1' &); done; sleep 0.1");
    machine.sh("true");
    let children = std::fs::read_dir("/proc").unwrap().flatten();
    let parent = format!(" {} ", machine.child.id());
    let dead = children
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok())
        .filter(|stat| {
            stat.rsplit_once(") Z")
                .is_some_and(|(_, rest)| rest.starts_with(&parent))
        });
    assert_eq!(dead.count(), 0);
}
