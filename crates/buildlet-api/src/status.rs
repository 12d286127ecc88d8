//! What `/status` says.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A buildlet's word on itself. Unknown fields are ignored, as the original does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The original's number; ours report 27.
    #[serde(rename = "Version")]
    pub version: u32,
    /// burrow's own version. Go's buildlets have none.
    #[serde(rename = "Burrow", default, skip_serializing_if = "Option::is_none")]
    pub burrow: Option<String>,
    /// Additions to the original that this buildlet has, such as `exec2`.
    #[serde(rename = "Features", default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// Differs at every start of the buildlet.
    #[serde(rename = "Instance", default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Why its working directory could not be cleaned; it takes no work until it could be.
    #[serde(rename = "Quarantined", default, skip_serializing_if = "Option::is_none")]
    pub quarantined: Option<String>,
    /// What its machine can keep commands within, by name.
    #[serde(rename = "Containment", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub containment: BTreeMap<String, Means>,
}

/// How something is done on a machine, or why it cannot be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Means {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cannot: Option<String>,
}

impl Status {
    /// Whether commands are kept within limits that are asked for, or refused.
    pub fn limits(&self) -> bool {
        self.features.iter().any(|feature| feature == "limits")
    }

    /// What the machine cannot do and why, for people; empty: it says nothing of the kind.
    pub fn cannot(&self) -> String {
        let cannot = |(name, means): (&String, &Means)| Some(format!("{name} ({})", means.cannot.as_ref()?));
        self.containment
            .iter()
            .filter_map(cannot)
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Whether commands go on when the connection ends and can be followed again.
    pub fn resumable(&self) -> bool {
        self.features.iter().any(|feature| feature == "exec2")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_of_go_and_of_burrow_are_read() {
        let go: Status = serde_json::from_str("{\"Version\":27}\n").unwrap();
        assert_eq!(
            go,
            Status {
                version: 27,
                ..Status::default()
            }
        );
        assert!(!go.resumable() && !go.limits());
        let ours = r#"{"Version":27,"Burrow":"0.1.0","Features":["x","exec2"],"Instance":"ab","More":1}"#;
        let ours: Status = serde_json::from_str(ours).unwrap();
        assert_eq!(ours.instance.as_deref(), Some("ab"));
        assert!(ours.resumable() && ours.quarantined.is_none());
        let stuck: Status =
            serde_json::from_str(r#"{"Version":27,"Quarantined":"a file is in use"}"#).unwrap();
        assert_eq!(stuck.quarantined.as_deref(), Some("a file is in use"));
        assert_eq!(ours.cannot(), "");
        let told = r#"{"Version":27,"Containment":{"tree":{"by":"x"},"memory":{"cannot":"no group"}}}"#;
        let told: Status = serde_json::from_str(told).unwrap();
        assert_eq!(told.cannot(), "memory (no group)");
        for bad in ["", "{}", "[]x", "{\"Version\":-1}", "{\"Version\":\"27\"}"] {
            assert!(serde_json::from_str::<Status>(bad).is_err(), "{bad}");
        }
    }
}
