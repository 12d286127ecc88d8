use std::process::ExitCode;

/// How the program ends. The numbers are promised in `--help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Done,
    Error,
    Usage,
    /// The builds that were asked about did not all pass.
    BuildFailed,
    /// No farm answers.
    NotReachable,
    /// A command on a lent machine ended so.
    Command(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::Error => 1,
            Exit::Usage => 2,
            Exit::BuildFailed => 3,
            Exit::NotReachable => 4,
            Exit::Command(code) => code,
        })
    }
}

/// What went wrong, in one line, and what its reader can do. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub exit: Exit,
    pub message: String,
    pub hint: Option<String>,
}

impl Failure {
    pub fn new(message: impl Into<String>) -> Failure {
        Failure {
            exit: Exit::Error,
            message: message.into(),
            hint: None,
        }
    }

    pub fn usage(message: impl Into<String>) -> Failure {
        Failure {
            exit: Exit::Usage,
            ..Failure::new(message)
        }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// As printed: `error: …`, then `hint: …`.
    pub fn shown(&self, color: bool) -> String {
        let (red, cyan, plain) = if color {
            ("\x1b[1;31m", "\x1b[36m", "\x1b[0m")
        } else {
            ("", "", "")
        };
        let mut shown = format!("{red}error{plain}: {}\n", self.message.trim_end());
        if let Some(hint) = &self.hint {
            shown.push_str(&format!("{cyan}hint{plain}: {}\n", hint.trim_end()));
        }
        shown
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::new(format!("{error:#}"))
    }
}

/// `cannot VERB `PATH`: why`.
pub fn at_path(verb: &str, path: &std::path::Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot {verb} `{}`: {error}", path.display()))
}
