//! Which lines of a log say why it failed. Pure.

use crate::ansi;

/// What a line begins with, behind any blanks and the prefixes that test programs put before it.
const STARTS: [&str; 17] = [
    "error:",
    "error[",
    "Error:",
    "ERROR",
    "E   ",
    "--- FAIL",
    "FAIL",
    "not ok ",
    "panic:",
    "fatal:",
    "fatal error:",
    "Traceback",
    "make: ***",
    "ninja: build stopped",
    "Segmentation fault",
    "undefined reference",
    "exit status ",
];

/// What it has somewhere.
const WITHIN: [&str; 15] = [
    "panicked at",
    ": error:",
    ": error ",
    ": fatal error",
    "FAILED",
    "Error: ",
    "Exception: ",
    "AssertionError",
    "ssertion failed",
    "ssertion `",
    "AddressSanitizer",
    "DATA RACE",
    "command not found",
    "No such file or directory",
    "exited with status",
];

/// What makes a line worth a closer look, by bytes: most lines have none of it.
const HINTS: [&[u8]; 17] = [
    b"rror",
    b"ERROR",
    b"FAIL",
    b"anic",
    b"atal",
    b"***",
    b"ssertion",
    b"not ",
    b"E   ",
    b"xcept",
    b"Traceback",
    b"exit",
    b"RACE",
    b"No such",
    b"stopped",
    b"fault",
    b"undefined",
];

/// Of one line, in bytes.
const LOOKED_AT: usize = 4096;

/// Whether a line is likely what made the step fail, by the words that build tools use.
pub fn is_failing(line: &[u8]) -> bool {
    let line = &line[..line.len().min(LOOKED_AT)];
    if !HINTS
        .iter()
        .any(|hint| line.windows(hint.len()).any(|window| window == *hint))
    {
        return false;
    }
    let line = String::from_utf8_lossy(line);
    let plain = ansi::strip(&line);
    let text = plain.trim_start();
    // `test result: FAILED. 3 passed; 0 failed`, but not `0 FAILED`.
    if text.contains("0 FAILED") || text.contains("FAILED: 0") {
        return false;
    }
    STARTS.iter().any(|word| text.starts_with(word)) || WITHIN.iter().any(|word| text.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failing_lines_are_found() {
        for bad in [
            "error[E0308]: mismatched types",
            "--- FAIL: TestX (0.00s)",
            "FAIL\texample.org/widget\t0.01s",
            "thread 'x' panicked at src/lib.rs:3",
            "panic: runtime error: index out of range",
            "a.c:1:2: error: expected ;",
            "main.obj : error LNK2019: unresolved",
            "\u{1b}[31merror:\u{1b}[0m y",
            "test tests::slug ... FAILED",
            "make: *** [Makefile:3: all] Error 1",
            "E   assert 1 == 2",
            "not ok 3 - folds",
            "Assertion failed: (a == b), function main",
            "assertion `left == right` failed",
            "WARNING: DATA RACE",
            "java.lang.IllegalStateException: closed",
            "sh: 1: widget: No such file or directory",
            "exit status 2",
        ] {
            assert!(is_failing(bad.as_bytes()), "{bad}");
        }
        for good in [
            "",
            "0 errors",
            "test result: ok. 0 failed",
            "no error",
            "0 FAILED",
            "compiling error.rs",
            "failure is an option",
            "panic_handler.rs",
            "Exception handling enabled",
        ] {
            assert!(!is_failing(good.as_bytes()), "{good}");
        }
    }
}
