use crate::{AnswerHead, RequestHead};

/// Takes a body apart, as its head says it is framed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyDecoder {
    state: State,
    /// Bytes of trailers so far.
    trailers: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Length(u64),
    /// An answer without a length: all until the peer closes.
    UntilClose,
    /// Before or within a chunk's size line.
    Size,
    Chunk(u64),
    /// The line end behind a chunk.
    ChunkEnd,
    /// Lines behind the last chunk, to the empty one.
    Trailers,
    Done,
}

/// What a look at the input gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// `input[skip..skip + take]` is body; both were used up.
    Data { skip: usize, take: usize },
    /// `used` bytes of input hold no body; look again with more.
    More { used: usize },
    /// The body is over; `used` bytes of input belonged to it.
    End { used: usize },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("`{0}` is no length of a body")]
    Length(String),
    #[error("`{0}` is no transfer coding known here; wanted `chunked`")]
    Coding(String),
    #[error("a chunk is framed wrongly")]
    Chunk,
}

/// Longest line between chunks.
const MAX_LINE: usize = 4096;

/// Most bytes of trailers: without a limit they could go on for ever.
const MAX_TRAILERS: usize = 64 * 1024;

impl BodyDecoder {
    pub fn new(head: &RequestHead) -> Result<BodyDecoder, BodyError> {
        let headers = head.headers.iter();
        let framed = framing(headers.map(|(name, value)| (name.as_str(), value.as_slice())))?;
        Ok(BodyDecoder::at(framed.unwrap_or(State::Done)))
    }

    /// For an answer to `GET` or `POST`.
    pub fn of_answer(head: &AnswerHead) -> Result<BodyDecoder, BodyError> {
        if matches!(head.status, 100..200 | 204 | 304) {
            return Ok(BodyDecoder::at(State::Done));
        }
        let headers = head.headers.iter();
        let framed = framing(headers.map(|(name, value)| (name.as_str(), value.as_bytes())))?;
        Ok(BodyDecoder::at(framed.unwrap_or(State::UntilClose)))
    }

    fn at(state: State) -> BodyDecoder {
        BodyDecoder { state, trailers: 0 }
    }

    /// Whether nothing more of the body is to come.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the peer ends the body by closing the connection.
    pub fn ends_with_connection(&self) -> bool {
        self.state == State::UntilClose
    }

    /// Looks at the input from where the last look ended.
    pub fn decode(&mut self, input: &[u8]) -> Result<Decoded, BodyError> {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            match &mut self.state {
                State::Done => return Ok(Decoded::End { used }),
                State::UntilClose if rest.is_empty() => return Ok(Decoded::More { used }),
                State::UntilClose => {
                    return Ok(Decoded::Data {
                        skip: used,
                        take: rest.len(),
                    });
                }
                State::Length(left) | State::Chunk(left) => {
                    if rest.is_empty() {
                        return Ok(Decoded::More { used });
                    }
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left -= take as u64;
                    if *left == 0 {
                        self.state = if matches!(self.state, State::Length(_)) {
                            State::Done
                        } else {
                            State::ChunkEnd
                        };
                    }
                    return Ok(Decoded::Data { skip: used, take });
                }
                State::ChunkEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        used += 2;
                        self.state = State::Size;
                    }
                    [] | [b'\r'] => return Ok(Decoded::More { used }),
                    _ => return Err(BodyError::Chunk),
                },
                State::Size | State::Trailers => {
                    let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else {
                        // Half of the line's end may be there.
                        return if rest.len() > MAX_LINE + 1 {
                            Err(BodyError::Chunk)
                        } else {
                            Ok(Decoded::More { used })
                        };
                    };
                    if end > MAX_LINE {
                        return Err(BodyError::Chunk);
                    }
                    let line = &rest[..end];
                    used += end + 2;
                    if self.state == State::Trailers {
                        self.trailers += line.len() + 2;
                        if line.is_empty() {
                            self.state = State::Done;
                        } else if self.trailers > MAX_TRAILERS {
                            return Err(BodyError::Chunk);
                        }
                        continue;
                    }
                    let digits = line.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
                    let text = std::str::from_utf8(digits).map_err(|_| BodyError::Chunk)?;
                    let hex = !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
                    let size = u64::from_str_radix(text, 16)
                        .ok()
                        .filter(|_| hex)
                        .ok_or(BodyError::Chunk)?;
                    self.state = if size == 0 {
                        State::Trailers
                    } else {
                        State::Chunk(size)
                    };
                }
            }
        }
    }
}

/// What the headers say; `None`: nothing. Names are in lower case.
fn framing<'a>(headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> Result<Option<State>, BodyError> {
    let (mut coding, mut length) = (None, None);
    for (name, value) in headers {
        match name {
            "transfer-encoding" if coding.is_none() => coding = Some(value),
            "content-length" if length.is_none() => length = Some(value),
            "transfer-encoding" => return Err(BodyError::Coding("two codings".to_owned())),
            "content-length" => return Err(BodyError::Length("two lengths".to_owned())),
            _ => {}
        }
    }
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    match (coding, length) {
        (None, None) => Ok(None),
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Some(State::Size)),
        // Both is how requests are smuggled.
        (Some(coding), _) => Err(BodyError::Coding(text(coding))),
        (None, Some(value)) => {
            let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
            match text(value).parse().ok().filter(|_| digits) {
                Some(0) => Ok(Some(State::Done)),
                Some(length) => Ok(Some(State::Length(length))),
                None => Err(BodyError::Length(text(value))),
            }
        }
    }
}

/// `bytes` as one chunk; they must not be empty, for that would be the last.
pub fn chunk(bytes: &[u8]) -> Vec<u8> {
    let mut out = format!("{:x}\r\n", bytes.len()).into_bytes();
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
    out
}

/// The end of a chunked body with its trailers. Control bytes in values become spaces: a trailer that
/// is lost is a machine that failed, to Go's client.
pub fn last_chunk(trailers: &[(&str, &str)]) -> Vec<u8> {
    let mut out = b"0\r\n".to_vec();
    for (name, value) in trailers {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend(
            value
                .bytes()
                .map(|b| if b < 0x20 || b == 0x7f { b' ' } else { b }),
        );
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoder(headers: &str) -> Result<BodyDecoder, BodyError> {
        let text = format!("PUT / HTTP/1.1\r\n{headers}\r\n");
        BodyDecoder::new(
            &RequestHead::parse(text.as_bytes())
                .expect("a head")
                .expect("whole")
                .0,
        )
    }

    /// Feeds `input` in pieces of `size`; returns the body and what was left over.
    fn feed(mut decoder: BodyDecoder, input: &[u8], size: usize) -> Result<(Vec<u8>, Vec<u8>), BodyError> {
        let (mut body, mut have, mut at) = (Vec::new(), Vec::new(), 0);
        loop {
            match decoder.decode(&have)? {
                Decoded::Data { skip, take } => {
                    body.extend_from_slice(&have[skip..skip + take]);
                    have.drain(..skip + take);
                }
                Decoded::End { used } => {
                    have.drain(..used);
                    have.extend_from_slice(&input[at..]);
                    return Ok((body, have));
                }
                Decoded::More { used } => {
                    have.drain(..used);
                    assert!(at < input.len(), "the body does not end");
                    let next = (at + size).min(input.len());
                    have.extend_from_slice(&input[at..next]);
                    at = next;
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_body_is_the_same_however_it_is_cut(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..8),
            size in 1usize..40,
        ) {
            let whole: Vec<u8> = pieces.concat();
            let mut chunked: Vec<u8> = pieces.iter().flat_map(|piece| chunk(piece)).collect();
            chunked.extend(last_chunk(&[("X", "y")]));
            chunked.extend_from_slice(b"next");
            let read = feed(decoder("Transfer-Encoding: chunked\r\n").expect("framed"), &chunked, size).expect("a body");
            prop_assert_eq!(read, (whole.clone(), b"next".to_vec()));
            let plain = [whole.clone(), b"next".to_vec()].concat();
            let head = format!("Content-Length: {}\r\n", whole.len());
            let read = feed(decoder(&head).expect("framed"), &plain, size).expect("a body");
            prop_assert_eq!(read, (whole, b"next".to_vec()));
        }
    }

    #[test]
    fn an_answer_without_a_length_goes_on_until_its_connection_ends() {
        let answer = |text: &str| {
            let (head, _) = AnswerHead::parse(text.as_bytes())
                .expect("a head")
                .expect("whole");
            BodyDecoder::of_answer(&head).expect("framed")
        };
        let mut open = answer("HTTP/1.0 200 OK\r\n\r\n");
        assert!(open.ends_with_connection() && !open.is_done());
        assert_eq!(open.decode(b"ab"), Ok(Decoded::Data { skip: 0, take: 2 }));
        assert_eq!(open.decode(b""), Ok(Decoded::More { used: 0 }));
        assert!(answer("HTTP/0.0 101 Switching Protocols\r\n\r\n").is_done());
        let sized = answer("HTTP/1.1 412 X\r\nContent-Length: 2\r\n\r\n");
        assert!(!sized.ends_with_connection() && !sized.is_done());
    }

    #[test]
    fn wrong_framing_is_refused() {
        assert!(matches!(
            decoder("Content-Length: -1\r\n"),
            Err(BodyError::Length(_))
        ));
        assert!(matches!(
            decoder("Content-Length: 1\r\nContent-Length: 1\r\n"),
            Err(BodyError::Length(_))
        ));
        assert!(matches!(
            decoder("Transfer-Encoding: gzip\r\n"),
            Err(BodyError::Coding(_))
        ));
        assert!(matches!(
            decoder("Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n"),
            Err(BodyError::Coding(_))
        ));
        assert!(matches!(
            decoder("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"),
            Err(BodyError::Coding(_))
        ));
        for bad in [
            "x\r\n",
            "-1\r\n",
            "\r\n",
            "3\r\nabcd\r\n",
            "fffffffffffffffff\r\n",
        ] {
            let decoder = decoder("Transfer-Encoding: chunked\r\n").expect("framed");
            assert_eq!(
                feed(decoder, bad.as_bytes(), 100),
                Err(BodyError::Chunk),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn a_line_is_as_long_as_it_may_be_however_it_is_cut() {
        for (length, taken) in [(MAX_LINE, true), (MAX_LINE + 1, false)] {
            let line = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(length - 2));
            for size in [1, 1000, line.len()] {
                let decoder = decoder("Transfer-Encoding: chunked\r\n").expect("framed");
                let read = feed(decoder, line.as_bytes(), size);
                assert_eq!(read.is_ok(), taken, "{length} in pieces of {size}");
            }
        }
    }

    #[test]
    fn trailers_without_end_are_refused() {
        let endless = [b"0\r\n".to_vec(), b"X: y\r\n".repeat(MAX_TRAILERS)].concat();
        let decoder = decoder("Transfer-Encoding: chunked\r\n").expect("framed");
        assert_eq!(feed(decoder, &endless, 1000), Err(BodyError::Chunk));
    }

    #[test]
    fn trailers_keep_to_one_line() {
        assert_eq!(
            last_chunk(&[("Process-State", "a\r\nb")]),
            b"0\r\nProcess-State: a  b\r\n\r\n"
        );
    }
}
