//! Reading a secret from where the config says that it is.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::config::model::Secret;

/// No key is larger; what is, is something else.
const MOST: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("cannot read {}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("{} can be read by others than its owner (mode {mode:04o}): chmod 600 it", path.display())]
    Open { path: PathBuf, mode: u32 },
    #[error("the secret in {0} is empty")]
    Empty(String),
    #[error("{} is larger than 1 MiB: it is no key", .0.display())]
    TooLarge(PathBuf),
    #[error("the environment variable {0} is not set")]
    NoVariable(String),
    #[error(
        "there is no credential {0}: $CREDENTIALS_DIRECTORY is not set; load it with LoadCredential= in the unit"
    )]
    NoCredentials(String),
}

/// The secret's bytes, without a line's end behind them. A file must be its owner's alone (or root's, with mode 0640: so
/// the gateway's group may be given it); what a service manager hands over is so by itself.
///
/// # Errors
/// It is not there, or not secret.
pub fn read(secret: &Secret) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let (bytes, open) = look(secret)?;
    open.map_or(Ok(bytes), Err)
}

/// As [`read`], of a key that others put there and that many keep open: `tell` is told of it.
///
/// # Errors
/// It is not there.
pub fn read_telling(
    secret: &Secret,
    tell: impl FnOnce(SecretError),
) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let (bytes, open) = look(secret)?;
    if let Some(open) = open {
        tell(open);
    }
    Ok(bytes)
}

/// Where it is, for messages.
pub fn place(secret: &Secret) -> String {
    match secret {
        Secret::File(path) => path.display().to_string(),
        Secret::Env(variable) => format!("${variable}"),
        Secret::Credential(name) => format!("the credential {name}"),
    }
}

type Found = (Zeroizing<Vec<u8>>, Option<SecretError>);

fn look(secret: &Secret) -> Result<Found, SecretError> {
    let (mut bytes, open) = match secret {
        Secret::File(path) => of_file(path)?,
        Secret::Env(variable) => {
            let value = std::env::var(variable).map_err(|_| SecretError::NoVariable(variable.clone()))?;
            (Zeroizing::new(value.into_bytes()), None)
        }
        Secret::Credential(name) => {
            let directory = std::env::var_os("CREDENTIALS_DIRECTORY")
                .ok_or_else(|| SecretError::NoCredentials(name.clone()))?;
            (of_file(&PathBuf::from(directory).join(name))?.0, None)
        }
    };
    while matches!(bytes.last(), Some(b'\n' | b'\r')) {
        bytes.pop();
    }
    match bytes.is_empty() {
        true => Err(SecretError::Empty(place(secret))),
        false => Ok((bytes, open)),
    }
}

/// What is in it, and why it is not secret.
fn of_file(path: &Path) -> Result<Found, SecretError> {
    let failed = |error| SecretError::Read { path: path.to_owned(), error };
    let file = File::open(path).map_err(failed)?;
    // Of what was opened: the name may be another file's by now.
    let meta = file.metadata().map_err(failed)?;
    let mode = meta.permissions().mode() & 0o7777;
    let given = meta.uid() == 0 && !rustix::process::geteuid().is_root();
    let others = if given { mode & 0o037 } else { mode & 0o077 };
    let open = (others != 0).then(|| SecretError::Open { path: path.to_owned(), mode });
    if meta.len() > MOST {
        return Err(SecretError::TooLarge(path.to_owned()));
    }
    // Not grown while it is read: what a vector leaves behind is not wiped.
    let mut bytes = Zeroizing::new(Vec::with_capacity(meta.len() as usize + 64));
    file.take(meta.len() + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok((bytes, open))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_must_be_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(&path, "s3cret\r\n\n").unwrap();
        let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let secret = Secret::File(path.clone());
        for open in [0o644, 0o640, 0o604, 0o660] {
            mode(open);
            assert!(matches!(read(&secret), Err(SecretError::Open { .. })), "{open:o}");
        }
        let mut told = None;
        let key = read_telling(&secret, |error| told = Some(error.to_string())).unwrap();
        assert!(key.as_slice() == b"s3cret" && told.unwrap().contains("mode 0660"));
        mode(0o600);
        assert_eq!(read(&secret).unwrap().as_slice(), b"s3cret");
        fs::write(&path, "\n").unwrap();
        assert!(matches!(read(&secret), Err(SecretError::Empty(_))));
        fs::write(&path, vec![b'x'; 1_100_000]).unwrap();
        assert!(matches!(read(&secret), Err(SecretError::TooLarge(_))));
        assert!(matches!(read(&Secret::File(dir.path().join("none"))), Err(SecretError::Read { .. })));
        assert!(matches!(read(&Secret::Env("GATEWAY_NO_SUCH".into())), Err(SecretError::NoVariable(_))));
    }
}
