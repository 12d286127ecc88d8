//! Every entity of a corpus as lines of text, in one order and one spelling: what two corpora, or two
//! programs, compare. The state of changes is as the original reads it.

use std::collections::BTreeSet;
use std::fmt::Write;

use ids::Timestamp;
use sha2::{Digest, Sha256};

use crate::apply::Corpus;
use crate::change::{ChangeView, ProjectView};
use crate::git::{CommitId, CommitView, Hash};
use crate::github::{IssueView, MilestoneOf, RepoView, UserId};
use crate::notedb::Meta;
use crate::original;
use crate::text::Texts;

/// `ENTITIES LINES sha256 SUM` of the [`dump`].
pub fn summary<T: Texts>(corpus: &Corpus, texts: &T) -> Result<String, T::Error> {
    let (mut sum, mut lines) = (Sha256::new(), 0_u64);
    dump(corpus, texts, &mut |line| {
        sum.update(line.as_bytes());
        sum.update(b"\n");
        lines += 1;
    })?;
    let mut hex = String::new();
    sum.finalize()
        .iter()
        .for_each(|byte| write!(hex, "{byte:02x}").expect("a string takes all"));
    Ok(format!("{lines} lines sha256 {hex}"))
}

/// Gives every line, without its end, to `line`.
pub fn dump<T: Texts>(corpus: &Corpus, texts: &T, line: &mut impl FnMut(&str)) -> Result<(), T::Error> {
    let mut dump = Dump {
        corpus,
        texts,
        line,
        commits: BTreeSet::new(),
    };
    corpus.repos().try_for_each(|repo| dump.repo(repo))?;
    corpus.projects().try_for_each(|project| dump.project(project))?;
    dump.commits()
}

struct Dump<'a, T, L> {
    corpus: &'a Corpus,
    texts: &'a T,
    line: &'a mut L,
    /// Those that anything before named.
    commits: BTreeSet<(Hash, CommitId)>,
}

impl<T: Texts, L: FnMut(&str)> Dump<'_, T, L> {
    fn say(&mut self, words: &[&str]) {
        let words: Vec<String> = words.iter().map(|word| quoted(word.as_bytes())).collect();
        (self.line)(&words.join(" "));
    }

    fn repo(&mut self, repo: RepoView<'_>) -> Result<(), T::Error> {
        let empty =
            repo.issues().next().is_none() && repo.labels().is_empty() && repo.milestones().is_empty();
        if empty {
            return Ok(());
        }
        self.say(&["repo", repo.owner(), repo.name()]);
        for (id, label) in repo.labels() {
            self.say(&["label", &id.to_string(), &label.name]);
        }
        for (id, milestone) in repo.milestones() {
            let (number, closed) = (milestone.number.to_string(), milestone.closed.to_string());
            self.say(&["milestone", &id.to_string(), &milestone.title, &number, &closed]);
        }
        repo.issues().try_for_each(|issue| self.issue(issue))
    }

    fn user(&self, user: Option<UserId>) -> String {
        user.map_or_else(
            || "-".to_owned(),
            |user| format!("{}:{}", user.0, self.corpus.login(user).unwrap_or_default()),
        )
    }

    fn issue(&mut self, issue: IssueView<'_>) -> Result<(), T::Error> {
        let number = issue.number.to_string();
        if issue.not_exist {
            self.say(&["gone", &number]);
            return Ok(());
        }
        let flags = [issue.closed, issue.locked, issue.pull_request].map(|flag| if flag { '+' } else { '-' });
        let assignees: Vec<String> = issue
            .assignees
            .iter()
            .map(|user| self.user(Some(*user)))
            .collect();
        let labels: Vec<String> = issue.labels.iter().map(i64::to_string).collect();
        let milestone = match issue.milestone {
            MilestoneOf::Unknown => "?".to_owned(),
            MilestoneOf::None => "-".to_owned(),
            MilestoneOf::Id(id) => id.to_string(),
        };
        self.say(&[
            "issue",
            &number,
            &issue.id.to_string(),
            &flags.iter().collect::<String>(),
            &self.user(issue.user),
            &assignees.join(","),
            &time(issue.created),
            &time(issue.updated),
            &time(issue.closed_at),
            &self.user(issue.closed_by),
            &issue.title,
            &issue.body(self.texts)?,
            &milestone,
            &labels.join(","),
            &time(issue.last_modified()),
        ]);
        for comment in issue.comments_by_time() {
            self.say(&[
                "comment",
                &comment.id.to_string(),
                &self.user(comment.user),
                &time(comment.created),
                &time(comment.updated),
                &self.texts.text(comment.body)?,
            ]);
        }
        for event in issue.events_by_time() {
            let Some(told) = event.details(self.texts)? else {
                continue;
            };
            let user = |id: i64| self.user((id != 0).then_some(UserId(id)));
            let commit = told.commit.unwrap_or_default();
            let team = told
                .team_reviewer
                .map(|team| format!("{}:{}", team.id, self.corpus.team(team.id).unwrap_or_default()));
            let dismissed = told
                .dismissed_review
                .map(|told| format!("{}:{}:{}", told.review_id, told.state, told.dismissal_message));
            let words = [
                "event",
                &event.id.to_string(),
                &told.event_type,
                &self.user(event.actor),
                &time(event.created),
                &told.label.unwrap_or_default().name,
                &user(told.assignee_id),
                &user(told.assigner_id),
                &told.milestone.unwrap_or_default().title,
                &told.rename_from,
                &told.rename_to,
                &commit.commit_id,
                &user(told.reviewer_id),
                &user(told.review_requester_id),
                &team.unwrap_or_default(),
                &dismissed.unwrap_or_default(),
                &String::from_utf8_lossy(&told.other_json),
            ];
            self.say(&words);
        }
        // The original gives reviews of pull requests alone.
        for review in issue.reviews_by_time().into_iter().filter(|_| issue.pull_request) {
            let Some(told) = review.details(self.texts)? else {
                continue;
            };
            self.say(&[
                "review",
                &review.id.to_string(),
                &self.user(review.actor),
                &time(review.created),
                &told.body,
                &told.state,
                &told.commit_id,
                &told.actor_association,
                &String::from_utf8_lossy(&told.other_json),
            ]);
        }
        Ok(())
    }

    fn project(&mut self, project: ProjectView<'_>) -> Result<(), T::Error> {
        self.say(&["project", project.key]);
        for (name, commit) in project.refs() {
            self.say(&["ref", name, &commit.hash().to_string()]);
            self.commits.insert((commit.hash(), commit.id));
        }
        project.changes().try_for_each(|change| self.change(change))
    }

    fn change(&mut self, change: ChangeView<'_>) -> Result<(), T::Error> {
        let steps = change.metas(self.texts)?;
        let texts: Vec<Vec<u8>> = steps
            .iter()
            .map(|step| step.meta.text.clone().into_bytes())
            .collect();
        let state = original::state(&texts);
        let Some(commit) = change.patch_set(change.last_told) else {
            return Ok(());
        };
        // The original does not look at what it is written in.
        let message = commit
            .text(self.texts)?
            .map(|text| text.message)
            .unwrap_or_default();
        let message = String::from_utf8_lossy(&message);
        let subject = message
            .split("\n\n")
            .next()
            .unwrap_or_default()
            .replace('\n', " ");
        let id = original::line_value(message.as_bytes(), "Change-Id:").map_or(&b""[..], |(id, _)| id);
        let id = if id.len() == 41 && id.starts_with(b"I") {
            id
        } else {
            b""
        };
        let bare = (change.project.key == "go.googlesource.com/go").then_some(("golang", "go"));
        let refs = self
            .corpus
            .resolve(self.corpus.code.git.issue_refs(commit.id), bare);
        let refs: Vec<String> = refs
            .iter()
            .map(|(owner, repo, n)| format!("{owner}/{repo}#{n}"))
            .collect();
        let owner = change
            .patch_set(1)
            .map_or_else(String::new, |first| first.author().0.into_owned());
        self.say(&[
            "change",
            &change.number.to_string(),
            &change.last_told.to_string(),
            state.status,
            &state.private.to_string(),
            &state.work_in_progress.to_string(),
            &state.branch,
            &change.created.as_secs().to_string(),
            &change.owner_id().map_or("-1".to_owned(), |id| id.to_string()),
            &owner,
            &subject,
            &String::from_utf8_lossy(id),
            &commit.hash().to_string(),
            &refs.join(","),
        ]);
        for (number, id) in change.patch_sets.range(..=change.last_told) {
            let commit = change.view(*id);
            self.say(&["patch-set", &number.to_string(), &commit.hash().to_string()]);
            self.commits.insert((commit.hash(), commit.id));
        }
        for (at, step) in steps.iter().enumerate() {
            let hash = step.commit.hash().to_string();
            let tag =
                original::line_value(original::footers(&texts[at]), "Tag: ").map_or(&b""[..], |(tag, _)| tag);
            self.say(&[
                "meta",
                &hash,
                &String::from_utf8_lossy(tag),
                &original::hashtags(&texts[..=at]),
            ]);
            self.commits.insert((step.commit.hash(), step.commit.id));
        }
        for (step, text) in steps.iter().zip(&texts) {
            if let Some((version, said)) = original::message(text) {
                let seconds = step.meta.time.as_secs().to_string();
                let author = step.commit.author().0.into_owned();
                self.say(&[
                    "message",
                    &version.to_string(),
                    &seconds,
                    &author,
                    &String::from_utf8_lossy(said),
                ]);
            }
        }
        self.votes(change, steps.into_iter().map(|step| step.meta).collect())
    }

    fn votes(&mut self, change: ChangeView<'_>, metas: Vec<Meta>) -> Result<(), T::Error> {
        let mut failure = None;
        let votes = original::votes(&metas, |hash| {
            let commit = change.project.corpus.commit(Hash::parse(hash.as_bytes())?)?;
            commit.text(self.texts).unwrap_or_else(|error| {
                failure = Some(error);
                None
            })
        });
        if let Some(failure) = failure {
            return Err(failure);
        }
        match votes {
            Ok(votes) => {
                for (label, voters) in votes {
                    for (voter, value) in voters {
                        self.say(&["vote", &label, &voter, &value.to_string()]);
                    }
                }
            }
            Err(_) => self.say(&["votes", "unknown"]),
        }
        Ok(())
    }

    /// The commits that were named, and all that they come from.
    fn commits(&mut self) -> Result<(), T::Error> {
        let mut next: Vec<CommitId> = self.commits.iter().map(|(_, id)| *id).collect();
        while let Some(id) = next.pop() {
            for parent in self.corpus.code.git.parents(id) {
                if self
                    .commits
                    .insert((self.corpus.code.git.row(*parent).hash, *parent))
                {
                    next.push(*parent);
                }
            }
        }
        for (_, id) in std::mem::take(&mut self.commits) {
            self.commit(CommitView {
                corpus: self.corpus,
                id,
            })?;
        }
        Ok(())
    }

    fn commit(&mut self, commit: CommitView<'_>) -> Result<(), T::Error> {
        let hash = commit.hash().to_string();
        let Some(text) = commit.text(self.texts)? else {
            self.say(&["named", &hash]);
            return Ok(());
        };
        let row = self.corpus.code.git.row(commit.id);
        let parents: Vec<String> = commit.parents().map(|parent| parent.hash().to_string()).collect();
        let mut line = format!(
            "commit {hash} {} {} {} {} {} {} {} {} {}",
            text.tree.map_or("-".to_owned(), |tree| tree.to_string()),
            quoted(parents.join(",").as_bytes()),
            quoted(self.corpus.code.names.bytes(row.author)),
            row.author_time,
            row.author_zone,
            quoted(self.corpus.code.names.bytes(row.committer)),
            row.commit_time,
            row.commit_zone,
            quoted(&text.message),
        );
        for file in &text.files {
            write!(
                line,
                " {} {} {} {}",
                quoted(file.name.as_bytes()),
                file.added,
                file.deleted,
                file.binary
            )
            .expect("a string takes all");
        }
        (self.line)(&line);
        Ok(())
    }
}

/// Microseconds since 1970; `-` if it is not known.
fn time(time: Option<Timestamp>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| time.0.to_string())
}

/// A word without blanks: all bytes but letters, digits and a few marks as `%XX`; `%` if empty.
fn quoted(word: &[u8]) -> String {
    let mut quoted = String::with_capacity(word.len());
    for byte in word {
        match byte {
            b'!'..=b'$' | b'&'..=b'~' => quoted.push(char::from(*byte)),
            _ => write!(quoted, "%{byte:02X}").expect("a string takes all"),
        }
    }
    if quoted.is_empty() {
        quoted.push('%');
    }
    quoted
}
