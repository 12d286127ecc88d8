use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail};

/// A connection that is used for one request after another.
pub struct Connection {
    address: SocketAddr,
    stream: BufReader<TcpStream>,
}

pub struct Answer {
    pub status: u16,
    /// As it was sent: compressed, if that was asked for.
    pub body: Vec<u8>,
}

impl Connection {
    pub fn open(address: SocketAddr) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        let stream = BufReader::with_capacity(1 << 20, stream);
        Ok(Connection { address, stream })
    }

    /// `extra`: whole header lines, each with its end.
    pub fn send(&mut self, method: &str, path: &str, extra: &str, body: &str) -> anyhow::Result<Answer> {
        let mut got = Vec::new();
        let status = self.send_into(method, path, extra, body, &mut |piece| {
            got.extend_from_slice(piece)
        })?;
        Ok(Answer { status, body: got })
    }

    pub fn get(&mut self, path: &str) -> anyhow::Result<Answer> {
        self.send("GET", path, "", "")
    }

    /// Hands out the body piece by piece.
    pub fn send_into(
        &mut self,
        method: &str,
        path: &str,
        extra: &str,
        body: &str,
        out: &mut dyn FnMut(&[u8]),
    ) -> anyhow::Result<u16> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n{extra}\r\n{body}",
            self.address,
            body.len()
        );
        self.stream.get_mut().write_all(head.as_bytes())?;
        let line = self.line()?;
        let status: u16 = line
            .split(' ')
            .nth(1)
            .and_then(|word| word.parse().ok())
            .with_context(|| format!("`{line}` is no answer"))?;
        let (mut length, mut chunked) = (None, false);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            match line.split_once(':') {
                None => break,
                Some(("content-length", value)) => length = Some(value.trim().parse::<u64>()?),
                Some(("transfer-encoding", value)) => chunked = value.trim() == "chunked",
                Some(_) => {}
            }
        }
        match (length, chunked) {
            (_, true) => loop {
                let size = u64::from_str_radix(&self.line()?, 16)?;
                self.copy(size, out)?;
                self.line()?;
                if size == 0 {
                    return Ok(status);
                }
            },
            (Some(length), false) => self.copy(length, out)?,
            (None, false) if status == 204 || status == 304 => {}
            (None, false) => bail!("an answer without a length"),
        }
        Ok(status)
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        anyhow::ensure!(self.stream.read_line(&mut line)? > 0, "the answer was cut off");
        Ok(line.trim_end().to_owned())
    }

    fn copy(&mut self, mut left: u64, out: &mut dyn FnMut(&[u8])) -> anyhow::Result<()> {
        let mut piece = vec![0; 1 << 18];
        while left > 0 {
            let most = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let n = self.stream.read(&mut piece[..most])?;
            anyhow::ensure!(n > 0, "the answer was cut off");
            out(&piece[..n]);
            left -= n as u64;
        }
        Ok(())
    }
}
