//! What `/status` says.

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
}

impl Status {
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
        assert!(!go.resumable());
        let ours = r#"{"Version":27,"Burrow":"0.1.0","Features":["x","exec2"],"Instance":"ab","More":1}"#;
        let ours: Status = serde_json::from_str(ours).unwrap();
        assert_eq!(ours.instance.as_deref(), Some("ab"));
        assert!(ours.resumable() && ours.quarantined.is_none());
        let stuck: Status =
            serde_json::from_str(r#"{"Version":27,"Quarantined":"a file is in use"}"#).unwrap();
        assert_eq!(stuck.quarantined.as_deref(), Some("a file is in use"));
        for bad in ["", "{}", "[]x", "{\"Version\":-1}", "{\"Version\":\"27\"}"] {
            assert!(serde_json::from_str::<Status>(bad).is_err(), "{bad}");
        }
    }
}
