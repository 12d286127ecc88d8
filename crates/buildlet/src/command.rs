//! What a caller asks for, made into a program with arguments, environment and directory. Pure.
//!
//! Source: golang/build `cmd/buildlet/buildlet.go` (2023).

use std::path::{Path, PathBuf};

use crate::beneath::relative;
use crate::contain::Limits;

/// What to run, as asked.
#[derive(Debug, Clone, Default)]
pub struct Spec {
    pub cmd: String,
    pub args: Vec<String>,
    pub dir: String,
    /// `KEY=VALUE`, later ones win.
    pub env: Vec<String>,
    pub path: Vec<String>,
    pub system: bool,
    pub debug: bool,
    pub limits: Limits,
}

/// Why a command was not started: a status of the answer and its text.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal(pub u16, pub String);

/// What a command finds here.
pub struct Surroundings<'a> {
    pub workdir: &'a Path,
    /// The buildlet's own environment.
    pub env: Vec<(String, String)>,
    /// Whether there is a program by that path.
    pub runs: &'a dyn Fn(&Path) -> bool,
    /// Whether there is a folder `go1.4`, with which Go's sources are built.
    pub bootstrap: bool,
    /// Names this command and all it starts, for finding them again.
    pub mark: (String, String),
}

/// What to run, resolved.
#[derive(Debug)]
pub struct Plan {
    pub program: PathBuf,
    /// The program's own name first.
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub dir: PathBuf,
}

/// Variables of the buildlet that hold secrets, by how they begin.
const SECRET: [&str; 4] = ["BURROW_", "META_", "GCEMETA_", "GO_BUILD_KEY"];

impl Plan {
    pub fn new(spec: &Spec, around: Surroundings) -> Result<Plan, Refusal> {
        let workdir = around.workdir;
        let program = program(spec, &around)?;
        let dir = match spec.dir.as_str() {
            "" if spec.system => workdir.to_owned(),
            "" => program.parent().unwrap_or(workdir).to_owned(),
            dir if dir.starts_with('/') => PathBuf::from(dir),
            dir => workdir
                .join(relative(dir).map_err(|why| Refusal(400, format!("invalid 'dir' parameter: {why}")))?),
        };
        let mut args = vec![program.display().to_string()];
        args.extend(spec.args.iter().cloned());
        let env = env(spec, around, &dir);
        Ok(Plan {
            program,
            args,
            env,
            dir,
        })
    }

    /// What `debug` prints before the output.
    pub fn banner(&self) -> String {
        let list = |items: &mut dyn Iterator<Item = String>| {
            items.map(|item| quoted(&item)).collect::<Vec<_>>().join(" ")
        };
        let args = list(&mut self.args.iter().cloned());
        let env = list(&mut self.env.iter().map(|(key, value)| format!("{key}={value}")));
        let (program, dir) = (self.program.display(), self.dir.display());
        format!(":: Running {program} with args [{args}] and env [{env}] in dir {dir}\n\n")
    }
}

fn program(spec: &Spec, around: &Surroundings) -> Result<PathBuf, Refusal> {
    let cmd = &spec.cmd;
    if cmd.is_empty() {
        return Err(Refusal(400, "requires 'cmd' parameter".to_owned()));
    }
    if cmd.starts_with('/') {
        return Ok(PathBuf::from(cmd));
    }
    if cmd.contains('/') {
        if spec.system {
            let why = "invalid 'cmd' parameter: 'sys' mode requires absolute or system 'cmd' path";
            return Err(Refusal(400, why.to_owned()));
        }
        let path = relative(cmd).map_err(|why| Refusal(400, format!("invalid 'cmd' parameter: {why}")))?;
        return Ok(around.workdir.join(path));
    }
    let path = last(&around.env, "PATH").unwrap_or_default();
    let own = (!spec.system).then(|| around.workdir.to_owned());
    let mut folders = own.into_iter().chain(std::env::split_paths(path));
    let found = folders.find_map(|folder| Some(folder.join(cmd)).filter(|path| (around.runs)(path)));
    found.ok_or_else(|| {
        Refusal(
            422,
            format!("invalid 'cmd' parameter: command {} not found", quoted(cmd)),
        )
    })
}

fn env(spec: &Spec, around: Surroundings, dir: &Path) -> Vec<(String, String)> {
    let workdir = around.workdir.display();
    let below = |key: &str, name: &str| (key.to_owned(), format!("{workdir}/{name}"));
    let secret = |key: &str| SECRET.iter().any(|secret| key.starts_with(secret));
    let mut env: Vec<_> = around.env.into_iter().filter(|(key, _)| !secret(key)).collect();
    env.push(("WORKDIR".to_owned(), workdir.to_string()));
    if around.bootstrap {
        env.push(below("GOROOT_BOOTSTRAP", "go1.4"));
    }
    for pair in &spec.env {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        env.push((key.to_owned(), value.to_owned()));
    }
    env.extend(CACHES.map(|(key, folder)| below(key, folder)));
    if !spec.path.is_empty() {
        let old = last(&env, "PATH").unwrap_or_default();
        let expand = |element: &String| {
            let element = element
                .replace("$PATH", old)
                .replace("$WORKDIR", &workdir.to_string());
            element.replace("$EMPTY", "")
        };
        let elements = spec.path.iter().map(expand).filter(|element| !element.is_empty());
        let path = elements.collect::<Vec<_>>().join(":");
        env.push(("PATH".to_owned(), path));
    }
    env.push(("PWD".to_owned(), dir.display().to_string()));
    env.push(around.mark);
    // The last of each name wins.
    let mut seen = std::collections::BTreeSet::new();
    env.reverse();
    env.retain(|(key, _)| seen.insert(key.clone()));
    env.reverse();
    env
}

/// Variables with the folders below the working directory that they name.
pub const CACHES: [(&str, &str); 3] = [
    ("TMPDIR", "tmp"),
    ("GOCACHE", "gocache"),
    ("GOPLSCACHE", "goplscache"),
];

fn last<'a>(env: &'a [(String, String)], name: &str) -> Option<&'a str> {
    env.iter()
        .rev()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.as_str())
}

/// As Go's `strconv.Quote` writes it.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A plan for a machine with `/bin/sh`, a program `tool` in the working directory `/w`, and
    /// variables of its own.
    fn plan(spec: Spec) -> Result<Plan, Refusal> {
        let env = [
            ("HOME", "/h"),
            ("PATH", "/usr/bin:/bin"),
            ("META_password", "x"),
            ("BURROW_X", "x"),
        ];
        let around = Surroundings {
            workdir: Path::new("/w"),
            env: env.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            runs: &|path| ["/bin/sh", "/w/tool"].contains(&path.to_str().expect("text")),
            bootstrap: spec.args == ["bootstrap"],
            mark: ("BURROW_EXEC".to_owned(), "m".to_owned()),
        };
        Plan::new(&spec, around)
    }

    fn spec(cmd: &str, dir: &str, system: bool) -> Spec {
        Spec {
            cmd: cmd.to_owned(),
            dir: dir.to_owned(),
            system,
            ..Spec::default()
        }
    }

    #[test]
    fn programs_and_folders_are_found_as_in_2023() {
        for (cmd, dir, system, wanted) in [
            ("go/make.bash", "", false, "/w/go/make.bash in /w/go"),
            ("go/make.bash", "go/src", false, "/w/go/make.bash in /w/go/src"),
            ("/bin/x", "/", false, "/bin/x in /"),
            ("tool", "", false, "/w/tool in /w"),
            ("sh", "", false, "/bin/sh in /bin"),
            ("sh", "", true, "/bin/sh in /w"),
            ("/bin/sh", "a/../b", true, "/bin/sh in /w/b"),
            (
                "tool",
                "",
                true,
                "422 invalid 'cmd' parameter: command \"tool\" not found",
            ),
            ("", "", true, "400 requires 'cmd' parameter"),
            (
                "a/b",
                "",
                true,
                "400 invalid 'cmd' parameter: 'sys' mode requires absolute or system 'cmd' path",
            ),
            (
                "../x",
                "",
                false,
                "400 invalid 'cmd' parameter: bogus path `../x`: it leads out; wanted one below the working directory",
            ),
            (
                "sh",
                "..",
                false,
                "400 invalid 'dir' parameter: bogus path `..`: it leads out; wanted one below the working directory",
            ),
        ] {
            let found = match plan(spec(cmd, dir, system)) {
                Ok(plan) => format!("{} in {}", plan.program.display(), plan.dir.display()),
                Err(Refusal(status, text)) => format!("{status} {text}"),
            };
            assert_eq!(found, wanted, "{cmd} {dir} {system}");
        }
    }

    #[test]
    fn the_environment_is_in_order_without_secrets() {
        let mut asked = spec("sh", "", true);
        asked.env = vec![
            "A=1".into(),
            "TMPDIR=/x".into(),
            "A=2=3".into(),
            "HOME=/other".into(),
        ];
        let env = |spec: &Spec| {
            let env = plan(spec.clone()).expect("a plan").env;
            env.iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(
            env(&asked),
            "PATH=/usr/bin:/bin WORKDIR=/w A=2=3 HOME=/other TMPDIR=/w/tmp GOCACHE=/w/gocache \
             GOPLSCACHE=/w/goplscache PWD=/w BURROW_EXEC=m"
        );
        asked.args = vec!["bootstrap".into()];
        assert!(env(&asked).contains("GOROOT_BOOTSTRAP=/w/go1.4"));
        asked.env.push("GOROOT_BOOTSTRAP=/y".into());
        assert!(env(&asked).contains("GOROOT_BOOTSTRAP=/y"));
        for (path, wanted) in [
            (
                vec!["$WORKDIR/go/bin", "$PATH", "x$EMPTY"],
                "PATH=/w/go/bin:/usr/bin:/bin:x ",
            ),
            (vec!["$EMPTY"], "PATH= "),
        ] {
            asked.path = path.into_iter().map(str::to_owned).collect();
            assert!(env(&asked).contains(wanted), "{}", env(&asked));
        }
    }

    #[test]
    fn the_banner_is_quoted_as_go_does() {
        let mut asked = spec("sh", "", true);
        asked.args = vec!["-c".into(), "a\t\"\\\u{1}\u{85}ü".into()];
        let banner = plan(asked).expect("a plan").banner();
        let wanted = ":: Running /bin/sh with args [\"/bin/sh\" \"-c\" \"a\\t\\\"\\\\\\x01\\u0085ü\"] and env [\"HOME=/h\" ";
        assert!(banner.starts_with(wanted), "{banner}");
        assert!(banner.ends_with("\"BURROW_EXEC=m\"] in dir /w\n\n"), "{banner}");
    }
}
