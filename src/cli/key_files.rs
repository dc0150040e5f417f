//! Key and token files: believed only if nobody else can write them, and secrets only if nobody else can read them.

use std::{env, path::Path};

use vmgate_attest::{PrivateKey, PublicKey};
use vmgate_trust::UntrustedFile;

use super::{Failure, session::KEY_VARIABLE};

/// Largest key or token file, in bytes.
const MOST_BYTES: u64 = 64 << 10;

/// A public key in PEM.
pub(super) fn public_key(file: &Path) -> Result<PublicKey, Failure> {
    PublicKey::from_pem(&file.display().to_string(), &public_text(file)?).map_err(Failure::usage)
}

/// A private key in PEM.
pub(super) fn private_key(file: &Path) -> Result<PrivateKey, Failure> {
    PrivateKey::from_pem(&file.display().to_string(), &secret_text(file)?).map_err(Failure::usage)
}

/// The private key of a file, else that in the environment.
pub(super) fn signing_key(file: Option<&Path>) -> Result<PrivateKey, Failure> {
    match (file, env::var(KEY_VARIABLE)) {
        (Some(file), _) => private_key(file),
        (None, Ok(pem)) => PrivateKey::from_pem(KEY_VARIABLE, &pem).map_err(Failure::usage),
        (None, Err(_)) => Err(Failure::usage(format!("no key: give --key FILE or set {KEY_VARIABLE}"))),
    }
}

/// The text of a public key or a template: of whatever decides, and is no secret.
pub(super) fn public_text(file: &Path) -> Result<String, Failure> {
    text(vmgate_trust::read(file, MOST_BYTES))
}

/// The text of a private key or a token.
pub(super) fn secret_text(file: &Path) -> Result<String, Failure> {
    text(vmgate_trust::read_secret(file, MOST_BYTES))
}

fn text(read: Result<Vec<u8>, UntrustedFile>) -> Result<String, Failure> {
    // What is not UTF-8 is neither PEM nor a token, which their readers say better.
    read.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).map_err(Failure::usage)
}
