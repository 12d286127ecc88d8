//! A program to begin with: says what is open, then what changes.
//!
//! ```text
//! cargo run -p godata --example watch -- http://127.0.0.1:6343/logs /tmp/copy
//! ```

use godata::Live;
use godata::corpus::{Corpus, Texts};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [url, folder] = &args[..] else {
        anyhow::bail!("usage: watch URL FOLDER");
    };
    let mut data = godata::live(url, folder).await?;
    for line in open(&data)? {
        println!("{line}");
    }
    loop {
        for line in changed(&mut data).await? {
            println!("{line}");
        }
    }
}

/// The newest open issues of each repository, and the open changes of each project.
pub fn open(data: &Live) -> anyhow::Result<Vec<String>> {
    let now = data.now();
    let mut lines = Vec::new();
    for repo in now.corpus.repos() {
        let mut open: Vec<_> = repo
            .issues()
            .filter(|issue| !issue.closed && !issue.not_exist)
            .collect();
        open.sort_by_key(|issue| std::cmp::Reverse(issue.created));
        for issue in open.iter().take(5) {
            let author = issue.user.and_then(|user| now.corpus.login(user));
            let author = author.unwrap_or_else(|| "somebody".into());
            // Long texts are read from the log when they are wanted.
            let words = now.texts.text(issue.body)?.split_whitespace().count();
            lines.push(format!(
                "{} by {author}, {words} words",
                headline(&now.corpus, repo.owner(), repo.name(), issue.number)
            ));
        }
    }
    for project in now.corpus.projects() {
        for change in project.open_changes().take(5) {
            let (subject, votes) = (change.subject(&now.texts)?, change.votes(&now.texts)?);
            lines.push(format!(
                "{}~{}: {subject}, {} labels voted on",
                project.key,
                change.number,
                votes.len()
            ));
        }
    }
    Ok(lines)
}

/// Waits for an update and says what is another than before.
pub async fn changed(data: &mut Live) -> anyhow::Result<Vec<String>> {
    let update = data.next().await?;
    let corpus = &update.now.corpus;
    let issues = update.changed.issues.iter();
    let issues = issues.map(|issue| headline(corpus, &issue.owner, &issue.repo, issue.number));
    let changes = update.changed.changes.iter();
    let changes = changes.map(|change| format!("{}~{}", change.project, change.number));
    Ok(issues.chain(changes).collect())
}

fn headline(corpus: &Corpus, owner: &str, name: &str, number: i32) -> String {
    let issue = corpus.repo(owner, name).and_then(|repo| repo.issue(number));
    let title = issue.map_or("?", |issue| &issue.issue().title);
    format!("{owner}/{name}#{number}: {title}")
}
