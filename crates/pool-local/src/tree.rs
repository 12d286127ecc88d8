use std::io;
use std::path::Path;

/// Removes a folder with all in it; one that is missing is fine. Read-only folders in it, as module
/// caches are, do not stop it. Blocks.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            make_writable(path)?;
            std::fs::remove_dir_all(path)
        }
        result => result,
    }
}

/// Gives the owner all rights on every folder of the tree, without following links.
fn make_writable(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    }
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_writable(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn read_only_trees_go_and_what_links_point_to_stays() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("tree");
        let kept = folder.path().join("kept");
        std::fs::create_dir_all(tree.join("a/b")).unwrap();
        std::fs::create_dir(&kept).unwrap();
        std::fs::write(tree.join("a/b/file"), "x").unwrap();
        std::os::unix::fs::symlink(&kept, tree.join("a/link")).unwrap();
        for dir in ["a/b", "a"] {
            std::fs::set_permissions(tree.join(dir), std::fs::Permissions::from_mode(0o500)).unwrap();
        }
        make_writable(&tree).unwrap();
        assert_eq!(
            std::fs::metadata(tree.join("a/b")).unwrap().permissions().mode() & 0o777,
            0o700
        );
        assert_ne!(
            std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777,
            0o700
        );
        std::fs::set_permissions(tree.join("a"), std::fs::Permissions::from_mode(0o500)).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists() && kept.exists());
        remove_tree(&tree).unwrap();
    }
}
