//! The certificates and keys of one control plane, in `pki/` of its directory. All X.509 v3: rustls refuses v1.

use std::{
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// Why they could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
}

/// The files.
#[derive(Debug)]
pub(crate) struct Certificates {
    pub(crate) authority: PathBuf,
    pub(crate) server: PathBuf,
    pub(crate) server_key: PathBuf,
    pub(crate) admin: PathBuf,
    pub(crate) admin_key: PathBuf,
    /// Signs the tokens of ServiceAccounts.
    pub(crate) account_key: PathBuf,
    pub(crate) account_public_key: PathBuf,
}

impl Certificates {
    /// Makes all of them anew.
    pub(crate) fn make(folder: &Path) -> Result<Self, Error> {
        let mut params = parameters("toolzz-operator test authority", None, Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;

        let names = ["127.0.0.1", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let server_key = KeyPair::generate()?;
        let mut server = parameters("kube-apiserver", None, names.map(str::to_owned).to_vec())?;
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let server = server.signed_by(&server_key, &authority)?;

        let admin_key = KeyPair::generate()?;
        let mut admin = parameters("admin", Some("system:masters"), Vec::new())?;
        admin.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let admin = admin.signed_by(&admin_key, &authority)?;

        let account_key = KeyPair::generate()?;
        let write = |name: &str, content: String| write_private(folder.join(name), &content);
        Ok(Self {
            authority: write("ca.crt", authority.pem())?,
            server: write("kube-apiserver.crt", server.pem())?,
            server_key: write("kube-apiserver.key", server_key.serialize_pem())?,
            admin: write("admin.crt", admin.pem())?,
            admin_key: write("admin.key", admin_key.serialize_pem())?,
            account_key: write("service-accounts.key", account_key.serialize_pem())?,
            account_public_key: write("service-accounts.pub", account_key.public_key_pem())?,
        })
    }
}

fn parameters(name: &str, organization: Option<&str>, subjects: Vec<String>) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(subjects)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(organization) = organization {
        // What Kubernetes takes for a group.
        params.distinguished_name.push(DnType::OrganizationName, organization);
    }
    Ok(params)
}

fn write_private(path: PathBuf, content: &str) -> Result<PathBuf, Error> {
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(&path);
    match file.and_then(|mut file| file.write_all(content.as_bytes())) {
        Ok(()) => Ok(path),
        Err(source) => Err(Error::Write { path, source }),
    }
}
