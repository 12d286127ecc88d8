//! B3: machines that have dialled in and wait, one change for all of them: until all run.

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};

use super::farm::{Farm, Plan, seconds};
use super::http::Connection;
use super::{Figure, Setup};

const MACHINES: usize = 256;

pub fn measure(setup: &Setup) -> anyhow::Result<Vec<Figure>> {
    let machines = setup.size.unwrap_or(MACHINES);
    let place = tempfile::tempdir()?;
    let ran = place.path().join("ran");
    fs::create_dir(&ran)?;
    let door = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut text = "[host.rack]\npool = \"reverse\"\n".to_owned();
    for n in 0..machines {
        text += &format!("[builder.b{n:04}]\nhost = \"rack\"\n");
    }
    // Nobody gets a second one before all have the first.
    let run = format!("date +%s.%N > {}/$BURROW_BUILDER; sleep 5", ran.display());
    let plan = Plan {
        machines: text,
        run: format!("{run:?}"),
        farm: format!("listen_https = \"{door}\"\n"),
        slots: 0,
    };
    let mut farm = Farm::start(setup, &plan)?;
    let config = farm.folder.path().join("burrow.toml");
    let mut agents = Agents(Vec::new());
    for n in 0..machines {
        let name = format!("m{n}");
        // The key of each machine is its own.
        let made = Command::new(&setup.burrow)
            .args(["key", "--config"])
            .arg(&config)
            .args(["new", &name, "--host-type", "rack", "--state-dir"])
            .arg(farm.state())
            .output()
            .context("make a key")?;
        ensure!(
            made.status.success(),
            "no key: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let said = String::from_utf8_lossy(&made.stderr).into_owned();
        let mark = said
            .split("-fingerprint=")
            .nth(1)
            .and_then(|rest| rest.split_whitespace().next())
            .context("no fingerprint")?
            .to_owned();
        let dir = place.path().join(&name);
        fs::create_dir(&dir)?;
        fs::write(dir.join("key"), String::from_utf8(made.stdout)?.trim())?;
        let log = fs::File::create(dir.join("log"))?;
        let child = Command::new(&setup.burrow)
            .arg("buildlet")
            .arg(format!("-coordinator={door}"))
            .arg("-reverse-type=rack")
            .arg(format!("-fingerprint={mark}"))
            .arg(format!("-hostname={name}"))
            .env("GO_BUILD_KEY_PATH", dir.join("key"))
            .env("TMPDIR", &dir)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("start a buildlet")?;
        agents.0.push(child);
    }
    farm.until("all have dialled in", |farm| {
        let mut connection = Connection::open(farm.address)?;
        Ok(farm.machines(&mut connection)? == machines)
    })?;
    std::thread::sleep(std::time::Duration::from_secs(2));
    farm.upstream.push()?;
    let mut connection = Connection::open(farm.address)?;
    let began = seconds();
    farm.hook(&mut connection)?;
    farm.until("all run", |_| Ok(fs::read_dir(&ran)?.count() == machines))?;
    std::thread::sleep(std::time::Duration::from_millis(100));
    let mut last = 0.0f64;
    for file in fs::read_dir(&ran)? {
        let at: f64 = fs::read_to_string(file?.path())?.trim().parse()?;
        last = last.max(at - began);
    }
    drop(farm);
    Ok(vec![Figure::new(
        format!("{machines} idle machines that dialled in, one change for all: until all run"),
        format!("{last:.2} s"),
        "<= 1 s",
    )])
}

struct Agents(Vec<Child>);

impl Drop for Agents {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
