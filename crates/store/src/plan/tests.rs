use proptest::prelude::*;

use super::*;

fn plans() -> impl Strategy<Value = Plan> {
    let command = prop_oneof![
        prop::collection::vec(".*", 0..4).prop_map(Command::Args),
        ".*".prop_map(Command::Shell),
    ];
    let step = (
        ".*",
        command,
        ".*",
        prop::collection::vec((".*", ".*"), 0..4),
        any::<u32>(),
        any::<u32>(),
        any::<(Option<u64>, Option<u32>, Option<u64>, bool, bool)>(),
    );
    let limits = |(memory, processes, output, no_network, confined)| Limits {
        memory,
        processes,
        output,
        no_network,
        confined,
    };
    let step = step.prop_map(
        move |(name, command, dir, env, timeout, silence, kept)| StepPlan {
            name,
            command,
            dir,
            env,
            timeout: Duration::from_millis(timeout.into()),
            silence: Duration::from_millis(silence.into()),
            limits: limits(kept),
        },
    );
    (".*", prop::collection::vec(step, 1..4), any::<u32>()).prop_map(|(source_dir, steps, limit)| Plan {
        source_dir,
        steps,
        limit: Duration::from_millis(limit.into()),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]
    #[test]
    fn any_plan_comes_back_as_it_was(plan in plans()) {
        prop_assert_eq!(from_json(&to_json(&plan).unwrap()).unwrap(), plan);
    }
}

/// The bytes in every farm's store.
#[test]
fn the_stored_form_stays() {
    let stored = r#"{"source_dir":"src","steps":[{"name":"test","command":{"args":["go","test"]},"dir":"src/pkg","env":[["GOOS","linux"]],"timeout_ms":60000,"silence_ms":1500},{"name":"lint","command":{"shell":"make lint"},"dir":"","env":[],"timeout_ms":1,"silence_ms":2}],"limit_ms":3600000}"#;
    let plan = from_json(stored).unwrap();
    assert_eq!(plan.steps[0].env, [("GOOS".to_owned(), "linux".to_owned())]);
    assert_eq!(plan.limit, Duration::from_secs(3600));
    assert_eq!(to_json(&plan).unwrap(), stored);
}

#[test]
fn commands_are_shown_as_one_would_type_them() {
    let args = |args: &[&str]| typed(&Command::Args(args.iter().map(|&arg| arg.to_owned()).collect()));
    assert_eq!(args(&["go", "test", "./..."]), "go test ./...");
    assert_eq!(
        args(&["echo", "a b", "", "it's", "$HOME"]),
        r"echo 'a b' '' 'it'\''s' '$HOME'"
    );
    assert_eq!(typed(&Command::Shell("make | tee x".to_owned())), "make | tee x");
}
