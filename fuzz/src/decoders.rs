//! Bytes from the wire, cut at every place.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Debug;

use bytes::Bytes;
use kwik_core::__test_exports::{CarrierReader, ControlReader, Frame, Item, Ticket, inside::Input};

thread_local! {
    static REACHED: RefCell<BTreeSet<String>> = RefCell::default();
}

/// The frames that were decoded on this thread so far, by name.
#[must_use]
pub fn reached() -> BTreeSet<String> {
    REACHED.with_borrow(Clone::clone)
}

fn note(value: &impl Debug) {
    let text = format!("{value:?}");
    let name = text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned();
    REACHED.with_borrow_mut(|reached| reached.insert(name));
}

/// Reads all of `chunks`; the outcome does not depend on how they are cut.
fn read_all<T>(chunks: &[&[u8]], mut push: impl FnMut(Bytes) -> Vec<Result<T, String>>) -> Vec<Result<T, String>> {
    let mut found = Vec::new();
    for chunk in chunks {
        found.extend(push(Bytes::copy_from_slice(chunk)));
        if found.last().is_some_and(Result::is_err) {
            break;
        }
    }
    found
}

fn control_frames(chunks: &[&[u8]]) -> Vec<Result<Frame, String>> {
    let mut reader = ControlReader::default();
    read_all(chunks, |chunk| {
        reader.push(chunk);
        std::iter::from_fn(|| reader.poll().transpose()).scan(false, until_error).collect()
    })
}

fn carrier_items(chunks: &[&[u8]]) -> Vec<Result<Item, String>> {
    let mut reader = CarrierReader::default();
    read_all(chunks, |chunk| {
        reader.push(chunk);
        std::iter::from_fn(|| reader.poll().transpose()).scan(false, until_error).collect()
    })
}

fn until_error<T>(failed: &mut bool, item: Result<T, String>) -> Option<Result<T, String>> {
    if std::mem::replace(failed, item.is_err()) { None } else { Some(item) }
}

/// A control plane. What was decoded is encoded and decoded again.
pub(crate) fn control(input: &mut Input<'_>) {
    let cut = usize::from(input.byte());
    let all = input.take(usize::MAX);
    let whole = control_frames(&[all]);
    let (head, tail) = all.split_at(cut.min(all.len()));
    assert_eq!(control_frames(&[head, tail]), whole, "cut at {cut}");
    if all.len() <= 512 {
        let bytes: Vec<&[u8]> = all.chunks(1).collect();
        assert_eq!(control_frames(&bytes), whole, "byte by byte");
    }
    for frame in whole.into_iter().flatten() {
        note(&frame);
        let encoded = frame.clone().encode();
        assert_eq!(control_frames(&[&encoded]), [Ok(frame)]);
    }
}

/// A carrier. Bytes of streams come in pieces where the chunks are cut, and are compared as bytes.
pub(crate) fn data(input: &mut Input<'_>) {
    let cut = usize::from(input.byte());
    let all = input.take(usize::MAX);
    let whole = joined(carrier_items(&[all]));
    let (head, tail) = all.split_at(cut.min(all.len()));
    assert_eq!(joined(carrier_items(&[head, tail])), whole, "cut at {cut}");
    if all.len() <= 512 {
        let bytes: Vec<&[u8]> = all.chunks(1).collect();
        assert_eq!(joined(carrier_items(&bytes)), whole, "byte by byte");
    }
    whole.iter().flatten().for_each(note);
}

/// Pieces of one frame of a stream put together.
fn joined(items: Vec<Result<Item, String>>) -> Vec<Result<Item, String>> {
    let mut found: Vec<Result<Item, String>> = Vec::new();
    for item in items {
        if let (
            Some(Ok(Item::Stream { stream: before, offset: start, data: head, fin: ended })),
            Ok(Item::Stream { stream, offset, data, fin }),
        ) = (found.last_mut(), &item)
            && before == stream
            && start.0 + head.len() as u64 == offset.0
            && !*ended
        {
            *head = [&head[..], &data[..]].concat().into();
            *ended = *fin;
            continue;
        }
        found.push(item);
    }
    found
}

/// A ticket: one encoding, and no other.
pub(crate) fn ticket(input: &mut Input<'_>) {
    let bytes = input.take(usize::MAX);
    let Some(ticket) = Ticket::decode(bytes) else { return };
    note(&ticket);
    let issuer = kwik_core::Identity::from_seed([1; 32]);
    let signed = ticket.clone().sign(&issuer);
    if ticket.issuer == issuer.public() {
        // All but the signature.
        assert_eq!(signed[..signed.len() - 64], bytes[..bytes.len() - 64]);
    }
    assert_eq!(Ticket::decode(&signed).map(|again| again.server_name), Some(ticket.server_name));
}
