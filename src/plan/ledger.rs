//! The operator's record of what is a resource's own: the annotation `toolzz.com.br/ledger`, copied to the status.

use serde::{Deserialize, Serialize};

use crate::api::{CredentialId, Row, SecretId};

/// The version written in front of every ledger.
const VERSION: u32 = 1;

/// Which credential is this resource's, which material it shall use, and what that material is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ledger {
    /// Counts what was recorded on the resource: of the annotation and its copy in the status the later one holds, so
    /// that an earlier annotation put back means nothing. Set when it is written.
    pub sequence: u64,
    /// The uid of the resource the record was made for.
    pub uid: String,
    /// The credential that is this resource's own.
    pub id: CredentialId,
    /// The material it shall use.
    pub secret_id: SecretId,
    /// The keyed digest of that material; empty while nobody can tell what it is: the credential was taken over, or an
    /// update that carries material is on its way. Nothing is activated then without material.
    pub digest: String,
    /// The credential the material came with: its own on a create, another, inactive one after a rotation.
    pub staged_as: CredentialId,
    /// The existing credential that was taken over, if the resource began so.
    pub adopted: Option<CredentialId>,
    /// Superseded credentials that are not known to be inactive for good yet, the oldest first.
    pub retiring: Vec<Retiring>,
}

/// A superseded credential.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retiring {
    /// Its id.
    pub id: CredentialId,
    /// The material it uses.
    pub secret_id: SecretId,
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
    /// There is one, but it does not verify: edited, or of another installation or connection. Counts as none.
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
    sequence: u64,
    uid: String,
    id: CredentialId,
    secret_id: SecretId,
    digest: String,
    staged_as: CredentialId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    adopted: Option<CredentialId>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    retiring: Vec<Retiring>,
    mac: String,
}

/// Makes a message authentication code (lowercase hex) over parts. The key is the installation's; the caller has it.
pub type Mac<'a> = &'a dyn Fn(&[&[u8]]) -> String;

/// Whose a ledger is: the mac covers it, so that a ledger copied elsewhere is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The resource's namespace.
    pub namespace: &'a str,
    /// The resource's name.
    pub name: &'a str,
    /// The connection the credential is reached through: the same id may be somebody else's elsewhere.
    pub connection: &'a str,
    /// UUID of the unity. It cannot be changed on a resource, but in a manifest that replaces it.
    pub unity: &'a str,
    /// UUID or slug of the integration. As the unity.
    pub integration: &'a str,
}

impl Ledger {
    /// The ledger of a resource whose first credential, or one in the place of all it had, was staged as `row`.
    pub fn fresh(uid: &str, row: &Row, digest: &str) -> Self {
        Self {
            sequence: 0,
            uid: uid.to_owned(),
            id: row.id.clone(),
            secret_id: row.fields.secret_id.clone(),
            digest: digest.to_owned(),
            staged_as: row.id.clone(),
            adopted: None,
            retiring: Vec::new(),
        }
    }

    /// The ledger of a resource that takes over `row`, whose material is unknown.
    pub fn adopting(uid: &str, row: &Row) -> Self {
        Self { adopted: Some(row.id.clone()), ..Self::fresh(uid, row, "") }
    }

    /// The same credential with the material that was staged as `row`.
    #[must_use]
    pub fn repointed(&self, row: &Row, digest: &str) -> Self {
        Self {
            secret_id: row.fields.secret_id.clone(),
            digest: digest.to_owned(),
            staged_as: row.id.clone(),
            ..self.clone()
        }
    }

    /// The credential staged as `row` in the place of this one, which retires.
    #[must_use]
    pub fn replaced(&self, row: &Row, digest: &str) -> Self {
        let mut new =
            Self { sequence: self.sequence, adopted: self.adopted.clone(), ..Self::fresh(&self.uid, row, digest) };
        let old = Retiring { id: self.id.clone(), secret_id: self.secret_id.clone() };
        new.retiring = self.retiring.iter().cloned().chain([old]).filter(|old| old.id != new.id).collect();
        new
    }

    /// The staged credential itself in the place of the one that could not take over its material.
    #[must_use]
    pub fn promoted(&self) -> Self {
        let old = Retiring { id: self.id.clone(), secret_id: self.secret_id.clone() };
        let retiring = self.retiring.iter().cloned().chain([old]).filter(|old| old.id != self.staged_as).collect();
        Self { id: self.staged_as.clone(), retiring, ..self.clone() }
    }

    /// This one without a credential that has retired.
    #[must_use]
    pub fn without(&self, retired: &CredentialId) -> Self {
        let retiring = self.retiring.iter().filter(|old| old.id != *retired).cloned().collect();
        Self { retiring, ..self.clone() }
    }

    /// Every credential that may be active on this resource's behalf, its own first.
    pub fn credentials(&self) -> impl Iterator<Item = (&CredentialId, &SecretId)> {
        [(&self.id, &self.secret_id)].into_iter().chain(self.retiring.iter().map(|old| (&old.id, &old.secret_id)))
    }

    /// Every credential it names: those that may be active, and the one the material came with.
    pub fn named(&self) -> impl Iterator<Item = &CredentialId> {
        self.credentials().map(|(id, _)| id).chain([&self.staged_as])
    }

    fn mac(&self, place: Place<'_>, mac: Mac<'_>) -> String {
        let adopted = self.adopted.as_ref().map_or("", |id| id.as_str());
        let (unity, integration) = (place.unity.to_ascii_lowercase(), place.integration.to_ascii_lowercase());
        let sequence = self.sequence.to_string();
        let mut parts: Vec<&[u8]> = [
            "ledger/1",
            place.namespace,
            place.name,
            place.connection,
            &unity,
            &integration,
            &sequence,
            &self.uid,
            self.id.as_str(),
            self.secret_id.as_str(),
            &self.digest,
            self.staged_as.as_str(),
            adopted,
        ]
        .map(str::as_bytes)
        .to_vec();
        for old in &self.retiring {
            parts.extend([old.id.as_str().as_bytes(), old.secret_id.as_str().as_bytes()]);
        }
        mac(&parts)
    }

    /// The annotation's text.
    pub fn write(&self, place: Place<'_>, mac: Mac<'_>) -> String {
        let written = Written {
            v: VERSION,
            sequence: self.sequence,
            uid: self.uid.clone(),
            id: self.id.clone(),
            secret_id: self.secret_id.clone(),
            digest: self.digest.clone(),
            staged_as: self.staged_as.clone(),
            adopted: self.adopted.clone(),
            retiring: self.retiring.clone(),
            mac: self.mac(place, mac),
        };
        // Strings and a number: there is nothing in it that JSON cannot hold.
        serde_json::to_string(&written).unwrap_or_default()
    }

    /// Reads an annotation's text; `None` when it is not a ledger this installation made for this place.
    pub fn read(text: &str, place: Place<'_>, mac: Mac<'_>) -> Option<Self> {
        let written: Written = serde_json::from_str(text).ok()?;
        let ledger = Self {
            sequence: written.sequence,
            uid: written.uid,
            id: written.id,
            secret_id: written.secret_id,
            digest: written.digest,
            staged_as: written.staged_as,
            adopted: written.adopted,
            retiring: written.retiring,
        };
        // Plain comparison: who can measure the time of it can read the right mac on the resource anyway.
        (written.v == VERSION && written.mac == ledger.mac(place, mac)).then_some(ledger)
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
    use crate::api::Fields;

    fn fake_mac(parts: &[&[u8]]) -> String {
        parts
            .iter()
            .map(|part| format!("{}.{}", part.len(), String::from_utf8_lossy(part)))
            .collect::<Vec<_>>()
            .join("|")
    }

    const PLACE: Place<'_> = Place { namespace: "ns", name: "n", connection: "c", unity: "u", integration: "i" };

    fn ledger() -> Ledger {
        Ledger {
            sequence: 7,
            uid: "u-1".into(),
            id: "c-1".into(),
            secret_id: "s-1".into(),
            digest: "k:d".into(),
            staged_as: "c-2".into(),
            adopted: Some("c-0".into()),
            retiring: vec![Retiring { id: "c-3".into(), secret_id: "s-3".into() }],
        }
    }

    #[test]
    fn a_ledger_reads_back_as_it_was_written() {
        let plain = Ledger { adopted: None, retiring: Vec::new(), ..ledger() };
        for ledger in [ledger(), plain] {
            let text = ledger.write(PLACE, &fake_mac);
            assert_eq!(Ledger::read(&text, PLACE, &fake_mac), Some(ledger));
        }
    }

    #[test]
    fn a_ledger_of_another_place_or_key_does_not_verify() {
        let text = ledger().write(PLACE, &fake_mac);
        assert!(Ledger::read(&text, Place { unity: "U", integration: "I", ..PLACE }, &fake_mac).is_some());
        for place in [
            Place { namespace: "ns2", ..PLACE },
            Place { name: "n2", ..PLACE },
            Place { connection: "c2", ..PLACE },
            Place { unity: "u2", ..PLACE },
            Place { integration: "i2", ..PLACE },
        ] {
            assert_eq!(Ledger::read(&text, place, &fake_mac), None, "{place:?}");
        }
        assert_eq!(Ledger::read(&text, PLACE, &|_| "other".into()), None);
    }

    #[test]
    fn no_field_of_a_ledger_can_be_edited() {
        let text = ledger().write(PLACE, &fake_mac);
        for (from, to) in [
            (r#""sequence":7"#, r#""sequence":8"#),
            (r#""uid":"u-1""#, r#""uid":"u-2""#),
            (r#""id":"c-1""#, r#""id":"c-2""#),
            (r#""secretId":"s-1""#, r#""secretId":"s-2""#),
            (r#""digest":"k:d""#, r#""digest":"k:e""#),
            (r#""stagedAs":"c-2""#, r#""stagedAs":"c-1""#),
            (r#""adopted":"c-0""#, r#""adopted":"c-1""#),
            (r#""adopted":"c-0","#, ""),
            (r#"{"id":"c-3","secretId":"s-3"}"#, r#"{"id":"c-4","secretId":"s-3"}"#),
            (r#"{"id":"c-3","secretId":"s-3"}"#, r#"{"id":"c-3","secretId":"s-4"}"#),
            (r#"{"id":"c-3","secretId":"s-3"}"#, ""),
            (r#""v":1"#, r#""v":2"#),
        ] {
            assert!(text.contains(from), "{text}");
            assert_eq!(Ledger::read(&text.replacen(from, to, 1), PLACE, &fake_mac), None, "{to}");
        }
        for text in ["", "{}", "null", "[]", r#"{"v":1}"#] {
            assert_eq!(Ledger::read(text, PLACE, &fake_mac), None, "{text}");
        }
    }

    proptest::proptest! {
        #![proptest_config(crate::fuzz::config())]

        #[test]
        fn any_text_is_read_to_an_end_and_only_what_was_written_verifies(
            text in ".{0,400}", sequence: u64, id in ".{1,60}", digest in ".{0,60}",
            at in proptest::prelude::any::<proptest::sample::Index>(), byte in 32u8..127,
        ) {
            assert_eq!(Ledger::read(&text, PLACE, &fake_mac), None);
            let whole = Ledger { sequence, id: id.as_str().into(), digest, ..ledger() };
            let written = whole.write(PLACE, &fake_mac);
            assert_eq!(Ledger::read(&written, PLACE, &fake_mac), Some(whole.clone()));
            let mut edited = written.clone().into_bytes();
            let at = at.index(edited.len());
            edited[at] = byte;
            // An edit that means the same (another way to write a character) is none.
            if let Ok(edited) = String::from_utf8(edited) {
                assert!(Ledger::read(&edited, PLACE, &fake_mac).is_none_or(|read| read == whole));
            }
        }
    }

    #[test]
    fn what_is_replaced_retires_once_and_never_the_one_in_use() {
        let row = |id: &str| {
            let text = String::new;
            let fields = Fields {
                name: text(),
                user_id: text(),
                unity_id: text(),
                integration_id: text(),
                secret_id: format!("s-of-{id}").as_str().into(),
                active: false,
            };
            Row { id: id.into(), fields, virtual_key: None, integration: None }
        };
        let ids = |ledger: &Ledger| ledger.credentials().map(|(id, _)| id.to_string()).collect::<Vec<_>>();
        let a = Ledger::fresh("u", &row("a"), "k:a");
        let b = a.replaced(&row("b"), "k:b");
        let c = b.replaced(&row("c"), "k:c");
        assert_eq!((ids(&b), ids(&c)), (vec!["b".into(), "a".into()], vec!["c".into(), "a".into(), "b".into()]));
        assert_eq!(ids(&c.replaced(&row("a"), "k:a")), ["a", "b", "c"]);
        assert_eq!(ids(&c.without(&"a".into())), ["c", "b"]);
        let repointed = c.repointed(&row("d"), "k:d");
        assert_eq!((ids(&repointed), repointed.secret_id.as_str()), (ids(&c), "s-of-d"));
        assert_eq!(ids(&repointed.promoted()), ["d", "a", "b", "c"]);
        assert_eq!(a.promoted(), a, "what was staged as itself");
    }

    #[test]
    fn the_tag_takes_eight_of_each() {
        assert_eq!(tag("0f8fad5b-d9cb-469f-a165-70867728950e", "aaaabbbb:1234567890abcdef"), "0f8fad5b-12345678");
    }
}
