//! The installation key: what digests and ledgers are keyed with.

use hmac::{Hmac, KeyInit, Mac};
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Client, api::PostParams};
use rand::TryRng;
use secrecy::{ExposeSecret, SecretSlice};
use sha2::{Digest, Sha256};
use zeroize::Zeroize;

use super::Error;
use crate::{
    api::{MANAGER, hex},
    kubernetes::timed,
};

/// The Secret in the operator's namespace.
pub(crate) const SECRET: &str = "toolzz-operator-installation-key";
/// The key in that Secret.
const FIELD: &str = "key";
const BYTES: usize = 32;

/// What this installation keys its digests and ledgers with. It can be used, and neither printed nor serialised:
///
/// ```
/// fn id(key: toolzz_operator::secrets::InstallationKey) { println!("{}", key.id()); }
/// ```
/// ```compile_fail,E0277
/// fn print(key: toolzz_operator::secrets::InstallationKey) { println!("{key:?}"); }
/// ```
/// ```compile_fail,E0277
/// fn print(key: toolzz_operator::secrets::InstallationKey) { println!("{key}"); }
/// ```
/// ```compile_fail,E0277
/// fn write(key: toolzz_operator::secrets::InstallationKey) { let _ = serde_json::to_string(&key); }
/// ```
pub struct InstallationKey(SecretSlice<u8>);

impl InstallationKey {
    /// A key from its bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }

    /// The key that the operator keeps in its own namespace; made if there is none yet.
    ///
    /// # Errors
    /// When the Secret cannot be read or made, or holds something else.
    pub async fn load_or_create(client: &Client, namespace: &str) -> Result<Self, Error> {
        let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let failed = |verb| move |error: kube::Error| Error::kubernetes(&error, verb, namespace, SECRET);
        if let Some(secret) = timed(api.get_opt(SECRET)).await.map_err(failed("get"))? {
            return Self::from_secret(secret);
        }
        let mut bytes = vec![0; BYTES];
        rand::rngs::SysRng
            .try_fill_bytes(&mut bytes)
            .map_err(|_| Error::Kubernetes { secret: SECRET.to_owned(), problem: "no random numbers".to_owned() })?;
        let mut secret = Secret {
            metadata: ObjectMeta {
                name: Some(SECRET.to_owned()),
                labels: Some([("app.kubernetes.io/managed-by".to_owned(), MANAGER.to_owned())].into()),
                ..ObjectMeta::default()
            },
            data: Some([(FIELD.to_owned(), ByteString(bytes))].into()),
            immutable: Some(true),
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        };
        let created = timed(api.create(&PostParams::default(), &secret)).await;
        secret.data.iter_mut().flat_map(|data| data.values_mut()).for_each(|value| value.0.zeroize());
        match created {
            Ok(secret) => Self::from_secret(secret),
            // Another operator was faster.
            Err(kube::Error::Api(answer)) if answer.code == 409 => {
                Self::from_secret(timed(api.get(SECRET)).await.map_err(failed("get"))?)
            }
            Err(error) => Err(failed("create")(error)),
        }
    }

    fn from_secret(secret: Secret) -> Result<Self, Error> {
        let bytes = secret.data.and_then(|mut data| data.remove(FIELD)).map(|value| value.0).unwrap_or_default();
        if bytes.len() == BYTES {
            Ok(Self::new(bytes))
        } else {
            Err(Error::BadInstallationKey { secret: SECRET.to_owned() })
        }
    }

    /// Eight hexadecimal digits that tell this key from another and reveal nothing of it.
    pub fn id(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(b"toolzz-operator key id");
        hash.update(self.0.expose_secret());
        hex(&hash.finalize()[..4])
    }

    /// HMAC-SHA-256 over parts, each with its length in front, as lowercase hexadecimal. The first part says what for.
    /// Source: RFC 2104.
    pub fn mac(&self, parts: &[&[u8]]) -> String {
        let mut hmac = self.start();
        parts.iter().for_each(|part| feed(&mut hmac, part));
        hex(&hmac.finalize().into_bytes())
    }

    pub(super) fn start(&self) -> Hmac<Sha256> {
        // A key of any length will do, which the type cannot say.
        Hmac::new_from_slice(self.0.expose_secret()).unwrap_or_else(|_| Hmac::new(&Default::default()))
    }
}

/// Adds a part with its length in front, so that no two lists of parts look the same.
pub(super) fn feed(hmac: &mut Hmac<Sha256>, part: &[u8]) {
    hmac.update(&(part.len() as u64).to_be_bytes());
    hmac.update(part);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cannot_be_moved_between_each_other() {
        let key = InstallationKey::new(vec![7; 32]);
        assert_eq!(key.mac(&[b"a", b"bc"]), key.mac(&[b"a", b"bc"]));
        assert_ne!(key.mac(&[b"a", b"bc"]), key.mac(&[b"ab", b"c"]));
        assert_ne!(key.mac(&[b"a"]), key.mac(&[b"a", b""]));
        assert_ne!(key.mac(&[b"a"]), InstallationKey::new(vec![8; 32]).mac(&[b"a"]));
        assert_eq!(key.id().len(), 8);
    }
}
