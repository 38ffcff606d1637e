//! Where keys are kept: `keys.json` in a directory, or one environment variable with the same JSON.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use event_schemas::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{Key, Keys, Purpose};

/// The version of the JSON's form.
const FORMAT: u32 = 1;

/// Where the keys come from: a file or the environment, never both.
#[derive(Clone)]
pub enum KeySource {
    /// `keys.json` in this directory, mode 0600, made on first start.
    Directory(PathBuf),
    /// The JSON of such a file, as a secret of the environment. Cannot be rotated from in here.
    Inline(Zeroizing<String>),
}

impl std::fmt::Debug for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory(directory) => f.debug_tuple("Directory").field(directory).finish(),
            Self::Inline(_) => f.write_str("Inline(..)"),
        }
    }
}

/// Why keys cannot be read or changed. Says where, never what.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot access {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path} can be read by others: chmod 600 it, and rotate the keys if somebody may have")]
    Exposed { path: PathBuf },
    #[error("another process is changing the keys ({path}): try again")]
    Locked { path: PathBuf },
    #[error("the keys from {origin} cannot be read: {message}")]
    Format { origin: String, message: String },
    #[error("no {0} key is in use")]
    Missing(Purpose),
    #[error("keys from the environment are changed where the environment is set")]
    ReadOnly,
    #[error("there is no such key")]
    UnknownKey,
    #[error("expected one of signing, refresh, fingerprint")]
    UnknownPurpose,
    #[error("no other key could take over yet: rotate first, with immediate effect if this one has leaked")]
    NoSuccessor,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    keys: Vec<StoredKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKey {
    id: String,
    purpose: Purpose,
    /// 32 bytes, base64url.
    secret: Zeroizing<String>,
    created_at: Timestamp,
    active_from: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retired_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    revoked: bool,
}

pub(crate) struct Store {
    source: KeySource,
    /// Hash of the file as last read.
    seen: Mutex<Option<[u8; 32]>>,
}

impl Store {
    pub(super) fn new(source: KeySource) -> Self {
        Self {
            source,
            seen: Mutex::new(None),
        }
    }

    /// The keys; `None` when there is no file yet.
    pub(super) fn load(&self) -> Result<Option<Keys>, KeyError> {
        let Some(text) = self.text()? else { return Ok(None) };
        let keys = self.parse(&text)?;
        *self.seen() = Some(Sha256::digest(text.as_bytes()).into());
        Ok(Some(keys))
    }

    pub(super) fn load_if_changed(&self) -> Result<Option<Keys>, KeyError> {
        let Some(text) = self.text()? else { return Ok(None) };
        let digest = Sha256::digest(text.as_bytes()).into();
        if *self.seen() == Some(digest) {
            return Ok(None);
        }
        let keys = self.parse(&text)?;
        *self.seen() = Some(digest);
        Ok(Some(keys))
    }

    /// Writes the first file, or takes the one that another process wrote at the same moment.
    pub(super) fn create(&self, keys: &Keys) -> Result<Keys, KeyError> {
        let path = self.path()?;
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(|source| failed(directory, source))?;
        }
        let _lock = Lock::take(&path)?;
        if let Some(keys) = self.load()? {
            return Ok(keys);
        }
        replace(&path, &render(keys)?)?;
        self.load()?.ok_or(KeyError::UnknownKey)
    }

    /// Reads, changes and writes the file under a lock.
    pub(super) fn update<T>(
        &self,
        change: impl FnOnce(&mut Keys) -> Result<T, KeyError>,
    ) -> Result<(T, Keys), KeyError> {
        let path = self.path()?;
        let _lock = Lock::take(&path)?;
        let mut keys = self.load()?.unwrap_or_default();
        let outcome = change(&mut keys)?;
        replace(&path, &render(&keys)?)?;
        let keys = self.load()?.unwrap_or(keys);
        Ok((outcome, keys))
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Option<[u8; 32]>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self) -> Result<PathBuf, KeyError> {
        match &self.source {
            KeySource::Directory(directory) => Ok(directory.join("keys.json")),
            KeySource::Inline(_) => Err(KeyError::ReadOnly),
        }
    }

    fn text(&self) -> Result<Option<Zeroizing<String>>, KeyError> {
        let path = match &self.source {
            KeySource::Inline(text) => return Ok(Some(text.clone())),
            KeySource::Directory(_) => self.path()?,
        };
        match fs::read_to_string(&path) {
            Ok(text) => {
                refuse_exposed(&path)?;
                Ok(Some(Zeroizing::new(text)))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(failed(&path, source)),
        }
    }

    fn parse(&self, text: &str) -> Result<Keys, KeyError> {
        let origin = || match &self.source {
            KeySource::Directory(_) => self
                .path()
                .map_or_else(|_| String::new(), |path| path.display().to_string()),
            KeySource::Inline(_) => "the environment".to_owned(),
        };
        let fail = |message: String| KeyError::Format {
            origin: origin(),
            message,
        };
        // serde's messages may quote the input: say where, not what.
        let document: Document = serde_json::from_str(text)
            .map_err(|error| fail(format!("line {}, column {}", error.line(), error.column())))?;
        if document.version != FORMAT {
            return Err(fail(format!(
                "form {} is not known to this version: upgrade",
                document.version
            )));
        }
        let keys = document.keys.into_iter().map(|stored| {
            let bytes = URL_SAFE_NO_PAD
                .decode(stored.secret.as_bytes())
                .map(Zeroizing::new)
                .ok();
            let secret = bytes
                .and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok())
                .ok_or_else(|| {
                    fail(format!(
                        "the secret of {} is not 32 bytes of base64url",
                        stored.id
                    ))
                })?;
            Ok(Key {
                id: stored.id.into(),
                purpose: stored.purpose,
                secret: Zeroizing::new(secret),
                created_at: stored.created_at,
                active_from: stored.active_from,
                retired_at: stored.retired_at,
                revoked: stored.revoked,
            })
        });
        keys.collect::<Result<_, _>>().map(Keys)
    }
}

fn render(keys: &Keys) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let keys = keys.0.iter().map(|key| StoredKey {
        id: key.id.to_string(),
        purpose: key.purpose,
        secret: Zeroizing::new(URL_SAFE_NO_PAD.encode(key.secret.as_slice())),
        created_at: key.created_at,
        active_from: key.active_from,
        retired_at: key.retired_at,
        revoked: key.revoked,
    });
    let document = Document {
        version: FORMAT,
        keys: keys.collect(),
    };
    serde_json::to_vec_pretty(&document)
        .map(Zeroizing::new)
        .map_err(|error| KeyError::Format {
            origin: "memory".to_owned(),
            message: error.to_string(),
        })
}

fn failed(path: &Path, source: std::io::Error) -> KeyError {
    KeyError::File {
        path: path.to_owned(),
        source,
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Writes beside, syncs and renames: a crash leaves the old file or the new one.
fn replace(path: &Path, content: &[u8]) -> Result<(), KeyError> {
    let new = beside(path, ".new");
    let write = || -> std::io::Result<()> {
        // What a killed process left here is nobody's.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = private().create_new(true).open(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        match path.parent() {
            Some(directory) if cfg!(unix) => File::open(directory)?.sync_all(),
            _ => Ok(()),
        }
    };
    write().map_err(|source| failed(path, source))
}

fn refuse_exposed(path: &Path) -> Result<(), KeyError> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(path)
            .map_err(|source| failed(path, source))?
            .permissions()
            .mode();
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed {
                path: path.to_owned(),
            });
        }
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// Keeps a server and a command line from changing the file at once.
struct Lock(File);

impl Lock {
    fn take(path: &Path) -> Result<Self, KeyError> {
        let path = beside(path, ".lock");
        let file = private()
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|source| failed(&path, source))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(fs::TryLockError::WouldBlock) => Err(KeyError::Locked { path }),
            Err(fs::TryLockError::Error(source)) => Err(failed(&path, source)),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file unlocks it in any case.
        let _ = self.0.unlock();
    }
}
