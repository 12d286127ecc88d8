use std::path::Path;

use git::{Git, GitError, Upstream};

/// A project of a server, and a bare repository of ours with what was fetched of it.
///
/// What was fetched is kept, also when the server has moved on: the log speaks of it for ever.
#[derive(Debug)]
pub struct Remote {
    git: Git,
    upstream: Upstream,
}

impl Remote {
    /// Opens the repository in `dir`, or makes an empty one. `url`: anything that git fetches from.
    /// `cookies`: a file as `.gitcookies` is.
    pub async fn open(dir: &Path, url: &str, cookies: Option<&str>) -> Result<Remote, GitError> {
        std::fs::create_dir_all(dir).map_err(|source| GitError::Io {
            what: "make",
            path: dir.to_owned(),
            source,
        })?;
        let git = Git::new(dir);
        if !dir.join("HEAD").exists() {
            git.output(&["init", "--quiet", "--bare"]).await?;
        }
        if let Some(cookies) = cookies {
            git.output(&["config", "http.cookieFile", cookies]).await?;
        }
        Ok(Remote {
            git,
            upstream: Upstream::new(url),
        })
    }

    pub fn dir(&self) -> &Path {
        self.git.dir()
    }

    /// What [`crate::refs::listing`] reads.
    pub async fn list(&self) -> Result<Vec<u8>, GitError> {
        let listed = self.git.upstream(&self.upstream, "ls-remote", &["--quiet"], &[]);
        Ok(listed.await?.out)
    }

    /// Fetches refs by name: a server need not give what is asked for by hash. Fails if one of them is
    /// gone; and what comes is what they are at now, which may be more than was listed.
    pub async fn fetch(&self, names: &[&str]) -> Result<(), GitError> {
        // Objects need a name here, for else git asks for them again the next time. With the `=` the
        // names `a` and `a/b` can both be, though the server had one after the other.
        let own = |name: &&str| format!("+{name}:refs/fetched/{name}/=");
        let specs: Vec<String> = names
            .iter()
            .filter(|name| !name.ends_with("^{}"))
            .map(own)
            .collect();
        if specs.is_empty() {
            return Ok(());
        }
        let options = ["--progress", "--no-tags", "--no-write-fetch-head"];
        let specs: Vec<&str> = specs.iter().map(String::as_str).collect();
        let fetched = self.git.upstream(&self.upstream, "fetch", &options, &specs);
        fetched.await.map(drop)
    }
}
