//! Key material in hand.

use std::collections::BTreeMap;

use hmac::Mac;
use secrecy::{ExposeSecret, SecretString};
use serde::ser::{Serialize, SerializeMap, Serializer};
use zeroize::Zeroizing;

use super::{InstallationKey, key};
use crate::api::hex;

/// The values of a credential: the API's `credentials` array. Wiped when dropped. It can be used, and neither printed nor
/// serialised:
///
/// ```
/// fn count(material: toolzz_operator::secrets::Material) { println!("{}", material.fields().count()); }
/// ```
/// ```compile_fail,E0277
/// fn print(material: toolzz_operator::secrets::Material) { println!("{material:?}"); }
/// ```
/// ```compile_fail,E0277
/// fn print(material: toolzz_operator::secrets::Material) { println!("{material}"); }
/// ```
/// ```compile_fail,E0277
/// fn write(material: toolzz_operator::secrets::Material) { let _ = serde_json::to_string(&material); }
/// ```
///
/// Nor can what it and a token are sent as, which prints itself as nothing:
///
/// ```
/// let token = secrecy::SecretString::from("hidden");
/// assert!(!format!("{token:?}").contains("hidden"));
/// ```
/// ```compile_fail,E0277
/// fn print(token: secrecy::SecretString) { println!("{token}"); }
/// ```
/// ```compile_fail,E0277
/// fn write(token: secrecy::SecretString) { let _ = serde_json::to_string(&token); }
/// ```
pub struct Material(pub(super) Vec<BTreeMap<String, SecretString>>);

impl Material {
    /// `<key id>:<HMAC-SHA-256>` over the integration and the whole array: which material this is, and for whom.
    pub fn digest(&self, key: &InstallationKey, integration_id: &str) -> String {
        let mut hmac = key.start();
        key::feed(&mut hmac, b"material/1");
        key::feed(&mut hmac, integration_id.to_ascii_lowercase().as_bytes());
        for item in &self.0 {
            hmac.update(&(item.len() as u64).to_be_bytes());
            for (field, value) in item {
                key::feed(&mut hmac, field.as_bytes());
                key::feed(&mut hmac, value.expose_secret().as_bytes());
            }
        }
        format!("{}:{}", key.id(), hex(&hmac.finalize().into_bytes()))
    }

    /// The array as JSON text.
    pub fn to_json(&self) -> SecretString {
        // Room for everything at once: a buffer that grows leaves copies behind that nobody wipes.
        let size: usize =
            self.0.iter().flatten().map(|(field, value)| 6 * (field.len() + value.expose_secret().len()) + 8).sum();
        let mut text = Zeroizing::new(Vec::with_capacity(size + 4 * self.0.len() + 8));
        let items: Vec<Exposed<'_>> = self.0.iter().map(Exposed).collect();
        // Strings in maps in an array, into memory: nothing of that can fail.
        let _ = serde_json::to_writer(&mut *text, &items);
        SecretString::from(String::from_utf8_lossy(&text).into_owned())
    }

    /// For each value: the item it stands in, its field, and its length in characters.
    pub fn fields(&self) -> impl Iterator<Item = (usize, &str, usize)> {
        self.0.iter().enumerate().flat_map(|(item, fields)| {
            fields.iter().map(move |(field, value)| (item, field.as_str(), value.expose_secret().chars().count()))
        })
    }
}

/// The one way into JSON, used by [`Material::to_json`] alone.
struct Exposed<'a>(&'a BTreeMap<String, SecretString>);

impl Serialize for Exposed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (field, value) in self.0 {
            map.serialize_entry(field, value.expose_secret())?;
        }
        map.end()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn material(items: &[&[(&str, &str)]]) -> Material {
        let item = |fields: &&[(&str, &str)]| {
            fields.iter().map(|(field, value)| ((*field).to_owned(), SecretString::from(*value))).collect()
        };
        Material(items.iter().map(item).collect())
    }

    #[test]
    fn another_material_or_integration_has_another_digest() {
        let key = InstallationKey::new(vec![1; 32]);
        let same = [("a", "1"), ("b", "2")];
        let digest = material(&[&same]).digest(&key, "i");
        assert_eq!(digest, material(&[&[("b", "2"), ("a", "1")]]).digest(&key, "I"), "order and case mean nothing");
        for other in [
            material(&[&[("a", "1")], &[("b", "2")]]),
            material(&[&[("a", "1b"), ("", "2")]]),
            material(&[&[("a", "2"), ("b", "1")]]),
            material(&[&same, &[]]),
            material(&[]),
        ] {
            assert_ne!(digest, other.digest(&key, "i"));
        }
        assert_ne!(digest, material(&[&same]).digest(&key, "j"));
        assert_ne!(digest, material(&[&same]).digest(&InstallationKey::new(vec![2; 32]), "i"));
        assert!(digest.starts_with(&format!("{}:", key.id())));
    }

    #[test]
    fn its_json_is_the_array_that_the_api_documents() {
        let text = material(&[&[("api_key", "a\"\\\n\u{1F511}")], &[]]).to_json();
        let value: serde_json::Value = serde_json::from_str(text.expose_secret()).unwrap();
        assert_eq!(value, serde_json::json!([{"api_key": "a\"\\\n\u{1F511}"}, {}]));
    }
}
