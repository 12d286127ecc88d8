use std::process::ExitCode;

fn main() -> ExitCode {
    buildlet::main_with(std::env::args_os().skip(1).collect())
}
