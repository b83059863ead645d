//! The admin API's unix socket.

use std::{
    fs, io,
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("a gateway is already running on {0}; stop it (gateway stop) or set another admin.socket")]
    Running(PathBuf),
    #[error("cannot make the socket {path}: {error}; set admin.socket to a place that can be written to")]
    Io { path: PathBuf, error: io::Error },
}

/// Listens on `path`, mode 0660, not blocking. A socket that nobody answers on is what a killed gateway left: it is replaced.
pub fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    if UnixStream::connect(path).is_ok() {
        return Err(SocketError::Running(path.to_owned()));
    }
    make(path).map_err(|error| SocketError::Io { path: path.to_owned(), error })
}

fn make(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder)?;
    }
    match fs::symlink_metadata(path) {
        Ok(meta) if std::os::unix::fs::FileTypeExt::is_socket(&meta.file_type()) => fs::remove_file(path)?,
        Ok(_) => return Err(io::Error::other("something that is no socket is in its place")),
        Err(_) => {}
    }
    // Bound under a name of its own first, so that it is never reachable with looser permissions.
    let fresh = path.with_extension(format!("{}.new", std::process::id()));
    let _ = fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh)?;
    listener.set_nonblocking(true)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o660))?;
    fs::rename(&fresh, path)?;
    Ok(listener)
}
