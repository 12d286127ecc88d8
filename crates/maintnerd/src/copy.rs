use std::time::Duration;

use futures_util::{StreamExt, stream};
use mutlog::{CommitError, Folder, FolderDisk, LogReader, Segment, SegmentNumber, TARGET, Writer};
use reqwest::{StatusCode, Url, header};

use crate::index::{Listed, Plan, plan, segments};
use crate::leader::open_writer;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Longer than a server lets a request wait for news.
const IDLE_LIMIT: Duration = Duration::from_secs(70);
/// Segments that are fetched at once.
const PARALLEL: usize = 4;

/// A folder that is kept like the log of a server.
pub struct Copy {
    client: reqwest::Client,
    /// Of the index.
    url: Url,
    folder: Folder,
    /// `None` only while it is used.
    writer: Option<Writer<FolderDisk>>,
    /// Something was dropped, and the caller was not told yet.
    split: bool,
}

/// How the copy changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Unchanged,
    Grown,
    /// The server's log is not any more one that went on from ours. What was read of ours does not
    /// hold; the copy has the server's.
    Split,
}

#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Worth another try.
    #[error("cannot get `{url}`")]
    Http { url: String, source: reqwest::Error },
    #[error("`{url}` answered {status}")]
    Status { url: String, status: StatusCode },
    /// The server is not one of logs, or errs.
    #[error("the index at `{url}` is none: {why}")]
    BadIndex { url: String, why: String },
    #[error("segment {} of `{url}` is not what the index says", listed.number)]
    Corrupt { url: String, listed: Segment },
    /// The disk; opening the copy anew may help.
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error("writing the copy was stopped")]
    Stopped,
}

impl Copy {
    /// `url`: where the server's `/logs` is. The folder is made if it is not there; one that the
    /// original's client kept is taken over.
    pub fn open(url: Url, folder: Folder) -> anyhow::Result<Copy> {
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            .read_timeout(IDLE_LIMIT)
            .build()?;
        let (writer, _) = open_writer(&folder, TARGET)?;
        Ok(Copy {
            client,
            url,
            folder,
            writer: Some(writer),
            split: false,
        })
    }

    /// What the copy holds.
    pub fn segments(&self) -> Vec<Segment> {
        self.writer.as_ref().map(Writer::visible).unwrap_or_default()
    }

    /// Of what the copy holds. After a split, ask for another.
    pub fn reader(&self) -> LogReader {
        LogReader::new(self.folder.clone())
    }

    /// Waits until the server's log is another than ours, at most as long as the server lets it wait,
    /// and makes ours the same. Not to be dropped before its end: the copy is lost then.
    pub async fn update(&mut self) -> Result<Outcome, CopyError> {
        let have = self.segments();
        let size: u64 = have.iter().map(|segment| segment.len).sum();
        let Some((listed, segments)) = self.index(size).await? else {
            return Ok(Outcome::Unchanged);
        };
        match plan(&have, &segments) {
            Plan::Nothing if !self.split => return Ok(Outcome::Unchanged),
            Plan::Nothing | Plan::GoOn => {}
            Plan::DropFrom(first) => self.drop_from(first).await?,
        }
        if let Caught::Apart(segment) = self.catch_up(&listed, &segments).await? {
            // What it grew by does not go with what we have.
            self.drop_from(segment.number).await?;
            if let Caught::Apart(listed) = self.catch_up(&listed, &segments).await? {
                return Err(CopyError::Corrupt {
                    url: self.url.to_string(),
                    listed,
                });
            }
        }
        Ok(match std::mem::take(&mut self.split) {
            true => Outcome::Split,
            false => Outcome::Grown,
        })
    }

    async fn drop_from(&mut self, first: SegmentNumber) -> Result<(), CopyError> {
        self.split |= self.segments().len() > first.0 as usize;
        self.write(move |writer| writer.drop_from(first)).await
    }

    /// `None`: it has that size still.
    async fn index(&self, size: u64) -> Result<Option<(Vec<Listed>, Vec<Segment>)>, CopyError> {
        let mut url = self.url.clone();
        url.query_pairs_mut()
            .append_pair("waitsizenot", &size.to_string());
        let answer = self.get(&url, None).await?;
        if answer.status() == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        let answer = expect(answer, &url, &[StatusCode::OK])?;
        let body = answer.bytes().await.map_err(|source| CopyError::Http {
            url: url.to_string(),
            source,
        })?;
        let bad = |why: String| CopyError::BadIndex {
            url: url.to_string(),
            why,
        };
        let listed: Vec<Listed> = serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))?;
        let segments = segments(&listed).map_err(bad)?;
        Ok(Some((listed, segments)))
    }

    /// Fetches all that the copy lacks, several segments at a time, and takes it in in order.
    async fn catch_up(&mut self, listed: &[Listed], segments: &[Segment]) -> Result<Caught, CopyError> {
        let (growing, len) = self.writer.as_ref().map(Writer::end).ok_or(CopyError::Stopped)?;
        let first = growing.0 as usize;
        let missing: Vec<(Listed, Segment, u64)> = listed
            .iter()
            .zip(segments)
            .skip(first)
            .enumerate()
            .map(|(at, (listed, segment))| (listed.clone(), segment.clone(), if at == 0 { len } else { 0 }))
            .collect();
        let (client, base) = (self.client.clone(), self.url.clone());
        let fetched = stream::iter(missing).map(|(listed, segment, have)| {
            let (client, base) = (client.clone(), base.clone());
            async move {
                (
                    segment.clone(),
                    fetch(&client, &base, &listed, &segment, have).await,
                )
            }
        });
        let mut fetched = fetched.buffered(PARALLEL);
        while let Some((segment, bytes)) = fetched.next().await {
            let bytes = bytes?;
            let (number, wanted) = (segment.number, segment.sum);
            let whole = segments.last() != Some(&segment);
            let taken = self.write(move |writer| {
                if !bytes.is_empty() && !writer.copy(&bytes, wanted)? {
                    return Ok(false);
                }
                if whole && writer.end().0 == number {
                    writer.seal_copy()?;
                }
                Ok(true)
            });
            if !taken.await? {
                return Ok(Caught::Apart(segment));
            }
        }
        Ok(Caught::Up)
    }

    /// Does with the folder what may block.
    async fn write<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Writer<FolderDisk>) -> Result<T, CommitError> + Send + 'static,
    ) -> Result<T, CopyError> {
        let mut writer = self.writer.take().ok_or(CopyError::Stopped)?;
        let worked = tokio::task::spawn_blocking(move || {
            let done = work(&mut writer);
            (writer, done)
        });
        let (writer, done) = worked.await.map_err(|_| CopyError::Stopped)?;
        self.writer = Some(writer);
        Ok(done?)
    }

    async fn get(&self, url: &Url, range: Option<String>) -> Result<reqwest::Response, CopyError> {
        get(&self.client, url, range).await
    }
}

enum Caught {
    Up,
    /// What was fetched of this segment does not go with what was there.
    Apart(Segment),
}

async fn get(
    client: &reqwest::Client,
    url: &Url,
    range: Option<String>,
) -> Result<reqwest::Response, CopyError> {
    let mut request = client.get(url.clone());
    if let Some(range) = range {
        request = request.header(header::RANGE, range);
    }
    let answer = request.send().await;
    answer.map_err(|source| CopyError::Http {
        url: url.to_string(),
        source,
    })
}

fn expect(
    answer: reqwest::Response,
    url: &Url,
    wanted: &[StatusCode],
) -> Result<reqwest::Response, CopyError> {
    match answer.status() {
        status if wanted.contains(&status) => Ok(answer),
        status => Err(CopyError::Status {
            url: url.to_string(),
            status,
        }),
    }
}

/// The bytes of a segment from `have` to its listed end. A server may ignore the range, and may give
/// more than was listed; what is too short shows by its sum.
async fn fetch(
    client: &reqwest::Client,
    base: &Url,
    listed: &Listed,
    segment: &Segment,
    have: u64,
) -> Result<Vec<u8>, CopyError> {
    if have >= segment.len {
        return Ok(Vec::new());
    }
    let bad = |error: &dyn std::fmt::Display| CopyError::BadIndex {
        url: base.to_string(),
        why: format!("`{}`: {error}", listed.url),
    };
    let url = base.join(&listed.url).map_err(|error| bad(&error))?;
    let answer = get(client, &url, Some(format!("bytes={have}-{}", segment.len - 1))).await?;
    let mut answer = expect(answer, &url, &[StatusCode::OK, StatusCode::PARTIAL_CONTENT])?;
    let mut skip = if answer.status() == StatusCode::OK {
        have
    } else {
        0
    };
    let wanted = segment.len - have;
    let mut bytes = Vec::new();
    loop {
        let piece = answer.chunk().await.map_err(|source| CopyError::Http {
            url: url.to_string(),
            source,
        })?;
        let Some(piece) = piece else { return Ok(bytes) };
        let skipped = skip.min(piece.len() as u64);
        skip -= skipped;
        let rest = &piece[usize::try_from(skipped).expect("at most the piece")..];
        let room = usize::try_from(wanted - bytes.len() as u64).unwrap_or(usize::MAX);
        bytes.extend_from_slice(&rest[..room.min(rest.len())]);
        if bytes.len() as u64 == wanted {
            return Ok(bytes);
        }
    }
}
