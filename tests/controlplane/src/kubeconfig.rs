//! Kubeconfig files for ServiceAccounts, next to the administrator's.

use std::{io::Write as _, path::Path};

use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{Api, api::PostParams};

use crate::{Error, protocol::Endpoints};

/// A day, so that a demo that stays up does not lose its rights within the hour.
const TOKEN_LIFETIME_SECONDS: i64 = 24 * 60 * 60;

/// Asks the API server for a token of the ServiceAccount, as a kubelet would for a pod.
pub(crate) async fn request_token(client: kube::Client, namespace: &str, name: &str) -> Result<String, Error> {
    let request = TokenRequest {
        spec: TokenRequestSpec { expiration_seconds: Some(TOKEN_LIFETIME_SECONDS), ..TokenRequestSpec::default() },
        ..TokenRequest::default()
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(client, namespace);
    let answer = accounts
        .create_token_request(name, &PostParams::default(), &request)
        .await
        .map_err(|source| Error::Token { account: format!("{namespace}/{name}"), source: Box::new(source) })?;
    Ok(answer.status.map(|status| status.token).unwrap_or_default())
}

/// Writes a kubeconfig with the token; JSON, which every reader of kubeconfigs takes, being YAML.
pub(crate) fn write(path: &Path, endpoints: &Endpoints, namespace: &str, token: &str) -> std::io::Result<()> {
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {
            "server": endpoints.server,
            "certificate-authority": endpoints.certificate_authority,
        }}],
        "users": [{"name": "account", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "account", "namespace": namespace}}],
        "current-context": "test",
    });
    // Two tests may ask for the same account at once, and a third read it meanwhile.
    let parent = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent)?;
    let mut file = tempfile::NamedTempFile::new_in(parent)?;
    file.write_all(config.to_string().as_bytes())?;
    file.persist(path)?;
    Ok(())
}
