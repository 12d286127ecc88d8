use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::machine::{Machine, form, read};

/// What the process has had in memory at most, in KiB. A debug build's own needs are in it.
fn peak(machine: &Machine) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", machine.child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Archives of any size pass through this much, in KiB.
const MEMORY: u64 = 32 * 1024;

/// Uploads a tar.gz that is made while it is sent.
fn upload(machine: &Machine, target: &str, fill: impl FnOnce(&mut dyn Write)) -> crate::machine::Answer {
    struct Chunks(TcpStream);
    impl Write for Chunks {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if !bytes.is_empty() {
                write!(self.0, "{:x}\r\n", bytes.len())?;
                self.0.write_all(bytes)?;
                self.0.write_all(b"\r\n")?;
            }
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut stream = machine.connect();
    write!(
        stream,
        "PUT {target} HTTP/1.1\r\nHost: \r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    .unwrap();
    let buffered = std::io::BufWriter::with_capacity(64 * 1024, Chunks(stream.try_clone().unwrap()));
    let mut gzip = GzEncoder::new(buffered, Compression::fast());
    fill(&mut gzip);
    gzip.finish()
        .unwrap()
        .into_inner()
        .map_err(|_| "not sent")
        .unwrap();
    stream.write_all(b"0\r\n\r\n").unwrap();
    read(&mut stream)
}

fn header(name: &str, kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_path(name).unwrap();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o755);
    header.set_mtime(0);
    header.set_cksum();
    header
}

#[test]
fn an_archive_of_a_million_entries_passes_through_little_memory() {
    let machine = Machine::start();
    // A file of its own each would be a test of this disk: 2,000 files, and folders over and over between them.
    let answer = upload(&machine, "/writetgz?dir=m", |out| {
        for n in 0..1_000_000u32 {
            let entry = match n % 500 {
                0 => header(&format!("d{}/{n}", n % 100), tar::EntryType::Regular, 0),
                _ => header(&format!("d{}/", n % 100), tar::EntryType::Directory, 0),
            };
            out.write_all(entry.as_bytes()).unwrap();
        }
        out.write_all(&[0; 1024]).unwrap();
    });
    assert_eq!(answer.shown(), "200 OK");
    assert_eq!(machine.sh("find m -type f | wc -l").text().trim(), "2000");
    assert!(peak(&machine) < MEMORY, "{} KiB", peak(&machine));
}

#[test]
fn a_file_that_was_small_when_it_was_sent_passes_through_little_memory() {
    let machine = Machine::start();
    let answer = upload(&machine, "/writetgz?dir=", |out| {
        out.write_all(header("zeros", tar::EntryType::Regular, 200 << 20).as_bytes())
            .unwrap();
        for _ in 0..200 {
            out.write_all(&vec![0; 1 << 20]).unwrap();
        }
        out.write_all(&[0; 1024]).unwrap();
    });
    assert_eq!(answer.shown(), "200 OK");
    assert_eq!(std::fs::metadata(machine.work("zeros")).unwrap().len(), 200 << 20);
    assert!(peak(&machine) < MEMORY, "{} KiB", peak(&machine));
    let archive = machine.get("/tgz?dir=").body;
    assert!(
        archive.len() > 100_000 && peak(&machine) < MEMORY,
        "{} KiB",
        peak(&machine)
    );
}

#[test]
fn a_link_and_a_file_through_it_in_one_archive_stay_within() {
    let machine = Machine::start();
    std::fs::create_dir(machine.work("real")).unwrap();
    let answer = upload(&machine, "/writetgz?dir=", |out| {
        let mut link = header("to", tar::EntryType::Symlink, 0);
        link.set_link_name("real").unwrap();
        link.set_cksum();
        out.write_all(link.as_bytes()).unwrap();
        out.write_all(header("to/x", tar::EntryType::Regular, 0).as_bytes())
            .unwrap();
        // The folder that held files is a link out of a sudden, which leads out by way of another.
        let mut up = header("real/up", tar::EntryType::Symlink, 0);
        up.set_link_name("../..").unwrap();
        up.set_cksum();
        out.write_all(up.as_bytes()).unwrap();
        out.write_all(&[0; 1024]).unwrap();
    });
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(machine.work("real/x").exists());
    assert!(!machine.work("real/up").exists());
}

#[test]
fn a_peer_that_sends_half_a_head_holds_nobody_up() {
    let machine = Machine::start();
    // As many as there may be, but for one; each has said something, none enough.
    let idle: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = machine.connect();
            stream.write_all(b"GET /status HTTP/1.1\r\nHo").unwrap();
            stream
        })
        .collect();
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(machine.get("/status").status, 200);
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(peak(&machine) < MEMORY, "{} KiB", peak(&machine));
    // One that ends its side has no request, and is closed.
    let mut half = &idle[0];
    half.shutdown(Shutdown::Write).unwrap();
    assert_eq!(half.read(&mut [0; 10]).unwrap(), 0);
}

#[test]
fn a_body_that_ends_early_is_no_file_and_no_command() {
    let machine = Machine::start();
    for (target, body) in [
        ("PUT /write?path=half&mode=420", "abc".to_owned()),
        (
            "POST /exec",
            form(&[("cmd", "/bin/touch"), ("cmdArg", "ran"), ("mode", "sys")]),
        ),
        ("PUT /writetgz?dir=", "\u{1f}".to_owned()),
    ] {
        let mut stream = machine.connect();
        write!(
            stream,
            "{target} HTTP/1.1\r\nHost: \r\nContent-Length: 1000\r\n\r\n{body}"
        )
        .unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        // It is told what was wrong, or the connection ends; it does not wait.
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{target}");
    }
    let left: Vec<_> = std::fs::read_dir(machine.work("")).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_reader_that_stops_holds_its_command_and_no_memory() {
    let machine = Machine::start();
    let script = [
        ("cmd", "/bin/sh"),
        ("mode", "sys"),
        ("cmdArg", "-c"),
        ("cmdArg", "yes"),
    ];
    let body = form(&script);
    let mut stream = machine.connect();
    write!(
        stream,
        "POST /exec HTTP/1.1\r\nHost: \r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    stream.read_exact(&mut [0; 1000]).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(peak(&machine) < MEMORY, "{} KiB", peak(&machine));
    // Clean-up does not wait for it.
    let began = Instant::now();
    assert_eq!(machine.post("/removeall", &[("path", ".")]).status, 200);
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    assert_eq!(machine.sh("true").state(), "ok");
}

#[test]
fn a_multipart_form_runs_a_command() {
    let machine = Machine::start();
    let body = "--b\r\nContent-Disposition: form-data; name=\"cmd\"\r\n\r\n/bin/echo\r\n\
                --b\r\nContent-Disposition: form-data; name=\"cmdArg\"\r\n\r\na b\r\n\
                --b\r\nContent-Disposition: form-data; name=\"mode\"\r\n\r\nsys\r\n--b--\r\n";
    let kind = "Content-Type: multipart/form-data; boundary=b\r\n";
    let answer = machine.request("POST", "/exec", kind, body.as_bytes());
    assert_eq!((answer.text().as_str(), answer.state()), ("a b\n", "ok"));
}
