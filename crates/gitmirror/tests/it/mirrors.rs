//! What is seen of upstreams, and archives of it.

use std::sync::Arc;

use crate::world::*;

fn head(look: &gitmirror::Look) -> String {
    let seen = look.seen.as_ref().expect("it was seen");
    let heads = seen.heads.iter().map(|(branch, head)| format!("{branch}={head}"));
    heads.collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn what_an_archive_request_fetched_is_seen_too() {
    let world = World::start().await;
    let second = commit(world.upstream.path(), "two");
    let archive = world
        .service
        .archive(&widget(), &second)
        .await
        .expect("an archive");
    assert!(archive.bytes > 0 && archive.path.is_file());
    let look = world.service.looks().remove(&widget()).expect("it is watched");
    assert_eq!(head(&look), format!("main={second}"));
    // Nothing is made twice, and nothing half-made is left.
    assert_eq!(
        world
            .service
            .archive(&widget(), &second)
            .await
            .expect("an archive"),
        archive
    );
    let left = std::fs::read_dir(world.state.path().join("archives")).expect("a folder");
    assert_eq!(left.count(), 2, "the archive, and what is known of it");
    world.stop().await;
}

#[tokio::test]
async fn an_archive_that_went_bad_in_the_cache_is_made_anew() {
    let world = World::start().await;
    let commit = git(world.upstream.path(), &["rev-parse", "HEAD"]);
    let commit = commit.parse().expect("a hash");
    let archive = async || {
        world
            .service
            .archive(&widget(), &commit)
            .await
            .expect("an archive")
    };
    let made = archive().await;
    let good = std::fs::read(&made.path).expect("a file");
    type Harm = fn(&std::path::Path, &[u8]);
    let harms: [(&str, Harm); 5] = [
        ("a bit turned", |path, good| {
            let mut bad = good.to_vec();
            bad[good.len() / 2] ^= 1;
            std::fs::write(path, bad).expect("written");
        }),
        ("cut short", |path, good| {
            std::fs::write(path, &good[..good.len() - 1]).expect("written")
        }),
        ("empty", |path, _| std::fs::write(path, "").expect("written")),
        ("gone", |path, _| std::fs::remove_file(path).expect("removed")),
        ("without what is known of it", |path, _| {
            std::fs::remove_file(path.with_extension("").with_extension("json")).expect("removed");
        }),
    ];
    for (what, harm) in harms {
        harm(&made.path, &good);
        assert_eq!(archive().await, made, "{what}");
        assert!(std::fs::read(&made.path).expect("a file") == good, "{what}");
    }
    world.stop().await;
}

#[tokio::test]
async fn machines_get_a_tree_without_links_that_lead_out_of_it_and_others_get_all() {
    let mut world = World::start().await;
    let upstream = world.upstream.path().to_owned();
    for (name, target) in [("in", "one"), ("out", "../elsewhere"), ("root", "/etc/passwd")] {
        std::os::unix::fs::symlink(target, upstream.join(name)).expect("a link");
    }
    let commit = commit(&upstream, "two");
    let archive = world
        .service
        .archive(&widget(), &commit)
        .await
        .expect("an archive");
    let names = |bytes: &[u8]| {
        unpacked(bytes)
            .into_iter()
            .map(|(name, _)| name)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        names(&std::fs::read(&archive.path).expect("a file")),
        "in one two"
    );
    let note =
        "Left out of the source, because they lead out of it: `out -> ../elsewhere`, `root -> /etc/passwd`";
    assert_eq!(archive.notes, [note]);
    // The cache says the same.
    assert_eq!(
        world
            .service
            .archive(&widget(), &commit)
            .await
            .expect("an archive"),
        archive
    );
    let client = world.serve().await;
    let whole = client
        .ask(&format!("GET /archive/widget.tar.gz?rev={commit}"))
        .await;
    assert_eq!(names(&whole.body), "in one out root two");
    world.stop().await;
}

#[tokio::test]
async fn equal_trees_of_two_commits_are_two_archives() {
    let world = World::start().await;
    let first = git(world.upstream.path(), &["rev-parse", "HEAD"])
        .parse()
        .expect("a hash");
    git(
        world.upstream.path(),
        &["commit", "-q", "--allow-empty", "-m", "same"],
    );
    let second = git(world.upstream.path(), &["rev-parse", "HEAD"])
        .parse()
        .expect("a hash");
    let archive = async |commit| {
        let archive = world
            .service
            .archive(&widget(), commit)
            .await
            .expect("an archive");
        std::fs::read(archive.path).expect("a file")
    };
    let (one, two) = (archive(&first).await, archive(&second).await);
    let comment = |bytes: &[u8]| {
        let mut tar = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(bytes), &mut tar).expect("a tar");
        String::from_utf8_lossy(&tar).into_owned()
    };
    assert!(comment(&one).contains(first.as_str()) && comment(&two).contains(second.as_str()));
    world.stop().await;
}

#[tokio::test]
async fn a_repository_whose_address_changes_goes_on_in_the_same_mirror() {
    let world = World::start().await;
    let moved = tempfile::tempdir().expect("a folder");
    git(moved.path(), &["init", "-q"]);
    let other = commit(moved.path(), "moved");
    // Somebody reads it meanwhile.
    let reader = world.service.mirror(&widget()).await.expect("a mirror");
    world.service.set_repos(watched(moved.path()));
    let look = world.until(|look| look.count > 0).await;
    assert_eq!(look.error, None);
    assert_eq!(head(&look), format!("main={other}"));
    // And one that is taken out and put back.
    drop(reader);
    world.service.set_repos(Vec::new());
    world.service.set_repos(watched(world.upstream.path()));
    let look = world.until(|look| look.last_good.is_some()).await;
    assert_eq!(
        head(&look),
        format!("main={}", git(world.upstream.path(), &["rev-parse", "HEAD"]))
    );
    world.stop().await;
}

#[tokio::test]
async fn an_upstream_that_is_away_is_named_and_what_was_seen_stays() {
    let world = World::start().await;
    let before = world.until(|look| look.last_good.is_some()).await;
    let (place, away) = (
        world.upstream.path().to_owned(),
        world.upstream.path().with_extension("away"),
    );
    std::fs::rename(&place, &away).expect("moved");
    assert!(world.service.poke(&widget()));
    let look = world.until(|look| look.error.is_some()).await;
    let error = look.error.expect("it failed");
    assert!(error.contains(place.to_str().expect("a path")), "{error}");
    assert!(Arc::ptr_eq(
        &look.seen.expect("it stays"),
        &before.seen.expect("it was seen")
    ));
    std::fs::rename(&away, &place).expect("moved");
    world.service.poke_all();
    world.until(|look| look.error.is_none()).await;
    world.stop().await;
}

#[tokio::test]
async fn an_archive_of_a_damaged_mirror_is_made_from_a_new_one() {
    let world = World::start().await;
    let commit = git(world.upstream.path(), &["rev-parse", "HEAD"]);
    // With nothing to fetch it was looked through, and was whole.
    world.service.poke_all();
    world.until(|look| look.count == 2).await;
    world.damage(&git(world.upstream.path(), &["rev-parse", "HEAD:one"]));
    let archive = world
        .service
        .archive(&widget(), &commit.parse().expect("a hash"))
        .await;
    let bytes = std::fs::read(archive.expect("an archive").path).expect("a file");
    assert_eq!(unpacked(&bytes)[0].0, "one");
    assert!(world.state.path().join("widget.git.damaged").is_dir());
    world.stop().await;
}
