use std::fmt;
use std::str::FromStr;

/// One build: one builder's work on one commit, for ever. Counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BuildId(pub u64);

/// One attempt at a build; `n` counts from 1. Printed `17.2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId {
    pub build: BuildId,
    pub n: u32,
}

/// One step of an attempt; `index` counts from 0. Printed `17.2.0`.
///
/// Also the name of the command on the buildlet, so that starting it twice starts it once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId {
    pub attempt: AttemptId,
    pub index: u32,
}

/// One machine lent to one person. Counted together with builds: a number is one or the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LoanId(pub u64);

/// What is no such number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is not {wanted}")]
pub struct BadNumber {
    found: String,
    wanted: &'static str,
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for LoanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.build, self.n)
    }
}

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.attempt, self.index)
    }
}

impl FromStr for BuildId {
    type Err = BadNumber;
    fn from_str(text: &str) -> Result<BuildId, BadNumber> {
        match text.parse() {
            Ok(n) if n > 0 && i64::try_from(n).is_ok() => Ok(BuildId(n)),
            _ => Err(BadNumber {
                found: text.chars().take(40).collect(),
                wanted: "a build number such as `17`",
            }),
        }
    }
}

impl FromStr for StepId {
    type Err = BadNumber;
    fn from_str(text: &str) -> Result<StepId, BadNumber> {
        let parsed = (|| {
            let mut parts = text.split('.');
            let build = parts.next()?.parse().ok()?;
            let n = parts.next()?.parse().ok()?;
            let index = parts.next()?.parse().ok()?;
            parts.next().is_none().then_some(StepId {
                attempt: AttemptId { build, n },
                index,
            })
        })();
        parsed.ok_or_else(|| BadNumber {
            found: text.chars().take(40).collect(),
            wanted: "a step number such as `17.2.0`",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_print_and_parse() {
        let step: StepId = "17.2.0".parse().unwrap();
        assert_eq!(step.to_string(), "17.2.0");
        assert_eq!(step.attempt.to_string(), "17.2");
        for bad in ["", "0", "-1", "x", "99999999999999999999", "9223372036854775808"] {
            assert!(bad.parse::<BuildId>().is_err(), "{bad}");
        }
        for bad in ["17", "17.2", "17.2.0.1", "0.1.1", "a.b.c"] {
            assert!(bad.parse::<StepId>().is_err(), "{bad}");
        }
    }
}
