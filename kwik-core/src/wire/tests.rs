//! Tests of the wire format by topic, and what they share.

mod arbitrary;
mod golden;
mod limits;
mod segmentation;

use bytes::{Bytes, BytesMut};

use super::{CarrierItem, CarrierReader, ControlFrame, ControlReader, WireError, coding::put_varint};

/// What a reader made of some bytes: its items, and the error that ended them.
#[derive(Debug, PartialEq)]
struct Outcome<T> {
    items: Vec<T>,
    error: Option<WireError>,
}

fn read_control(chunks: impl IntoIterator<Item = Bytes>) -> Outcome<ControlFrame> {
    let mut reader = ControlReader::default();
    let mut items = Vec::new();
    for chunk in chunks {
        reader.push(chunk);
        loop {
            match reader.next() {
                Ok(Some(frame)) => items.push(frame),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(reader.next(), Err(error), "an error is final");
                    return Outcome { items, error: Some(error) };
                }
            }
        }
    }
    Outcome { items, error: None }
}

/// Reads a carrier; pieces of one STREAM frame are put together again.
fn read_carrier(chunks: impl IntoIterator<Item = Bytes>) -> Outcome<CarrierItem> {
    let mut reader = CarrierReader::new();
    let mut items = Vec::new();
    for chunk in chunks {
        reader.push(chunk);
        loop {
            match reader.next() {
                Ok(Some(item)) => append_merged(&mut items, item),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(reader.next(), Err(error), "an error is final");
                    assert_eq!(reader.finish(), Err(error));
                    return Outcome { items, error: Some(error) };
                }
            }
        }
    }
    Outcome { items, error: reader.finish().err() }
}

fn append_merged(items: &mut Vec<CarrierItem>, item: CarrierItem) {
    if let Some(CarrierItem::Stream { stream, offset, data, frame_end, fin }) = items.last_mut()
        && offset.0 + (data.len() as u64) < frame_end.0
    {
        let CarrierItem::Stream {
            stream: next_stream,
            offset: next_offset,
            data: next,
            frame_end: next_end,
            fin: last,
        } = &item
        else {
            panic!("{item:?} inside a STREAM frame");
        };
        assert_eq!((*next_stream, *next_end), (*stream, *frame_end));
        assert_eq!(next_offset.0, offset.0 + data.len() as u64);
        assert!(!next.is_empty() && !*fin, "only the last piece carries the end");
        *data = Bytes::from([data.as_ref(), next.as_ref()].concat());
        *fin = *last;
        return;
    }
    items.push(item);
}

fn encoded(frame: &ControlFrame) -> Bytes {
    let mut out = BytesMut::from(&b"before"[..]);
    frame.encode(&mut out);
    assert_eq!(&out[..6], b"before", "encoding appends");
    out.freeze().slice(6..)
}

fn varint(value: u64) -> Vec<u8> {
    let mut out = BytesMut::new();
    put_varint(&mut out, value);
    out.to_vec()
}

/// `type, length, body` as they stand, right or wrong.
fn raw_frame(frame_type: u64, body: &[u8]) -> Vec<u8> {
    [varint(frame_type), varint(body.len() as u64), body.to_vec()].concat()
}

/// A carrier with one packet that holds `frames`.
fn carrier(frames: &[u8]) -> Vec<u8> {
    [varint(0x4b57), varint(0), varint(frames.len() as u64), frames.to_vec()].concat()
}

/// Bytes from hexadecimal digits; `aa*64` repeats a byte, and blanks are for the reader.
fn hex(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for word in text.split_whitespace() {
        let (digits, times) = word.split_once('*').unwrap_or((word, "1"));
        let bytes: Result<Vec<u8>, _> =
            (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16)).collect();
        out.extend(bytes.expect("hexadecimal digits").repeat(times.parse().expect("a count")));
    }
    out
}
