//! The operator's record of what is a resource's own: the annotation `toolzz.com.br/ledger`, copied to the status.

use serde::{Deserialize, Serialize};

use crate::api::{CredentialId, Row, SecretId};

/// The version written in front of every ledger.
const VERSION: u32 = 1;

/// Which credential is this resource's, which material it shall use, and what that material is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ledger {
    /// The uid of the resource the record was made for.
    pub uid: String,
    /// The credential that is this resource's own.
    pub id: CredentialId,
    /// The material it shall use.
    pub secret_id: SecretId,
    /// The keyed digest of that material.
    pub digest: String,
    /// The credential the material came with: its own on a create, another, inactive one after a rotation.
    pub staged_as: CredentialId,
}

/// A ledger as it stands on a resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Recorded {
    /// No ledger.
    Nothing,
    /// Made by this installation for this very resource.
    Own(Ledger),
    /// Made by this installation for an earlier resource of the same namespace and name (a backup restored, a
    /// manifest applied again); `held` when another resource holds that credential now.
    Former {
        /// What was recorded.
        ledger: Ledger,
        /// Whether another resource holds the credential.
        held: bool,
    },
    /// There is one, but it does not verify: edited, or of another installation. Counts as none.
    Forged,
}

impl Recorded {
    /// The ledger, if it is this very resource's.
    pub fn own(&self) -> Option<&Ledger> {
        match self {
            Self::Own(ledger) => Some(ledger),
            _ => None,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    v: u32,
    uid: String,
    id: CredentialId,
    secret_id: SecretId,
    digest: String,
    staged_as: CredentialId,
    mac: String,
}

/// Makes a message authentication code (lowercase hex) over parts. The key is the installation's; the caller has it.
pub type Mac<'a> = &'a dyn Fn(&[&[u8]]) -> String;

impl Ledger {
    /// The ledger of a resource whose material was staged as `row`: its first credential, or new material for the
    /// one that `base` records.
    pub fn of_staged(uid: &str, base: Option<&Self>, row: &Row, digest: &str) -> Self {
        Self {
            uid: uid.to_owned(),
            id: base.map_or_else(|| row.id.clone(), |base| base.id.clone()),
            secret_id: row.fields.secret_id.clone(),
            digest: digest.to_owned(),
            staged_as: row.id.clone(),
        }
    }

    fn mac(&self, namespace: &str, name: &str, mac: Mac<'_>) -> String {
        mac(&[
            b"ledger/1",
            namespace.as_bytes(),
            name.as_bytes(),
            self.uid.as_bytes(),
            self.id.as_str().as_bytes(),
            self.secret_id.as_str().as_bytes(),
            self.digest.as_bytes(),
            self.staged_as.as_str().as_bytes(),
        ])
    }

    /// The annotation's text.
    pub fn write(&self, namespace: &str, name: &str, mac: Mac<'_>) -> String {
        let written = Written {
            v: VERSION,
            uid: self.uid.clone(),
            id: self.id.clone(),
            secret_id: self.secret_id.clone(),
            digest: self.digest.clone(),
            staged_as: self.staged_as.clone(),
            mac: self.mac(namespace, name, mac),
        };
        // Strings and a number: there is nothing in it that JSON cannot hold.
        serde_json::to_string(&written).unwrap_or_default()
    }

    /// Reads an annotation's text; `None` when it is not a ledger this installation made for this namespace and name.
    pub fn read(text: &str, namespace: &str, name: &str, mac: Mac<'_>) -> Option<Self> {
        let written: Written = serde_json::from_str(text).ok()?;
        let ledger = Self {
            uid: written.uid,
            id: written.id,
            secret_id: written.secret_id,
            digest: written.digest,
            staged_as: written.staged_as,
        };
        // Plain comparison: who can measure the time of it can read the right mac on the resource anyway.
        (written.v == VERSION && written.mac == ledger.mac(namespace, name, mac)).then_some(ledger)
    }
}

/// What tells a staged credential from every other: `<8 of the uid>-<8 of the digest's HMAC>`.
/// Only this resource and this material can produce it.
pub fn tag(uid: &str, digest: &str) -> String {
    let hmac = digest.rsplit(':').next().unwrap_or(digest);
    format!("{}-{}", head(uid), head(hmac))
}

fn head(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).take(8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake_mac(parts: &[&[u8]]) -> String {
        parts
            .iter()
            .map(|part| format!("{}.{}", part.len(), String::from_utf8_lossy(part)))
            .collect::<Vec<_>>()
            .join("|")
    }

    fn ledger() -> Ledger {
        Ledger {
            uid: "u-1".into(),
            id: "c-1".into(),
            secret_id: "s-1".into(),
            digest: "k:d".into(),
            staged_as: "c-1".into(),
        }
    }

    #[test]
    fn a_ledger_reads_back_as_it_was_written() {
        let text = ledger().write("ns", "n", &fake_mac);
        assert_eq!(Ledger::read(&text, "ns", "n", &fake_mac), Some(ledger()));
    }

    #[test]
    fn a_ledger_of_another_name_namespace_or_key_does_not_verify() {
        let text = ledger().write("ns", "n", &fake_mac);
        assert_eq!(Ledger::read(&text, "ns2", "n", &fake_mac), None);
        assert_eq!(Ledger::read(&text, "ns", "n2", &fake_mac), None);
        assert_eq!(Ledger::read(&text, "ns", "n", &|_| "other".into()), None);
    }

    #[test]
    fn no_field_of_a_ledger_can_be_edited() {
        let text = ledger().write("ns", "n", &fake_mac);
        for (from, to) in [
            (r#""uid":"u-1""#, r#""uid":"u-2""#),
            (r#""id":"c-1""#, r#""id":"c-2""#),
            (r#""secretId":"s-1""#, r#""secretId":"s-2""#),
            (r#""digest":"k:d""#, r#""digest":"k:e""#),
            (r#""stagedAs":"c-1""#, r#""stagedAs":"c-2""#),
            (r#""v":1"#, r#""v":2"#),
        ] {
            assert!(text.contains(from), "{text}");
            assert_eq!(Ledger::read(&text.replacen(from, to, 1), "ns", "n", &fake_mac), None, "{to}");
        }
        for text in ["", "{}", "null", "[]", r#"{"v":1}"#] {
            assert_eq!(Ledger::read(text, "ns", "n", &fake_mac), None, "{text}");
        }
    }

    #[test]
    fn the_tag_takes_eight_of_each() {
        assert_eq!(tag("0f8fad5b-d9cb-469f-a165-70867728950e", "aaaabbbb:1234567890abcdef"), "0f8fad5b-12345678");
    }
}
