use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::StreamExt;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use super::connection::{Body, full};
use super::quoted;

/// How much of a file is read at once.
const PIECE: usize = 128 * 1024;

/// What is sent to a buildlet.
pub enum Upload {
    /// A file of this machine, read while it is sent.
    File(PathBuf),
    Bytes(Bytes),
    /// Anything else. `size` in bytes sets the time limit; it need not be exact.
    Reader {
        reader: Box<dyn AsyncRead + Send + Unpin>,
        size: Option<u64>,
    },
}

/// An upload ready to be sent.
pub(super) struct Opened {
    pub body: Body,
    pub size: Option<u64>,
    pub fault: Fault,
}

/// Why the source of an upload could not be read to its end, once that has happened.
#[derive(Clone, Default)]
pub(super) struct Fault(Arc<Mutex<Option<io::Error>>>);

impl Fault {
    pub fn take(&self) -> Option<io::Error> {
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .take()
    }

    fn set(&self, error: io::Error) {
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(error);
    }
}

impl Upload {
    pub(super) async fn open(self) -> Result<Opened, (String, io::Error)> {
        let fault = Fault::default();
        let (reader, size): (Box<dyn AsyncRead + Send + Unpin>, _) = match self {
            Upload::Bytes(bytes) => {
                let size = Some(bytes.len() as u64);
                return Ok(Opened {
                    body: full(bytes),
                    size,
                    fault,
                });
            }
            Upload::Reader { reader, size } => (reader, size),
            Upload::File(path) => {
                let named = |error| (format!("read {}", quoted(&path)), error);
                let file = tokio::fs::File::open(&path).await.map_err(named)?;
                let size = file.metadata().await.map_err(named)?.len();
                (Box::new(file), Some(size))
            }
        };
        let seen = fault.clone();
        let pieces = ReaderStream::with_capacity(reader, PIECE).map(move |piece| match piece {
            Ok(bytes) => Ok(Frame::data(bytes)),
            Err(error) => {
                let kind = error.kind();
                seen.set(error);
                Err(io::Error::from(kind))
            }
        });
        let body = StreamBody::new(pieces).boxed_unsync();
        Ok(Opened { body, size, fault })
    }
}
