use std::process::ExitCode;

fn main() -> ExitCode {
    stage0::main_with(std::env::args_os().skip(1).collect())
}
