//! The user that commands run as, found in the system's lists.

use std::fs;

/// A user and all its groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// Its other groups.
    pub groups: Vec<u32>,
    pub home: String,
}

impl User {
    /// By name, or by number where the lists have no such name.
    pub fn find(name: &str) -> Result<User, String> {
        let read =
            |path: &str| fs::read_to_string(path).map_err(|why| format!("cannot read `{path}`: {why}"));
        let found = User::parse(name, &read("/etc/passwd")?, &read("/etc/group")?);
        found.ok_or_else(|| format!("there is no user `{name}` in `/etc/passwd`"))
    }

    /// Source: passwd(5), group(5).
    fn parse(wanted: &str, passwd: &str, group: &str) -> Option<User> {
        let rows = passwd.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, uid, gid, _, home, ..] = fields[..] else {
                return None;
            };
            Some((name, uid.parse::<u32>().ok()?, gid.parse::<u32>().ok()?, home))
        });
        let rows: Vec<_> = rows.collect();
        let by_name = rows.iter().find(|row| row.0 == wanted);
        let by_number = || rows.iter().find(|row| Ok(row.1) == wanted.parse());
        let &(name, uid, gid, home) = by_name.or_else(by_number)?;
        let groups = group.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let number = fields.get(2)?.parse().ok()?;
            let is_in = fields.get(3)?.split(',').any(|member| member == name);
            (is_in && number != gid).then_some(number)
        });
        Some(User {
            name: name.to_owned(),
            uid,
            gid,
            groups: groups.collect(),
            home: home.to_owned(),
        })
    }

    /// What tells programs who they run as.
    pub fn env(&self) -> [(String, String); 3] {
        [
            ("HOME", &self.home),
            ("USER", &self.name),
            ("LOGNAME", &self.name),
        ]
        .map(|(key, value)| (key.to_owned(), value.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_with_their_groups() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\nodd\nbuild:x:998:997::/var/lib/build:/bin/sh\n12:x:7:7::/:\n";
        let group = "root:x:0:\nbuild:x:997:build\nkvm:x:104:a,build\ndocker:x:105:builder\n";
        let build = User {
            name: "build".to_owned(),
            uid: 998,
            gid: 997,
            groups: vec![104],
            home: "/var/lib/build".to_owned(),
        };
        assert_eq!(User::parse("build", passwd, group), Some(build.clone()));
        assert_eq!(User::parse("998", passwd, group), Some(build));
        assert_eq!(User::parse("12", passwd, group).map(|user| user.uid), Some(7));
        for nobody in ["", "odd", "buil", "999"] {
            assert_eq!(User::parse(nobody, passwd, group), None, "{nobody}");
        }
    }
}
