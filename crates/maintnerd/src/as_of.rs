//! Where a log stood at some time.

use corpus::{Timestamp, seen_at};
use mutlog::{LogReader, Place, Records, Segment, Split};

use crate::replay::ReplayError;

/// Where the first record begins that was written after `time`, as far as the log tells; its end if there
/// is none.
pub fn place_at(reader: &LogReader, log: &[Segment], time: Timestamp) -> Result<Place, ReplayError> {
    let mut end = Place::default();
    for segment in log {
        let number = segment.number;
        let len = usize::try_from(segment.len).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len];
        let begin = Place {
            segment: number,
            offset: 0,
        };
        let read = reader.read_into(begin, &mut bytes);
        read.map_err(|source| ReplayError::Io { number, source })?;
        let mut records = Records::new(&bytes, 0);
        loop {
            let offset = u32::try_from(records.offset()).expect("a segment is below 4 GiB");
            end = Place {
                segment: number,
                offset,
            };
            let Some((at, payload)) = records.next() else {
                break;
            };
            let seen = seen_at(payload).map_err(|source| ReplayError::NoMutation {
                number,
                offset: at,
                source,
            })?;
            if seen > Some(time) {
                return Ok(end);
            }
        }
        match records.end() {
            Split::End => {}
            Split::Bad(source) => return Err(ReplayError::Damaged { number, source }),
            Split::Short | Split::Record { .. } => {
                let offset = records.offset();
                return Err(ReplayError::Torn { number, offset });
            }
        }
    }
    Ok(end)
}
