use std::fs;
use std::time::{Duration, SystemTime};

use crate::machine::Machine;

fn at(path: std::path::PathBuf, content: &str) {
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_528_925_255);
    fs::write(&path, content).unwrap();
    fs::File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_modified(modified)
        .unwrap();
}

#[test]
fn a_listing_is_that_of_the_original() {
    let machine = Machine::start();
    machine.sh("mkdir -p d/src/skipped d/z; chmod 1777 d/z; ln -s src d/link; mkfifo d/pipe; touch 'd/a\tb'");
    at(machine.work("d/src/a.go"), "");
    at(machine.work("d/src/skipped/x"), "x");
    at(machine.work("d/B"), "hello");
    let list = |query: &str| machine.get(&format!("/ls?{query}"));
    let flat = list("dir=d&recursive=false");
    assert_eq!(
        flat.text(),
        "-rw-r--r--\tB\t5\t2018-06-13T21:27:35Z\nLrwxrwxrwx\tlink\nprw-r--r--\tpipe\ndrwxr-xr-x\tsrc/\ndtrwxrwxrwx\tz/\n"
    );
    assert_eq!(flat.trailer("burrow-omitted"), Some("1"));
    let deep = list("dir=d&recursive=true&digest=true&skip=src/skipped&skip=z");
    assert_eq!(
        deep.text(),
        "-rw-r--r--\tB\t5\t2018-06-13T21:27:35Z\taaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d\n\
         Lrwxrwxrwx\tlink\nprw-r--r--\tpipe\ndrwxr-xr-x\tsrc/\n\
         -rw-r--r--\tsrc/a.go\t0\t2018-06-13T21:27:35Z\tda39a3ee5e6b4b0d3255bfef95601890afd80709\n"
    );
    assert_eq!(list("dir=d/B").text(), "-rw-r--r--\t\t5\t2018-06-13T21:27:35Z\n");
    assert!(list("dir=").text().contains("drwxr-xr-x\td/\n"));
    assert!(list("").whole);
}

#[test]
fn what_cannot_be_listed_is_an_error() {
    let machine = Machine::start();
    assert!(
        machine
            .get("/ls?dir=none")
            .shown()
            .starts_with("500 Walk error: ")
    );
    assert!(
        machine
            .get("/ls?dir=/etc")
            .shown()
            .starts_with("400 invalid 'dir' parameter: ")
    );
    std::os::unix::fs::symlink("/etc", machine.work("etc")).unwrap();
    assert!(machine.get("/ls?dir=etc").shown().starts_with("500 Walk error: "));
}

#[test]
fn a_listing_that_fails_midway_is_cut_and_says_why() {
    let machine = Machine::start();
    // Names enough that some are sent before the depth is met.
    machine
        .sh("mkdir d; i=0; while [ $i -lt 3000 ]; do echo >> d/a-name-of-some-length-$i; i=$((i+1)); done");
    let mut deep = machine.work("d/z");
    for _ in 0..210 {
        deep.push("d");
    }
    fs::create_dir_all(deep).unwrap();
    let answer = machine.get("/ls?dir=d&recursive=true");
    assert_eq!((answer.status, answer.whole), (200, false));
    let why = "Walk error: more than 200 folders within each other";
    assert_eq!(answer.trailer("burrow-error"), Some(why));
}
