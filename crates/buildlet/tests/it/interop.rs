//! `docs/interop.md`: what is checked against which counterpart, by which test. Made from this table;
//! `BURROW_REWRITE=1` writes it.

use std::fmt::Write;
use std::path::Path;

/// One thing that must hold between burrow and others.
struct Row {
    what: &'static str,
    /// Go's programs by era (A: January 2019, B: November 2021, C: September 2026), or `bytes` for a transcript.
    against: &'static str,
    /// `CRATE MODULE::TEST`; in `tests/it/MODULE.rs`, or in `src/MODULE.rs` where there is none of that name.
    tests: &'static [&'static str],
}

const fn row(what: &'static str, against: &'static str, tests: &'static [&'static str]) -> Row {
    Row { what, against, tests }
}

const SECTIONS: [(&str, &[Row]); 7] = [
    (
        "Go's buildlets under burrow",
        &[
            row(
                "dial in (v1, v2), take files, run, are read, are cleaned, halt",
                "A B C",
                &["pool-reverse go::gos_buildlets_of_three_eras_register_and_work"],
            ),
            row(
                "build commits of a farm: passed, failed, cancelled",
                "B",
                &["burrow peers::gos_buildlet_of_2021_builds_our_commits"],
            ),
            row(
                "build commits of a farm: passed, failed, cancelled",
                "C",
                &["burrow peers::gos_buildlet_of_today_builds_our_commits"],
            ),
            row(
                "every call of our client: exit 0, exit 1, signal, start failure, /ls with digests, /tgz, refusals",
                "A B C",
                &["buildlet-api go::gos_buildlets_of_three_eras_answer_every_call"],
            ),
        ],
    ),
    (
        "Go's client and coordinator with burrow's buildlet",
        &[
            row(
                "every method, direct",
                "A B C",
                &["buildlet go::gos_client_of_three_eras_sees_what_it_expects"],
            ),
            row(
                "every method, TLS with the pinned RSA key and the password",
                "A B C",
                &["buildlet go::gos_client_with_its_own_key_pair_and_password"],
            ),
            row(
                "every method, over reverse dialling (v1, v2)",
                "A B C",
                &["buildlet go::gos_reverse_dialer_reaches_a_buildlet_that_dials_in"],
            ),
            row(
                "Go's own buildlet shows the same to the same client",
                "C",
                &["buildlet go::gos_own_buildlet_shows_the_same"],
            ),
            row(
                "the seed's coordinator, driven by its gomote",
                "A",
                &["buildlet seed::the_first_coordinator_and_its_gomote_work_with_this_buildlet"],
            ),
        ],
    ),
    (
        "Bytes",
        &[
            row(
                "frames of version 1",
                "bytes",
                &["revdial v1/tests::frames_are_those_of_the_original"],
            ),
            row(
                "the line `HTTP/0.0 101`, and what comes in the same record behind it",
                "bytes",
                &[
                    "buildlet dial::the_originals_answer_hands_the_stream_over_with_what_came_behind_it",
                    "buildlet control::what_came_with_the_answer_comes_first_and_the_end_is_told",
                    "http1 head::the_answer_without_a_version_is_understood",
                ],
            ),
            row(
                "a control line of 4,096 bytes is taken, one of 4,097 is not",
                "bytes",
                &["revdial v2/tests::a_line_of_4096_bytes_is_taken_and_one_of_4097_ends_the_session"],
            ),
            row(
                "a session of version 2 as recorded",
                "bytes",
                &["revdial v2/tests::the_session_of_the_original_is_understood"],
            ),
            row(
                "requests without `Upgrade` and `TE`, with an empty `Host`",
                "bytes",
                &[
                    "buildlet transcripts::an_exec_without_te_has_its_trailer_and_an_empty_host_is_fine",
                    "buildlet transcripts::the_registration_is_that_of_the_original",
                    "buildlet dial::a_redirection_to_another_path_is_followed_once",
                ],
            ),
        ],
    ),
    (
        "Commands",
        &[
            row(
                "one that forks twice and keeps the output",
                "bytes",
                &["buildlet strays::what_a_command_leaves_behind_is_killed_and_named"],
            ),
            row(
                "a client cut off in the middle of the output",
                "bytes",
                &["buildlet commands::a_client_that_leaves_takes_its_command_along"],
            ),
            row(
                "a GiB of output for a slow reader, in bounded memory",
                "bytes",
                &[
                    "buildlet commands::a_gigabyte_for_a_slow_reader_stays_out_of_memory",
                    "buildlet hostile::a_reader_that_stops_holds_its_command_and_no_memory",
                ],
            ),
            row(
                "a trailer with UTF-8, and with a line end in the error",
                "bytes",
                &[
                    "buildlet-api exec::a_trailer_with_letters_beyond_ascii_is_taken",
                    "http1 body::trailers_keep_to_one_line",
                ],
            ),
            row(
                "a stream without a state is a machine that failed",
                "bytes",
                &["buildlet-api exec::a_stream_without_a_state_or_an_end_is_a_machine_failure"],
            ),
            row(
                "forms as multipart/form-data",
                "bytes",
                &["buildlet hostile::a_multipart_form_runs_a_command"],
            ),
        ],
    ),
    (
        "Archives",
        &[
            row(
                "`..`, `a/../../b`, absolute, a link then a file through it, hard links outside, devices",
                "bytes",
                &[
                    "buildlet archives::what_leads_out_or_is_no_file_is_refused_and_nothing_is_touched",
                    "buildlet hostile::a_link_and_a_file_through_it_in_one_archive_stay_within",
                ],
            ),
            row(
                "`C:x`, a `g` header, links, a time in the future",
                "bytes",
                &["buildlet archives::files_folders_and_links_arrive_as_they_were"],
            ),
            row(
                "truncated gzip, wrong checksum",
                "bytes",
                &["buildlet archives::archives_that_are_damaged_are_refused"],
            ),
            row(
                "three gzip members",
                "bytes",
                &["buildlet archives::three_gzip_members_are_one_archive"],
            ),
            row(
                "a million entries, a big file, a bomb, a sparse file, in bounded memory",
                "bytes",
                &[
                    "buildlet hostile::an_archive_of_a_million_entries_passes_through_little_memory",
                    "buildlet hostile::a_file_that_was_small_when_it_was_sent_passes_through_little_memory",
                    "buildlet files::a_bomb_is_refused_before_it_has_gone_off",
                ],
            ),
            row("mutations of all of these", "bytes", &["hostile main::archives"]),
        ],
    ),
    (
        "Reverse dialling",
        &[
            row(
                "a coordinator that says nothing any more",
                "bytes",
                &["buildlet control::a_coordinator_that_says_nothing_is_given_up"],
            ),
            row(
                "two registrations of one machine",
                "bytes",
                &[
                    "pool-reverse sessions::a_second_registration_of_one_instance_replaces_the_first",
                    "pool-reverse sessions::a_machine_of_gos_that_fails_a_ping_is_replaced_by_its_successor",
                ],
            ),
            row(
                "a dial that was given up, and then another",
                "bytes",
                &["pool-reverse sessions::a_dial_that_fails_says_why_and_the_next_is_not_confused_by_it"],
            ),
            row(
                "a flood of bad keys",
                "bytes",
                &["pool-reverse refusals::an_address_that_guesses_keys_is_shut_out_for_a_minute"],
            ),
        ],
    ),
    (
        "Peers that mean no good",
        &[
            row(
                "half a head, bodies that end early",
                "bytes",
                &[
                    "buildlet hostile::a_peer_that_sends_half_a_head_holds_nobody_up",
                    "buildlet hostile::a_body_that_ends_early_is_no_file_and_no_command",
                ],
            ),
            row(
                "mutated heads, bodies, forms, frames, lines, manifests",
                "bytes",
                &[
                    "hostile main::http_heads_and_bodies",
                    "hostile main::forms",
                    "hostile main::reverse_dialling_of_both_versions",
                    "hostile main::manifests",
                ],
            ),
        ],
    ),
];

fn page() -> String {
    let mut page = String::from(
        "# What is checked against whom\n\n\
         Made from `crates/buildlet/tests/it/interop.rs` (`BURROW_REWRITE=1 cargo test -p buildlet --test it interop`), which checks\n\
         that each test is there. A, B and C are Go's own programs of January 2019, November 2021 and September 2026; \"bytes\" is\n\
         what no live counterpart shows: a transcript, or a peer of the test's own. In CI none of these is skipped.\n",
    );
    for (section, rows) in SECTIONS {
        write!(
            page,
            "\n## {section}\n| what | against | tests |\n|---|---|---|\n"
        )
        .unwrap();
        for row in rows {
            let tests: Vec<_> = row.tests.iter().map(|test| format!("`{test}`")).collect();
            writeln!(page, "| {} | {} | {} |", row.what, row.against, tests.join(", ")).unwrap();
        }
    }
    page
}

#[test]
fn the_page_is_made_from_tests_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let missing: Vec<_> = SECTIONS
        .iter()
        .flat_map(|(_, rows)| rows.iter().flat_map(|row| row.tests))
        .filter(|test| {
            let (package, path) = test.split_once(' ').unwrap();
            let (module, name) = path.split_once("::").unwrap();
            let folder = root.join("crates").join(package);
            let files = [format!("tests/it/{module}.rs"), format!("src/{module}.rs")];
            let declared = format!("fn {name}()");
            !files.iter().any(|file| {
                let text = std::fs::read_to_string(folder.join(file)).unwrap_or_default();
                text.split("#[test]")
                    .skip(1)
                    .chain(text.split("#[tokio::test").skip(1))
                    .any(|after| {
                        let line = after
                            .lines()
                            .find(|line| line.contains("fn "))
                            .unwrap_or_default();
                        line.contains(&declared)
                    })
            })
        })
        .collect();
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
    let file = root.join("docs/interop.md");
    if std::env::var_os("BURROW_REWRITE").is_some() {
        std::fs::write(&file, page()).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        written == page(),
        "docs/interop.md is not what the table says; BURROW_REWRITE=1 writes it"
    );
}
