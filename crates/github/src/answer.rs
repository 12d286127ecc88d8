use std::time::Duration;

/// An answer, with the headers that matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
    /// Address of the next page, as given.
    pub next: Option<String>,
    /// Where it is now, of a 301.
    pub location: Option<String>,
    pub etag: Option<String>,
    /// By the server's clock, in seconds since 1970.
    pub date: Option<i64>,
    /// How many more may be asked, and when that begins anew by the server's clock.
    pub remaining: Option<u32>,
    pub reset: Option<i64>,
    pub retry_after: Option<Duration>,
}

impl Answer {
    /// `header`: the value of a header by its name in lower case.
    pub fn new<'a>(status: u16, body: Vec<u8>, header: impl Fn(&str) -> Option<&'a str>) -> Answer {
        let number = |name: &str| header(name).and_then(|value| value.trim().parse().ok());
        Answer {
            status,
            body,
            next: header("link").and_then(next),
            location: header("location").map(str::to_owned),
            etag: header("etag").map(str::to_owned),
            date: header("date").and_then(date),
            remaining: header("x-ratelimit-remaining").and_then(|value| value.trim().parse().ok()),
            reset: number("x-ratelimit-reset"),
            retry_after: header("retry-after")
                .and_then(|value| value.trim().parse().ok())
                .map(Duration::from_secs),
        }
    }

    /// Asked too much: the question is as good as not asked.
    pub fn is_limited(&self) -> bool {
        self.status == 429 || self.status == 403 && (self.remaining == Some(0) || self.retry_after.is_some())
    }
}

/// The address with `rel="next"` of a header `Link`.
fn next(link: &str) -> Option<String> {
    link.split(',').find_map(|part| {
        let (address, about) = part.trim().strip_prefix('<')?.split_once('>')?;
        let next = about.split(';').any(|word| word.trim() == r#"rel="next""#);
        next.then(|| address.to_owned())
    })
}

/// `Tue, 24 Nov 2026 10:00:00 GMT`.
fn date(text: &str) -> Option<i64> {
    let time = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(time.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &'static str)]) -> Answer {
        Answer::new(status, Vec::new(), |name| {
            headers
                .iter()
                .find(|(found, _)| *found == name)
                .map(|(_, value)| *value)
        })
    }

    #[test]
    fn the_next_page_is_where_the_link_says() {
        let link = r#"<https://a/b?page=1>; rel="prev", <https://a/b?after=x&per_page=100>; rel="next", <https://a/b?page=9>; rel="last""#;
        assert_eq!(next(link).as_deref(), Some("https://a/b?after=x&per_page=100"));
        assert_eq!(next(r#"<https://a/b?page=1>; rel="first""#), None);
        assert_eq!(next("next"), None);
    }

    #[test]
    fn times_are_the_servers() {
        let answer = answer(
            200,
            &[
                ("date", "Tue, 24 Nov 2026 10:00:01 GMT"),
                ("x-ratelimit-remaining", "7"),
                ("x-ratelimit-reset", "1795514401"),
                ("etag", "W/\"a\""),
            ],
        );
        assert_eq!(
            (answer.date, answer.remaining, answer.reset),
            (Some(1_795_514_401), Some(7), Some(1_795_514_401))
        );
        assert_eq!(answer.etag.as_deref(), Some("W/\"a\""));
        assert_eq!(date("yesterday"), None);
    }

    #[test]
    fn asking_too_much_is_told_from_not_being_allowed() {
        assert!(answer(403, &[("x-ratelimit-remaining", "0")]).is_limited());
        assert!(answer(403, &[("retry-after", "60")]).is_limited());
        assert!(answer(429, &[]).is_limited());
        assert!(!answer(403, &[("x-ratelimit-remaining", "9")]).is_limited());
        assert!(!answer(200, &[("x-ratelimit-remaining", "0")]).is_limited());
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(text in "[<>;,=\"a-z0-9 :GMT]{0,60}") {
            next(&text);
            date(&text);
        }
    }
}
