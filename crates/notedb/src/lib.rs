//! The grammar of the messages in which Gerrit tells the steps of a change: what is footers and what
//! was said, and the one line that is hard to read, a vote.
//!
//! Pure. `gerrit` makes steps of it, the corpus what it asks for; neither reads a vote on its own.
//!
//! Only the last paragraph is footers: what people say often looks like them.
//!
//! Source: Gerrit's `ChangeNotesParser`, `ChangeNoteFooters`; seen with 2.15 to 3.10.

/// What was said, and the footers: what stands between the first paragraph and the last, and the last.
/// `None`: nothing was said, or there are no footers.
pub fn split(text: &str) -> (Option<&str>, &str) {
    let text = text.trim_end_matches('\n');
    let (Some(first), Some(last)) = (text.find("\n\n"), text.rfind("\n\n")) else {
        return (None, "");
    };
    (text.get(first + 2..last), &text[last + 2..])
}

/// The email in `Gerrit User 5 <5@SERVER>`; `None` if there is none.
pub fn email(person: &str) -> Option<&str> {
    let email = person.split_once('<')?.1.split_once('>')?.0;
    Some(email).filter(|email| !email.is_empty())
}

/// `NAME=VALUE[, UUID][ PERSON[,REAL PERSON]][:"TAG"]`, or `-NAME…`: withdrawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelLine<'a> {
    pub label: &'a str,
    /// 0: withdrawn.
    pub value: i16,
    /// The server names each vote, as it does since 3.5, and says which are carried over.
    pub has_uuid: bool,
    /// Emails of who voted, if that is not the author of the step, and of who really did for him.
    pub voter: Option<&'a str>,
    pub real_voter: Option<&'a str>,
}

impl<'a> LabelLine<'a> {
    /// `line`: the value of a footer `Label` or `Copied-Label`. `None`: it is none.
    pub fn parse(line: &'a str) -> Option<LabelLine<'a>> {
        let end = line.find([' ', ',']).unwrap_or(line.len());
        let (vote, rest) = line.split_at(end);
        let (label, value) = match vote.strip_prefix('-') {
            Some(label) => (label, 0),
            None => {
                let (label, value) = vote.split_once('=')?;
                (label, value.parse().ok()?)
            }
        };
        if label.is_empty() {
            return None;
        }
        // What stands in quotes behind the persons is the tag of the vote that was carried over.
        let persons = rest.split_once(":\"").map_or(rest, |(persons, _)| persons);
        let mut emails = persons.split_inclusive('>').filter_map(email);
        Some(LabelLine {
            label,
            value,
            has_uuid: rest.starts_with(", "),
            voter: emails.next(),
            real_voter: emails.next(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Label, value, whether there is a UUID, voter, real voter.
    type Read = (
        &'static str,
        i16,
        bool,
        Option<&'static str>,
        Option<&'static str>,
    );

    #[test]
    fn a_vote_is_read_as_old_and_new_servers_write_it() {
        let check = |line: &'static str, expect: Option<Read>| {
            let found = LabelLine::parse(line);
            let found = found.map(|l| (l.label, l.value, l.has_uuid, l.voter, l.real_voter));
            assert_eq!(found, expect, "{line}");
        };
        check("CR=+2", Some(("CR", 2, false, None, None)));
        check("CR=-1 G <6@s>", Some(("CR", -1, false, Some("6@s"), None)));
        check("CR=+2, 0123 G <6@s>", Some(("CR", 2, true, Some("6@s"), None)));
        check("CR=0, 0123", Some(("CR", 0, true, None, None)));
        check("-CR", Some(("CR", 0, false, None, None)));
        check("-CR G <6@s>", Some(("CR", 0, false, Some("6@s"), None)));
        check(
            "CR=+1, 0123 G <6@s>,H <7@s>:\"tag <8@s>\"",
            Some(("CR", 1, true, Some("6@s"), Some("7@s"))),
        );
        for odd in ["", "CR", "=1", "-", "CR=x", "CR=+"] {
            check(odd, None);
        }
    }

    #[test]
    fn footers_are_the_last_paragraph_alone() {
        assert_eq!(split("a\n\nb\n\nc\nd\n"), (Some("b"), "c\nd"));
        assert_eq!(split("a\n\nc\n"), (None, "c"));
        assert_eq!(split("a\n"), (None, ""));
        assert_eq!(email("A <>"), None);
    }
}
