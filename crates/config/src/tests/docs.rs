//! `docs/config.md` holds tables made from the code. `UPDATE_DOCS=1` writes them anew.

use super::mistakes::{MISTAKES, Mistake};
use super::*;

#[test]
fn the_documentation_has_the_keys_and_mistakes_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/config.md");
    let found =
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
    let expected = put(&found, "keys", &key_reference());
    let expected = put(&expected, "mistakes", &mistake_table());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        // Whole or not at all: the other test may be reading it.
        let fresh = path.with_extension("md.new");
        std::fs::write(&fresh, &expected).unwrap();
        std::fs::rename(&fresh, &path).unwrap();
    } else {
        assert!(
            found == expected,
            "docs/config.md is stale; run the tests of `config` with UPDATE_DOCS=1"
        );
    }
}

#[test]
fn the_examples_of_the_documentation_are_right() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/config.md");
    let doc = std::fs::read_to_string(path).unwrap();
    let examples: Vec<&str> = doc
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split_once("```").map(|(text, _)| text))
        .collect();
    assert!(examples.len() >= 2);
    for text in examples {
        if let Err(problems) = check(text) {
            panic!("{text}\n{problems}");
        }
    }
}

/// `doc` with what stands between `<!-- NAME -->` and `<!-- end of NAME -->` replaced.
fn put(doc: &str, name: &str, table: &str) -> String {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
    let (head, rest) = doc
        .split_once(&begin)
        .unwrap_or_else(|| panic!("no `{}` in the document", begin.trim()));
    let (_, tail) = rest
        .split_once(&end)
        .unwrap_or_else(|| panic!("no `{end}` in the document"));
    format!(
        "{head}{begin}\n{}\n{end}{tail}",
        table.trim_end().to_owned() + "\n"
    )
}

fn mistake_table() -> String {
    let mut out = "| mistake | what is said of it |\n|---|---|\n".to_owned();
    for Mistake { name, told, .. } in MISTAKES {
        let told: Vec<String> = told
            .iter()
            .map(|line| code(line.splitn(3, ':').nth(2).unwrap_or(line).trim()))
            .collect();
        out.push_str(&format!("| {name} | {} |\n", told.join("<br>")));
    }
    out
}

/// As code in a cell of a Markdown table.
fn code(text: &str) -> String {
    format!("`` {} ``", text.replace('|', "\\|"))
}
