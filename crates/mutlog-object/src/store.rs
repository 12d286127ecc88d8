use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion};
use tokio::sync::mpsc;

/// How long a call may take, the client's own retries included.
const PATIENCE: Duration = Duration::from_secs(60);

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An object store for callers that wait: whoever writes a log has a thread for it.
#[derive(Clone)]
pub struct Store {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// To the thread that runs the calls. It ends when all stores are gone.
    jobs: mpsc::Sender<Job>,
}

impl Store {
    /// `prefix`: below which everything is; may be empty.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: &str) -> io::Result<Store> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (jobs, mut asked) = mpsc::channel::<Job>(1);
        std::thread::Builder::new()
            .name("object store".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    while let Some(job) = asked.recv().await {
                        job.await;
                    }
                });
            })?;
        Ok(Store {
            store,
            prefix: Path::from(prefix),
            jobs,
        })
    }

    fn at(&self, name: &str) -> Path {
        Path::from(format!("{}/{name}", self.prefix))
    }

    /// Runs a call on the thread for them, and waits. Works from async code as well, which it blocks as
    /// writing to a disk does.
    fn call<T: Send + 'static>(
        &self,
        call: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> io::Result<T> {
        let (answer, answered) = std_mpsc::sync_channel(1);
        let mut job: Job = Box::pin(async move {
            let done = tokio::time::timeout(PATIENCE, call).await;
            // Nobody waits any more if this fails.
            let _ = answer.send(done);
        });
        let gone = || io::Error::other("the thread of the object store is gone");
        loop {
            match self.jobs.try_send(job) {
                Ok(()) => break,
                Err(mpsc::error::TrySendError::Full(back)) => job = back,
                Err(mpsc::error::TrySendError::Closed(_)) => return Err(gone()),
            }
            std::thread::yield_now();
        }
        match answered.recv().map_err(|_| gone())? {
            Ok(done) => done.map_err(error),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Names below the prefix, with their lengths.
    pub(crate) fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let (store, prefix) = (self.store.clone(), self.prefix.clone());
        let wanted = Some(prefix.clone()).filter(|prefix| !prefix.as_ref().is_empty());
        let found = self.call(async move { store.list(wanted.as_ref()).try_collect::<Vec<_>>().await })?;
        let names = found.into_iter().filter_map(|object| {
            let name = object.location.as_ref().strip_prefix(prefix.as_ref())?;
            Some((name.trim_start_matches('/').to_owned(), object.size))
        });
        Ok(names.collect())
    }

    /// What is below the prefix.
    pub fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.list()?.into_iter().map(|(name, _)| name).collect())
    }

    /// Deletes an object, by hand: whoever writes the log needs none of this.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        self.delete(name)
    }

    /// `None`: there is none.
    pub(crate) fn get(&self, name: &str) -> io::Result<Option<(Bytes, UpdateVersion)>> {
        let (store, at) = (self.store.clone(), self.at(name));
        let got = self.call(async move {
            match store.get(&at).await {
                Ok(found) => {
                    let version = UpdateVersion {
                        e_tag: found.meta.e_tag.clone(),
                        version: found.meta.version.clone(),
                    };
                    Ok(Some((found.bytes().await?, version)))
                }
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        });
        got.map_err(|error| about("get", name, error))
    }

    pub(crate) fn put(&self, name: &str, bytes: Bytes, mode: PutMode) -> io::Result<()> {
        let (store, at) = (self.store.clone(), self.at(name));
        let options = PutOptions {
            mode,
            ..PutOptions::default()
        };
        let put = self.call(async move { store.put_opts(&at, PutPayload::from(bytes), options).await });
        put.map(drop).map_err(|error| about("put", name, error))
    }

    /// What is not there is deleted.
    pub(crate) fn delete(&self, name: &str) -> io::Result<()> {
        let (store, at) = (self.store.clone(), self.at(name));
        let deleted = self.call(async move {
            match store.delete(&at).await {
                Err(object_store::Error::NotFound { .. }) => Ok(()),
                deleted => deleted,
            }
        });
        deleted.map_err(|error| about("delete", name, error))
    }
}

fn error(error: object_store::Error) -> io::Error {
    let kind = match &error {
        object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. } => {
            io::ErrorKind::AlreadyExists
        }
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

fn about(what: &str, name: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what} the object `{name}`: {error}"))
}
