//! Who has to do with a change, and how: reviewers, and whose turn it is.

use std::collections::BTreeMap;

use ids::Timestamp;
use serde_json::Value;

use crate::change::ChangeView;
use crate::notedb::Meta;
use crate::text::Texts;

/// Why somebody gets the mails about a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Reviewer,
    Cc,
}

/// Somebody's turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attention {
    pub since: Timestamp,
    pub reason: String,
}

impl ChangeView<'_> {
    /// By email, as of [`Meta::author`]; people without an account by the address they were added with.
    pub fn reviewers<T: Texts>(self, texts: &T) -> Result<BTreeMap<String, Part>, T::Error> {
        Ok(reviewers(&steps(self, texts)?))
    }

    /// Whose turn it is, by email, as of [`Meta::author`].
    pub fn attention<T: Texts>(self, texts: &T) -> Result<BTreeMap<String, Attention>, T::Error> {
        Ok(attention(&steps(self, texts)?))
    }

    /// Empty if it has none.
    pub fn topic<T: Texts>(self, texts: &T) -> Result<String, T::Error> {
        let steps = steps(self, texts)?;
        let newest = steps.iter().rev().find_map(|meta| meta.footer("Topic"));
        Ok(newest.unwrap_or_default().to_owned())
    }
}

fn steps<T: Texts>(change: ChangeView<'_>, texts: &T) -> Result<Vec<Meta>, T::Error> {
    Ok(change.metas(texts)?.into_iter().map(|step| step.meta).collect())
}

/// Replays a change, oldest first.
fn reviewers(metas: &[Meta]) -> BTreeMap<String, Part> {
    let mut people = BTreeMap::new();
    for (key, who) in metas.iter().flat_map(Meta::footers) {
        let part = match key {
            "Reviewer" | "Reviewer-email" => Some(Part::Reviewer),
            "CC" | "CC-email" => Some(Part::Cc),
            "Removed" | "Removed-email" => None,
            _ => continue,
        };
        match part {
            Some(part) => people.insert(email(who).to_owned(), part),
            None => people.remove(email(who)),
        };
    }
    people
}

/// Replays a change, oldest first.
fn attention(metas: &[Meta]) -> BTreeMap<String, Attention> {
    let mut turns = BTreeMap::new();
    for meta in metas {
        for (_, told) in meta.footers().filter(|(key, _)| *key == "Attention") {
            let Ok(told) = serde_json::from_str::<Value>(told) else {
                continue;
            };
            let text = |key: &str| told[key].as_str().unwrap_or_default();
            let who = email(text("person_ident")).to_owned();
            match text("operation") {
                "ADD" => {
                    let (since, reason) = (meta.time, text("reason").to_owned());
                    turns.insert(who, Attention { since, reason });
                }
                "REMOVE" => drop(turns.remove(&who)),
                _ => {}
            }
        }
    }
    turns
}

/// What stands between the brackets, or all of it.
fn email(person: &str) -> &str {
    let inner = person.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    inner.map_or(person, |(email, _)| email)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metas(footers: &[&str]) -> Vec<Meta> {
        let meta = |(at, footers): (i64, &&str)| Meta {
            author: "1@srv".to_owned(),
            time: Timestamp::from_secs(at),
            text: format!("Update\n\nPatch-set: 1\n{footers}\n"),
        };
        (0..).zip(footers).map(meta).collect()
    }

    #[test]
    fn a_person_has_the_part_that_was_told_last() {
        let check = |footers: &[&str], expect: &str| {
            let people: Vec<String> = reviewers(&metas(footers))
                .into_iter()
                .map(|(who, part)| format!("{who} {part:?}"))
                .collect();
            assert_eq!(people.join("; "), expect, "{footers:?}");
        };
        check(
            &["Reviewer: A <2@srv>\nCC: B <3@srv>"],
            "2@srv Reviewer; 3@srv Cc",
        );
        check(&["CC: A <2@srv>", "Reviewer: A <2@srv>"], "2@srv Reviewer");
        check(&["CC: A <2@srv>", "Removed: A <2@srv>"], "");
        check(
            &["Reviewer-email: A <a@b.c>", "CC-email: x@y.z"],
            "a@b.c Reviewer; x@y.z Cc",
        );
        check(&["Reviewer-email: A <a@b.c>", "Removed-email: A <a@b.c>"], "");
    }

    #[test]
    fn it_is_the_turn_of_who_was_added_last_and_not_removed_since() {
        let turn = |who: &str, operation: &str| {
            format!(
                "Attention: {{\"person_ident\":\"Gerrit User \\u003c{who}\\u003e\",\"operation\":\"{operation}\",\"reason\":\"why {operation}\"}}"
            )
        };
        let steps = [
            turn("2@srv", "ADD") + "\n" + &turn("3@srv", "ADD"),
            turn("3@srv", "REMOVE"),
            turn("2@srv", "ADD"),
            "Attention: {broken".to_owned(),
        ];
        let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
        let found = attention(&metas(&steps));
        let expect = Attention {
            since: Timestamp::from_secs(2),
            reason: "why ADD".to_owned(),
        };
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [("2@srv".to_owned(), expect)]
        );
    }
}
