//! What the application's programs say to each other. KWIK carries it and never looks inside.
//!
//! On the client's stream, in this order: a [`Request`] line from the client; a [`Header`] line, the bytes of the file
//! and a [`Trailer`] line from the servers; an [`Acknowledgement`] line from the client; the end of the stream from the
//! primary, which tells the client that the acknowledgement was read.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest line or message, in bytes.
pub(crate) const MESSAGE_BYTES_MAX: usize = 4 * 1024;

/// Client to primary: which file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) name: String,
}

/// Primary to client, before the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Header {
    /// So many bytes follow.
    File { length: u64 },
    /// Nothing follows.
    Refused { reason: String },
}

/// Primary to client, after the file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Trailer {
    pub(crate) sha256: String,
    /// Bytes that a server was given and another one delivered.
    pub(crate) refilled_bytes: u64,
    /// Questions by raw packet that were answered.
    pub(crate) raw_round_trips: u64,
    /// How many ranges each path was given.
    pub(crate) ranges: BTreeMap<u32, u64>,
}

/// Client to primary: what it has.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Acknowledgement {
    pub(crate) length: u64,
    pub(crate) sha256: String,
}

/// Primary to secondary, as the request of a delegation: which bytes of which file the delegated range is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Command {
    pub(crate) name: String,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// Primary to secondary, as a raw packet: does it hold the file?
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Question {
    pub(crate) name: String,
}

/// Secondary to primary, as a raw packet.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) name: String,
    /// The length of its copy, if it has one.
    pub(crate) length: Option<u64>,
}

/// A message as a packet or a request.
pub(crate) fn encode(message: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(message).context("a message could not be encoded")
}

/// The message in a packet or a request.
pub(crate) fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<M> {
    serde_json::from_slice(bytes)
        .with_context(|| format!("`{}` is not the message expected", String::from_utf8_lossy(bytes)))
}

/// A message as a line of a stream.
pub(crate) fn line(message: &impl Serialize) -> Result<Vec<u8>> {
    let mut line = encode(message)?;
    line.push(b'\n');
    Ok(line)
}

/// Reads one line, and not a byte of what follows it.
pub(crate) async fn read_line<M: DeserializeOwned>(reader: &mut (impl AsyncRead + Unpin)) -> Result<M> {
    let mut line = Vec::new();
    loop {
        match reader.read_u8().await.context("the stream ended within a line")? {
            b'\n' => return decode(&line),
            _ if line.len() == MESSAGE_BYTES_MAX => bail!("a line is longer than {MESSAGE_BYTES_MAX} bytes"),
            byte => line.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_leaves_what_follows_it() {
        let mut bytes = line(&Question { name: "a\nfile".to_owned() }).unwrap();
        bytes.extend_from_slice(b"rest");
        let mut reader = bytes.as_slice();
        let question: Question = read_line(&mut reader).await.unwrap();
        assert_eq!((question.name.as_str(), reader), ("a\nfile", b"rest".as_slice()));
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_refused() {
        let endless = vec![b' '; MESSAGE_BYTES_MAX + 1];
        assert!(read_line::<Question>(&mut endless.as_slice()).await.is_err());
        assert!(read_line::<Question>(&mut b"{}".as_slice()).await.is_err());
    }
}
