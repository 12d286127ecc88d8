use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use tar::EntryType;

use crate::machine::{Machine, form, read};

/// One entry as bytes, whatever its name: no library would write the bad ones.
fn entry(name: &str, kind: EntryType, link: &str, content: &[u8]) -> Vec<u8> {
    entry_with(name, kind, link, content, 0o644, 1_000_000_000)
}

fn entry_with(name: &str, kind: EntryType, link: &str, content: &[u8], mode: u32, mtime: u64) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    let raw = header.as_ustar_mut().unwrap();
    raw.name[..name.len()].copy_from_slice(name.as_bytes());
    raw.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    header.set_mtime(mtime);
    header.set_cksum();
    let mut out = header.as_bytes().to_vec();
    out.extend_from_slice(content);
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

pub fn file(name: &str, content: &[u8]) -> Vec<u8> {
    entry(name, EntryType::Regular, "", content)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

pub fn tgz(entries: &[Vec<u8>]) -> Vec<u8> {
    gzip(&[entries.concat(), vec![0; 1024]].concat())
}

#[test]
fn what_leads_out_or_is_no_file_is_refused_and_nothing_is_touched() {
    let machine = Machine::start();
    let outside = machine.outside("");
    let away = outside.to_str().unwrap();
    symlink(&outside, machine.work("planted")).unwrap();
    for (what, entries, wanted) in [
        ("dots", vec![file("..", b"x")], "invalid name `..`"),
        (
            "dots within",
            vec![file("a/../../b", b"x")],
            "invalid name `a/../../b`",
        ),
        ("absolute", vec![file("/etc/burrow-test", b"x")], "it is absolute"),
        ("empty", vec![file("", b"x")], "it is empty"),
        ("itself", vec![file("./.", b"x")], "it is the folder itself"),
        (
            "a planted link",
            vec![file("planted/x", b"x")],
            "it leads out of the working directory",
        ),
        (
            "a folder in a planted link",
            vec![entry("planted/d/", EntryType::Directory, "", b"")],
            "it leads out",
        ),
        (
            "a link and a file through it",
            vec![
                entry("up", EntryType::Symlink, "../outside", b""),
                file("up/x", b"x"),
            ],
            "the link `up` leads out",
        ),
        (
            "an absolute link",
            vec![entry("l", EntryType::Symlink, away, b"")],
            "the link `l` leads out",
        ),
        (
            "a hard link outside",
            vec![entry("h", EntryType::Link, "../outside/kept", b"")],
            "invalid name `h`",
        ),
        (
            "a hard link to nothing",
            vec![entry("h", EntryType::Link, "none", b"")],
            "which is no file here",
        ),
        (
            "a hard link to a link",
            vec![entry("h", EntryType::Link, "planted", b"")],
            "which is no file here",
        ),
        (
            "a device",
            vec![entry("dev", EntryType::Char, "", b"")],
            "entry dev contained unsupported file type `3`",
        ),
        (
            "a fifo",
            vec![entry("pipe", EntryType::Fifo, "", b"")],
            "unsupported file type `6`",
        ),
    ] {
        fs::write(machine.outside("kept"), "kept").unwrap();
        let answer = machine.put("/writetgz?dir=", &tgz(&entries));
        assert_eq!(answer.status, 400, "{what}: {}", answer.text());
        assert!(answer.text().contains(wanted), "{what}: {}", answer.text());
        let left: Vec<_> = fs::read_dir(&outside)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["kept"], "{what}");
    }
}

#[test]
fn archives_that_are_damaged_are_refused() {
    let machine = Machine::start();
    let good = tgz(&[file("a", &[7; 100_000]), file("b", b"x")]);
    let mut wrong_sum = good.clone();
    let end = wrong_sum.len() - 6;
    wrong_sum[end] ^= 1;
    for (what, bytes) in [
        ("nothing", Vec::new()),
        ("plain tar", file("a", b"x")),
        ("no tar", gzip(&[b'x'; 2000])),
        ("cut in the middle", good[..good.len() / 2].to_vec()),
        ("cut in the checksum", good[..good.len() - 4].to_vec()),
        ("a wrong checksum", wrong_sum),
        ("a tar that ends in a file", gzip(&file("a", &[7; 5000])[..2000])),
    ] {
        let answer = machine.put("/writetgz?dir=d", &bytes);
        assert_eq!(answer.status, 400, "{what}: {}", answer.text());
    }
    assert_eq!(machine.put("/writetgz?dir=d", &good).shown(), "200 OK");
}

#[test]
fn files_folders_and_links_arrive_as_they_were() {
    let machine = Machine::start();
    let old = Duration::from_secs(1_000_000_000);
    let began = SystemTime::now();
    let entries = [
        entry(
            "pax_global_header",
            EntryType::XGlobalHeader,
            "",
            b"19 comment=0123456\n",
        ),
        entry_with("ro/", EntryType::Directory, "", b"", 0o555, 0),
        file("ro/in", b"in a read-only folder"),
        entry_with(
            "bin/tool",
            EntryType::Regular,
            "",
            b"#!/bin/sh\necho tool\n",
            0o755,
            old.as_secs(),
        ),
        entry_with("future", EntryType::Regular, "", b"x", 0o600, u64::MAX >> 31),
        entry("link", EntryType::Symlink, "bin/tool", b""),
        entry("up/link", EntryType::Symlink, "../../beside", b""),
        entry("hard", EntryType::Link, "bin/tool", b""),
        file("C:x", b"a plain name here"),
        file("back\\slash", b"here too"),
        file("foo../bar", b"x"),
        file("link/../twice", b"1"),
        file("twice", b"2"),
    ];
    assert_eq!(
        machine.put("/writetgz?dir=some%2Fdir", &tgz(&entries)).shown(),
        "200 OK"
    );
    let at = |path: &str| machine.work("some/dir").join(path);
    let meta = |path: &str| fs::symlink_metadata(at(path)).unwrap();
    assert_eq!(fs::read_to_string(at("ro/in")).unwrap(), "in a read-only folder");
    assert_eq!(meta("ro").permissions().mode() & 0o700, 0o500);
    assert_eq!(meta("bin/tool").permissions().mode() & 0o777, 0o755);
    assert_eq!(meta("bin/tool").modified().unwrap(), SystemTime::UNIX_EPOCH + old);
    assert_eq!(meta("future").permissions().mode() & 0o777, 0o600);
    let (future, slack) = (meta("future").modified().unwrap(), Duration::from_secs(1));
    assert!(
        future >= began - slack && future <= SystemTime::now(),
        "{future:?}"
    );
    assert_eq!(fs::read_link(at("link")).unwrap().to_str(), Some("bin/tool"));
    assert_eq!(
        fs::read_link(at("up/link")).unwrap().to_str(),
        Some("../../beside")
    );
    assert_eq!(meta("hard").ino(), meta("bin/tool").ino());
    for (name, content) in [
        ("C:x", "a plain name here"),
        ("back\\slash", "here too"),
        ("foo../bar", "x"),
        ("twice", "2"),
    ] {
        assert_eq!(fs::read_to_string(at(name)).unwrap(), content);
    }
    assert!(!at("pax_global_header").exists());

    // Again, over itself: a program that runs is replaced, links are not written through.
    let again = [
        file("link", b"no link any more"),
        entry_with("bin/tool", EntryType::Regular, "", b"new", 0o755, 0),
    ];
    assert_eq!(
        machine.put("/writetgz?dir=some%2Fdir", &tgz(&again)).shown(),
        "200 OK"
    );
    assert_eq!(fs::read_to_string(at("link")).unwrap(), "no link any more");
    assert_eq!(fs::read_to_string(at("bin/tool")).unwrap(), "new");
    assert!(fs::read_to_string(at("hard")).unwrap().contains("echo tool"));
    let left = machine.sh("find . -name '.burrow*'");
    assert_eq!(left.text(), "");
}

#[test]
fn three_gzip_members_are_one_archive() {
    let machine = Machine::start();
    let tar = [file("a", b"1"), file("b", &[7; 3000]), vec![0; 1024]].concat();
    let members = [gzip(&tar[..100]), gzip(&tar[100..2000]), gzip(&tar[2000..])].concat();
    assert_eq!(machine.put("/writetgz", &members).shown(), "200 OK");
    assert_eq!(fs::read(machine.work("b")).unwrap(), [7; 3000]);
}

#[test]
fn an_uploader_hears_the_refusal_while_it_still_sends() {
    let machine = Machine::start();
    let mut noise = vec![0; 3 << 20];
    noise[..4].copy_from_slice(b"nope");
    let answer = machine.put("/writetgz?dir=", &noise);
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("requires a tar.gz"), "{}", answer.text());
}

#[test]
fn an_uploader_that_asks_first_is_told_to_go_on_only_if_it_may() {
    let machine = Machine::start();
    let head = |target: &str| {
        format!(
            "PUT {target} HTTP/1.1\r\nConnection: close\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
    };
    let mut stream = machine.connect();
    stream
        .write_all(head("/write?path=a&mode=420").as_bytes())
        .unwrap();
    let mut told = [0; 25];
    stream.read_exact(&mut told).unwrap();
    assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"one").unwrap();
    assert_eq!(read(&mut stream).shown(), "200 OK");
    assert_eq!(fs::read(machine.work("a")).unwrap(), b"one");
    let mut stream = machine.connect();
    stream
        .write_all(head("/write?path=..&mode=420").as_bytes())
        .unwrap();
    assert_eq!(read(&mut stream).status, 400);
}

#[test]
fn single_files_are_written_with_gos_modes() {
    let machine = Machine::start();
    symlink(machine.outside("x"), machine.work("planted")).unwrap();
    assert_eq!(machine.put("/write?path=a/b&mode=493", b"one").shown(), "200 OK");
    assert_eq!(machine.put("/write?path=a/b&mode=384", b"two").shown(), "200 OK");
    assert_eq!(
        machine.put("/write?path=planted&mode=420", b"no link").shown(),
        "200 OK"
    );
    let meta = fs::metadata(machine.work("a/b")).unwrap();
    assert_eq!((meta.permissions().mode() & 0o777, meta.len()), (0o600, 3));
    assert!(!machine.outside("x").exists());
    for (target, wanted) in [
        ("/write?path=a&mode=", "400 bad mode ``"),
        ("/write?path=a&mode=0x1", "400 bad mode `0x1`"),
        ("/write?path=a&mode=2147484141", "400 bad mode"),
        (
            "/write?mode=420",
            "400 invalid 'path' parameter: bogus path ``: it is empty",
        ),
        (
            "/write?path=.&mode=420",
            "400 invalid 'path' parameter: it is the working directory",
        ),
        ("/write?path=%2Fetc%2Fx&mode=420", "400 invalid 'path' parameter"),
        ("/write?path=a/b/c&mode=420", "500 cannot make"),
    ] {
        let answer = machine.put(target, b"x");
        assert!(answer.shown().starts_with(wanted), "{target}: {}", answer.shown());
    }
}

#[test]
fn an_archive_is_fetched_by_its_url() {
    let machine = Machine::start();
    let archive = tgz(&[file("a", b"fetched")]);
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = server.local_addr().unwrap();
    let serving = std::thread::spawn(move || {
        let mut asked = Vec::new();
        loop {
            let (mut stream, _) = server.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            let path = head.split(' ').nth(1).unwrap().to_owned();
            let answer: Vec<u8> = match path.as_str() {
                "/moved?token=secret" => {
                    b"HTTP/1.1 302 Found\r\nLocation: /real\r\nContent-Length: 0\r\n\r\n".to_vec()
                }
                "/real" => [b"HTTP/1.0 200 OK\r\n\r\n", &archive[..]].concat(),
                "/short" => [b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", &archive[..]].concat(),
                "/loop" => b"HTTP/1.1 307 X\r\nLocation: /loop\r\nContent-Length: 0\r\n\r\n".to_vec(),
                "/end" => return asked,
                _ => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
            };
            asked.push(path);
            stream.write_all(&answer).unwrap();
        }
    });
    let fetch = |path: &str| {
        let url = format!("http://{at}{path}");
        machine.post("/writetgz?dir=go1.4", &[("url", &url)]).shown()
    };
    assert_eq!(
        fetch("/none?token=secret"),
        format!("500 fetching http://{at}/none: the answer is 404; wanted 200")
    );
    fs::remove_dir(machine.work("go1.4")).unwrap_or_default();
    assert_eq!(
        fetch("/loop"),
        format!("500 fetching http://{at}/loop: more than 10 redirections")
    );
    assert!(fetch("/short").starts_with("400 "));
    fs::remove_dir_all(machine.work("go1.4")).unwrap_or_default();
    assert_eq!(fetch("/moved?token=secret"), "200 OK");
    assert_eq!(fs::read(machine.work("go1.4/a")).unwrap(), b"fetched");
    // It is there already, as Go's builders expect of their bootstrap.
    assert_eq!(fetch("/real"), "200 SKIP");
    for (url, wanted) in [
        ("", "400 missing url POST param"),
        (
            "ftp://x/",
            "500 bad url; wanted http://HOST/PATH or https://HOST/PATH",
        ),
        ("http://127.0.0.1:1/x", "500 fetching http://127.0.0.1:1/x: "),
    ] {
        let answer = machine.post("/writetgz?dir=d", &[("url", url)]);
        assert!(answer.shown().starts_with(wanted), "{}", answer.shown());
    }
    std::net::TcpStream::connect(at)
        .unwrap()
        .write_all(b"GET /end HTTP/1.1\r\n\r\n")
        .unwrap();
    let asked = serving.join().unwrap();
    assert_eq!(asked.iter().filter(|path| *path == "/loop").count(), 11);
    assert_eq!(asked.last().unwrap(), "/real");
}

#[test]
fn a_folder_comes_back_as_an_archive() {
    let machine = Machine::start();
    machine.sh(
        "mkdir -p d/b d/a; printf one > d/a/one; ln -s a/one d/link; chmod 750 d/a/one; mkfifo d/pipe; \
         head -c 1500000 /dev/zero > d/big",
    );
    let _socket = std::os::unix::net::UnixListener::bind(machine.work("d/socket")).unwrap();
    let names = |bytes: &[u8]| {
        let mut archive = tar::Archive::new(MultiGzDecoder::new(bytes));
        let one = |entry: tar::Entry<_>| {
            let link = entry
                .link_name()
                .unwrap()
                .map(|to| format!(" -> {}", to.display()))
                .unwrap_or_default();
            format!(
                "{}{link} {:o} {}",
                entry.path().unwrap().display(),
                entry.header().mode().unwrap(),
                entry.size()
            )
        };
        archive
            .entries()
            .unwrap()
            .map(|entry| one(entry.unwrap()))
            .collect::<Vec<_>>()
    };
    let wanted = [
        "a/ 755 0",
        "a/one 750 3",
        "b/ 755 0",
        "big 644 1500000",
        "link -> a/one 777 0",
        "pipe 644 0",
    ];
    let many = machine.get("/tgz?dir=d");
    assert_eq!((many.status, many.whole), (200, true));
    assert_eq!(names(&many.body), wanted);
    let one = machine.get("/tgz?dir=d&pargzip=0");
    assert_eq!(names(&one.body), wanted);
    let mut first = Vec::new();
    flate2::read::GzDecoder::new(&many.body[..])
        .read_to_end(&mut first)
        .unwrap();
    assert_eq!(first.len(), 1 << 20);
    // Empty is all of it.
    assert_eq!(names(&machine.get("/tgz?dir=").body)[0], "d/ 755 0");
    assert!(names(&machine.get("/tgz?dir=.").body).contains(&"d/a/one 750 3".to_owned()));
    assert_eq!(
        machine.get("/tgz?dir=none").shown(),
        "404 there is no folder `none`"
    );
    assert!(
        machine
            .get("/tgz?dir=..")
            .shown()
            .starts_with("400 invalid 'dir' parameter")
    );
}

#[test]
fn read_only_trees_go_and_others_are_left_alone() {
    let machine = Machine::start();
    fs::write(machine.outside("kept"), "kept").unwrap();
    machine.sh("mkdir -p m/a/b n; touch m/a/b/f n/f x; ln -s ../../outside m/a/l; chmod 500 m/a/b m/a m");
    let removed = |paths: &[&str]| {
        let paths: Vec<_> = paths.iter().map(|path| ("path", *path)).collect();
        machine.post("/removeall", &paths).shown()
    };
    assert_eq!(removed(&[]), "400 requires 'path' parameter");
    assert!(removed(&["x", ".."]).starts_with("400 invalid 'path' parameter: bogus path `..`"));
    assert!(machine.work("x").exists());
    assert_eq!(removed(&["m", "none", "none/below"]), "200 ");
    assert!(!machine.work("m").exists() && machine.work("n/f").exists());
    let query = machine.request("POST", &format!("/removeall?{}", form(&[("path", ".")])), "", b"");
    assert_eq!(query.shown(), "200 ");
    assert_eq!(fs::read_dir(machine.work("")).unwrap().count(), 0);
    assert_eq!(fs::read(machine.outside("kept")).unwrap(), b"kept");
}
