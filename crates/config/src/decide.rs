use ids::{BranchName, BuilderName, RepoName};

use crate::checked::{Builder, Config, Glob, Policy, Repo, Rule};

impl Glob {
    /// Whether the pattern holds for `text`, a leading `!` counted in.
    pub fn matches(&self, text: &str) -> bool {
        match self.0.strip_prefix('!') {
            Some(pattern) => !matches(pattern, text),
            None => matches(&self.0, text),
        }
    }

    pub(crate) fn negated(&self) -> bool {
        self.0.starts_with('!')
    }

    /// Without wildcard and negation: it means one name.
    pub(crate) fn literal(&self) -> Option<&str> {
        (!self.negated() && !self.0.contains(['*', '?'])).then_some(self.0.as_str())
    }
}

impl Policy {
    /// Whether a commit of this branch is built: the last rule that matches decides, none means no.
    pub fn decides(&self, repo: &RepoName, branch: &BranchName) -> bool {
        self.rules
            .iter()
            .rev()
            .find(|rule| {
                list_matches(&rule.repo, repo.as_str()) && list_matches(&rule.branch, branch.as_str())
            })
            .is_some_and(|rule| rule.build)
    }

    /// The policy that says yes to everything: what a builder without `builds` has.
    pub fn everything() -> Policy {
        Policy {
            rules: vec![Rule {
                repo: Vec::new(),
                branch: Vec::new(),
                build: true,
            }],
        }
    }
}

impl Repo {
    /// Whether `branch` is one that the farm follows. `default_branch` is the upstream's `HEAD`,
    /// if it has one; it matters only when `branches` is empty.
    pub fn tracks(&self, branch: &BranchName, default_branch: Option<&BranchName>) -> bool {
        if self.branches.is_empty() {
            default_branch == Some(branch)
        } else {
            list_matches(&self.branches, branch.as_str())
        }
    }

    /// The address as it may be shown: without a user name and password in it.
    pub fn shown_url(&self) -> String {
        crate::mask::shown_url(&self.url)
    }
}

impl Config {
    /// The builders whose policy says yes to this branch, whether or not it is tracked; by name.
    pub fn builders_for(&self, repo: &RepoName, branch: &BranchName) -> Vec<&BuilderName> {
        self.builders
            .iter()
            .filter(|(_, builder)| builder.builds.decides(repo, branch))
            .map(|(name, _)| name)
            .collect()
    }
}

/// Whether some tracked branch of `repo` could be built by `builder`.
///
/// Exact when the repository's branches are names. With wildcards on both sides it may say yes
/// where no is true, never the other way: it is for telling a mistake, which must be certain.
pub(crate) fn can_build(builder: &Builder, name: &RepoName, repo: &Repo) -> bool {
    let literals: Vec<&str> = repo.branches.iter().filter_map(Glob::literal).collect();
    if !literals.is_empty() && literals.len() == repo.branches.len() {
        return literals
            .iter()
            .filter_map(|branch| BranchName::parse(branch).ok())
            .any(|branch| builder.builds.decides(name, &branch));
    }
    for rule in builder.builds.rules.iter().rev() {
        if !list_matches(&rule.repo, name.as_str()) {
            continue;
        }
        let all = rule.branch.is_empty() || rule.branch == repo.branches || list_is_all(&rule.branch);
        if rule.build && (all || lists_may_meet(&rule.branch, &repo.branches)) {
            return true;
        }
        if !rule.build && all {
            return false;
        }
    }
    false
}

/// Whether a list of patterns holds: every negated one must, and one of the others if there are
/// any. The empty list always does.
fn list_matches(globs: &[Glob], text: &str) -> bool {
    let (negated, positive): (Vec<&Glob>, Vec<&Glob>) = globs.iter().partition(|glob| glob.negated());
    negated.iter().all(|glob| glob.matches(text))
        && (positive.is_empty() || positive.iter().any(|glob| glob.matches(text)))
}

fn list_is_all(globs: &[Glob]) -> bool {
    globs.iter().any(|glob| glob.0 == "*" || glob.0 == "**") && !globs.iter().any(Glob::negated)
}

fn lists_may_meet(one: &[Glob], other: &[Glob]) -> bool {
    let positive = |globs: &[Glob]| -> Vec<String> {
        let found: Vec<String> = globs
            .iter()
            .filter(|glob| !glob.negated())
            .map(|glob| glob.0.clone())
            .collect();
        if found.is_empty() {
            vec!["*".to_owned()]
        } else {
            found
        }
    };
    let other_list = positive(other);
    positive(one)
        .iter()
        .any(|a| other_list.iter().any(|b| may_meet(a, b)))
}

/// `*` any run, `?` any one character. Linear but for one point of return: no pattern is slow.
fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut p, mut t) = (0, 0);
    let mut last_star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                last_star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == '?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match last_star {
                Some((star, taken)) => {
                    last_star = Some((star, taken + 1));
                    p = star + 1;
                    t = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Whether some text matches both patterns. `meet[i][j]`: whether `a[i..]` and `b[j..]` can.
fn may_meet(a: &str, b: &str) -> bool {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut meet = vec![vec![false; b.len() + 1]; a.len() + 1];
    for i in (0..=a.len()).rev() {
        for j in (0..=b.len()).rev() {
            meet[i][j] = match (a.get(i), b.get(j)) {
                (None, None) => true,
                (Some('*'), None) => meet[i + 1][j],
                (None, Some('*')) => meet[i][j + 1],
                (Some('*'), Some(_)) | (Some(_), Some('*')) => {
                    let skip_a = a[i] == '*' && (meet[i + 1][j] || meet[i][j + 1]);
                    let skip_b = b[j] == '*' && (meet[i][j + 1] || meet[i + 1][j]);
                    skip_a || skip_b
                }
                (Some(x), Some(y)) => (x == y || *x == '?' || *y == '?') && meet[i + 1][j + 1],
                (Some(_), None) | (None, Some(_)) => false,
            };
        }
    }
    meet[0][0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn globs(list: &[&str]) -> Vec<Glob> {
        list.iter().map(|text| Glob((*text).to_owned())).collect()
    }

    #[test]
    fn globs_match_runs_and_single_characters() {
        for (pattern, text, expected) in [
            ("main", "main", true),
            ("main", "mainly", false),
            ("release/*", "release/1.2", true),
            ("release/*", "release/1/2", true),
            ("release/*", "release", false),
            ("*", "", true),
            ("*-longtest", "linux-amd64-longtest", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("v?", "v1", true),
            ("v?", "v12", false),
            ("?", "ü", true),
            ("!go", "net", true),
            ("!go", "go", false),
            ("!release/*", "release/1", false),
        ] {
            assert_eq!(
                Glob(pattern.to_owned()).matches(text),
                expected,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn a_pattern_of_many_stars_is_not_slow() {
        let pattern = "*a".repeat(50) + "b";
        assert!(!Glob(pattern).matches(&"a".repeat(5000)));
    }

    #[test]
    fn negated_patterns_of_a_list_take_away() {
        for (list, text, expected) in [
            (&["release/*", "!release/old"][..], "release/1", true),
            (&["release/*", "!release/old"], "release/old", false),
            (&["release/*", "!release/old"], "main", false),
            (&["!go", "!net"], "widget", true),
            (&["!go", "!net"], "net", false),
            (&[], "anything", true),
        ] {
            assert_eq!(list_matches(&globs(list), text), expected, "{list:?} {text}");
        }
    }

    #[test]
    fn the_last_matching_rule_decides() {
        let rule = |repo: &[&str], branch: &[&str], build| Rule {
            repo: globs(repo),
            branch: globs(branch),
            build,
        };
        let policy = Policy {
            rules: vec![
                rule(&[], &[], true),
                rule(&["old"], &[], false),
                rule(&["old"], &["rescue"], true),
            ],
        };
        let decides = |repo: &str, branch: &str| {
            policy.decides(
                &RepoName::parse(repo).unwrap(),
                &BranchName::parse(branch).unwrap(),
            )
        };
        assert!(decides("widget", "main"));
        assert!(!decides("old", "main"));
        assert!(decides("old", "rescue"));
        let none = Policy::default();
        assert!(!none.decides(&RepoName::parse("a").unwrap(), &BranchName::parse("b").unwrap()));
    }

    #[test]
    fn patterns_meet_when_one_text_fits_both() {
        for (a, b, expected) in [
            ("main", "main", true),
            ("main", "dev", false),
            ("release/*", "release/1.?", true),
            ("release/*", "*", true),
            ("a*c", "*b*", true),
            ("a*", "b*", false),
            ("*a", "*b", false),
            ("?", "", false),
            ("*", "", true),
        ] {
            assert_eq!(may_meet(a, b), expected, "{a} {b}");
            assert_eq!(may_meet(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn without_patterns_only_the_default_branch_is_tracked() {
        let main = BranchName::parse("main").unwrap();
        let dev = BranchName::parse("dev").unwrap();
        let mut repo = Repo {
            url: "https://u:p@h/x".to_owned(),
            branches: Vec::new(),
            recipe: ids::RecipeName::parse("r").unwrap(),
            poll: std::time::Duration::from_secs(30),
            backfill: 10,
        };
        assert!(repo.tracks(&main, Some(&main)));
        assert!(!repo.tracks(&dev, Some(&main)));
        assert!(!repo.tracks(&main, None));
        repo.branches = globs(&["d*"]);
        assert!(repo.tracks(&dev, Some(&main)));
        assert!(!repo.tracks(&main, Some(&main)));
        assert_eq!(repo.shown_url(), "https://…@h/x");
    }
}
