//! Hands the command line to the library and its answer to the operating system.

use std::process::ExitCode;

fn main() -> ExitCode {
    burrow::main_with(std::env::args_os().collect())
}
