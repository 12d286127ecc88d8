use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::counterparts::{has_program, output, recipe, there_is};
use super::guest;
use super::static_programs::static_programs;
use crate::world::{World, text};

/// The newest of Debian's kernels for virtual machines, and its modules.
fn kernel() -> Option<(PathBuf, PathBuf)> {
    let mut kernels: Vec<PathBuf> = fs::read_dir("/boot")
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    kernels.sort();
    let (kernel, version) = kernels.into_iter().rev().find_map(|path| {
        let version = path.file_name()?.to_str()?.strip_prefix("vmlinuz-")?.to_owned();
        version.ends_with("cloud-amd64").then_some((path, version))
    })?;
    Some((kernel, Path::new("/lib/modules").join(version)))
}

/// The file system that `env/qemu/init` speaks of.
fn initramfs(dir: &Path, programs: &Path, modules: &Path) -> PathBuf {
    let root = dir.join("root");
    let copy = |from: &Path, to: &str| {
        let to = root.join(to);
        fs::create_dir_all(to.parent().expect("below the root")).expect("a folder");
        fs::copy(from, &to).expect("copied");
    };
    copy(&recipe("qemu/init"), "init");
    copy(Path::new("/bin/busybox"), "bin/busybox");
    copy(&programs.join("stage0"), "usr/local/bin/stage0");
    let dependencies = fs::read_to_string(modules.join("modules.dep")).expect("it lists them");
    let here = |path: &str| format!("{}/{path}", modules.display().to_string().trim_start_matches('/'));
    for wanted in ["virtio_pci.ko", "virtio_net.ko"] {
        let line = dependencies
            .lines()
            .find(|line| line.split(':').next().is_some_and(|path| path.ends_with(wanted)));
        for module in line
            .expect("it is a module")
            .replace(':', "")
            .split(' ')
            .filter(|path| !path.is_empty())
        {
            copy(&modules.join(module), &here(module));
        }
    }
    copy(&modules.join("modules.dep"), &here("modules.dep"));
    let packed = dir.join("initramfs");
    let pack = "find . | cpio --quiet -o -H newc > ../initramfs";
    output(Command::new("sh").args(["-c", pack]).current_dir(&root));
    packed
}

#[test]
fn a_virtual_machine_boots_fetches_its_buildlet_and_goes_off_when_it_is_halted() {
    let packages = "qemu-system-x86 linux-image-cloud-amd64 busybox-static cpio";
    let all = has_program("qemu-system-x86_64") && has_program("cpio") && Path::new("/bin/busybox").exists();
    if !there_is("QEMU with a kernel to boot", packages, all && kernel().is_some()) {
        return;
    }
    let Some(programs) = static_programs() else { return };
    let (kernel, modules) = kernel().expect("asked before");
    let world = World::new();
    world.publish_program("0.1.0", &programs.join("buildlet"));
    let port = world.address.rsplit_once(':').expect("a port").1;
    // The guest sees the loopback of its host at 10.0.2.2.
    let settings = format!(
        "BURROW_MANIFEST=http://10.0.2.2:{port}/b/manifest BURROW_PUBLIC_KEYS={}",
        world.public_key
    );
    // An address of our own, for QEMU cannot tell which port it took.
    let pid = std::process::id();
    let door = format!(
        "127.{}.{}.{}",
        64 + (pid >> 14 & 63),
        pid >> 7 & 127,
        1 + (pid & 127)
    );
    let mut qemu = Command::new("qemu-system-x86_64")
        .args(["-m", "512", "-nographic", "-no-reboot", "-kernel"])
        .arg(&kernel)
        .arg("-initrd")
        .arg(initramfs(world.dir.path(), &programs, &modules))
        .args([
            "-nic",
            &format!("user,model=virtio,hostfwd=tcp:{door}:5936-:5936"),
        ])
        .args([
            "-append",
            &format!("console=ttyS0 panic=-1 quiet listen=0.0.0.0:5936 password=sesame {settings}"),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("it runs");
    let console = qemu.stdout.take().expect("piped");
    let guard = KillOnDrop(qemu);
    let mut console = BufReader::new(console);
    guest::listening_at(&mut console);
    let address = format!("{door}:5936");
    let refused = guest::ask(&address, Some("open"), "GET", "/status", "");
    assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
    guest::answers_and_runs(&address, Some("sesame"), "/proc/self/exe");
    let system = guest::ask(
        &address,
        Some("sesame"),
        "POST",
        "/exec",
        "mode=sys&cmd=/bin/uname&cmdArg=-r",
    );
    let version = modules.file_name().expect("it has one").to_string_lossy();
    assert!(system.contains(&*version), "{system}");
    guest::ask(&address, Some("sesame"), "POST", "/halt", "");
    let mut last = Vec::new();
    std::io::Read::read_to_end(&mut console, &mut last).expect("it goes off");
    assert!(guard.end(), "{}", text(&last));
}

/// Takes a machine down with the test that needs it, however that ends.
struct KillOnDrop(std::process::Child);

impl KillOnDrop {
    /// Waits for its own end; whether that was a good one.
    fn end(mut self) -> bool {
        self.0.wait().expect("waited for").success()
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
