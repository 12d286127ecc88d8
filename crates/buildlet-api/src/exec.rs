//! A command as the buildlet takes it, and how it ended.

use std::fmt;
use std::time::Duration;

use ids::Limits;

use crate::wire;

/// One command to run. What `dir` and `path` may hold is the buildlet's to judge; what every
/// version takes is relative, with slashes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecSpec {
    /// Relative to the work directory, absolute, or a bare name to be looked up.
    pub cmd: String,
    pub args: Vec<String>,
    /// Empty: the command's own directory; with `system`, the work directory.
    pub dir: String,
    /// Later ones win over earlier ones and over the buildlet's own.
    pub env: Vec<(String, String)>,
    /// Elements of PATH, with `$PATH`, `$WORKDIR` and the lone `$EMPTY` (no PATH at all) understood.
    /// Empty: PATH as it is.
    pub path: Vec<String>,
    /// Run a program of the machine, not one of the work directory.
    pub system: bool,
    /// Print the command before its output.
    pub debug: bool,
    /// What it is kept within; for buildlets with the feature `limits`. Others run it without.
    pub limits: Limits,
}

impl ExecSpec {
    /// The body of `POST /exec`, keys in the order of Go's client; with `wall`, what
    /// `POST /burrow/exec` takes besides, in whole seconds, rounded up.
    pub fn form(&self, wall: Option<Duration>) -> String {
        let env: Vec<String> = self
            .env
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let wall = wall.map(|wall| wall.as_millis().div_ceil(1000).max(1).to_string());
        let mut pairs = vec![("cmd", self.cmd.as_str())];
        pairs.extend(self.args.iter().map(|arg| ("cmdArg", arg.as_str())));
        pairs.push(("debug", if self.debug { "true" } else { "false" }));
        pairs.push(("dir", self.dir.as_str()));
        pairs.extend(env.iter().map(|pair| ("env", pair.as_str())));
        pairs.push(("mode", if self.system { "sys" } else { "" }));
        pairs.extend(self.path.iter().map(|element| ("path", element.as_str())));
        pairs.extend(wall.iter().map(|secs| ("wall_s", secs.as_str())));
        let Limits {
            memory,
            processes,
            output,
            no_network,
            confined,
        } = self.limits;
        let numbers = [
            ("memory_bytes", memory),
            ("processes", processes.map(u64::from)),
            ("output_bytes", output),
        ];
        let numbers = numbers.map(|(key, number)| (key, number.map(|number| number.to_string())));
        pairs.extend(
            numbers
                .iter()
                .filter_map(|(key, number)| Some((*key, number.as_deref()?))),
        );
        pairs.extend(no_network.then_some(("network", "off")));
        pairs.extend(confined.then_some(("write", "workdir")));
        wire::form(pairs)
    }
}

/// How a command ended, by the trailer `Process-State`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessState {
    Ok,
    /// In the words of the buildlet's platform: `exit status 1`, `signal: killed`, or why it did not
    /// start. Never empty.
    Failed(String),
}

/// A trailer that is absent or empty: the machine failed, not the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("missing Process-State trailer")]
pub struct MissingState;

impl ProcessState {
    /// Parses the trailer's value. Bytes that are no UTF-8 are replaced.
    pub fn parse(trailer: Option<&[u8]>) -> Result<ProcessState, MissingState> {
        let text = String::from_utf8_lossy(trailer.unwrap_or_default());
        match text.trim() {
            "" => Err(MissingState),
            "ok" => Ok(ProcessState::Ok),
            text => Ok(ProcessState::Failed(text.to_owned())),
        }
    }

    pub fn is_ok(&self) -> bool {
        *self == ProcessState::Ok
    }
}

impl fmt::Display for ProcessState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProcessState::Ok => f.write_str("ok"),
            ProcessState::Failed(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_that_of_gos_client() {
        let plain = ExecSpec {
            cmd: "go/src/make.bash".into(),
            ..ExecSpec::default()
        };
        assert_eq!(
            plain.form(None),
            "cmd=go%2Fsrc%2Fmake.bash&debug=false&dir=&mode="
        );
        let full = ExecSpec {
            cmd: "sh".into(),
            args: vec!["-c".into(), "a b".into()],
            dir: "go".into(),
            env: vec![("A".into(), "1".into()), ("A".into(), "=".into())],
            path: vec!["$WORKDIR/go/bin".into(), "$PATH".into()],
            system: true,
            debug: true,
            limits: Limits {
                memory: Some(5),
                processes: Some(6),
                output: Some(7),
                no_network: true,
                confined: true,
            },
        };
        assert_eq!(
            full.form(Some(Duration::from_millis(1500))),
            "cmd=sh&cmdArg=-c&cmdArg=a+b&debug=true&dir=go&env=A%3D1&env=A%3D%3D&mode=sys\
             &path=%24WORKDIR%2Fgo%2Fbin&path=%24PATH&wall_s=2\
             &memory_bytes=5&processes=6&output_bytes=7&network=off&write=workdir"
        );
    }

    #[test]
    fn a_state_is_ok_or_words_or_missing() {
        assert_eq!(ProcessState::parse(Some(b"ok")), Ok(ProcessState::Ok));
        let failed = ProcessState::parse(Some(b" exit status 1 ")).unwrap();
        assert_eq!(failed, ProcessState::Failed("exit status 1".into()));
        assert_eq!(failed.to_string(), "exit status 1");
        assert_eq!(
            ProcessState::parse(Some("ü\u{0}".as_bytes()))
                .unwrap()
                .to_string(),
            "ü\0"
        );
        assert_eq!(ProcessState::parse(Some(b" ")), Err(MissingState));
        assert_eq!(ProcessState::parse(None), Err(MissingState));
    }
}
