//! The same bytes mean the same in whatever chunks they come, and no bytes can do harm.

use bytes::{Bytes, BytesMut};
use proptest::{collection::vec, option, prelude::*};

use super::{Outcome, arbitrary, carrier, encoded, hex, raw_frame, read_carrier, read_control, varint};
use crate::{
    error::{ErrorCode, TransportCode},
    id::{PathId, StreamId},
    wire::{CarrierItem, CarrierReader, Close, ControlFrame, ControlReader, Raw, SignedPayload},
};

/// `bytes` cut at the given places, which wrap around.
fn split(bytes: &Bytes, cuts: &[u16]) -> Vec<Bytes> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| usize::from(*cut) % (bytes.len() + 1)).collect();
    cuts.push(bytes.len());
    cuts.sort_unstable();
    let mut start = 0;
    cuts.into_iter().map(|cut| bytes.slice(std::mem::replace(&mut start, cut)..cut)).collect()
}

fn in_single_bytes(bytes: &Bytes) -> Vec<Bytes> {
    (0..bytes.len()).map(|at| bytes.slice(at..=at)).collect()
}

/// Legal control frames with unknown ones between, and the legal ones alone.
fn control_plane() -> impl Strategy<Value = (Bytes, Vec<ControlFrame>)> {
    vec((option::of(arbitrary::unknown_frame()), arbitrary::control_frame()), 0..8).prop_map(|frames| {
        let mut out = BytesMut::new();
        for (unknown, frame) in &frames {
            if let Some((frame_type, body)) = unknown {
                out.extend_from_slice(&raw_frame(*frame_type, body));
            }
            frame.encode(&mut out);
        }
        (out.freeze(), frames.into_iter().map(|(_, frame)| frame).collect())
    })
}

/// Legal bytes with some changed.
fn damaged(bytes: Bytes, changes: &[(u16, u8)]) -> Bytes {
    let mut bytes = bytes.to_vec();
    for (at, value) in changes {
        let at = usize::from(*at) % bytes.len().max(1);
        if let Some(byte) = bytes.get_mut(at) {
            *byte = *value;
        }
    }
    bytes.into()
}

/// Bytes of which many are small, so that types and lengths make sense.
fn noise() -> impl Strategy<Value = Bytes> {
    vec(prop_oneof![any::<u8>(), 0..0x20u8, 0..8u8], 0..400).prop_map(Bytes::from)
}

proptest! {
    #[test]
    fn control_frames_survive_the_wire(frame in arbitrary::control_frame()) {
        let outcome = read_control([encoded(&frame)]);
        prop_assert_eq!(outcome, Outcome { items: vec![frame], error: None });
    }

    // [P-5.3]
    #[test]
    fn control_plane_reads_the_same_in_any_chunks(
        (bytes, frames) in control_plane(),
        cuts in vec(any::<u16>(), 0..12),
    ) {
        let expected = Outcome { items: frames, error: None };
        prop_assert_eq!(&read_control(split(&bytes, &cuts)), &expected);
        prop_assert_eq!(&read_control(in_single_bytes(&bytes)), &expected);
    }

    // [P-5.3]
    #[test]
    fn carrier_reads_the_same_in_any_chunks(
        (bytes, items) in arbitrary::carrier(),
        cuts in vec(any::<u16>(), 0..12),
    ) {
        let expected = Outcome { items, error: None };
        prop_assert_eq!(&read_carrier([bytes.clone()]), &expected);
        prop_assert_eq!(&read_carrier(split(&bytes, &cuts)), &expected);
        prop_assert_eq!(&read_carrier(in_single_bytes(&bytes)), &expected);
    }

    #[test]
    fn damaged_control_plane_fails_the_same_in_any_chunks(
        (bytes, _) in control_plane(),
        changes in vec((any::<u16>(), any::<u8>()), 1..4),
        cuts in vec(any::<u16>(), 0..12),
    ) {
        let bytes = damaged(bytes, &changes);
        let whole = read_control([bytes.clone()]);
        prop_assert_eq!(&read_control(split(&bytes, &cuts)), &whole);
        prop_assert_eq!(&read_control(in_single_bytes(&bytes)), &whole);
    }

    #[test]
    fn damaged_carrier_fails_the_same_in_any_chunks(
        (bytes, _) in arbitrary::carrier(),
        changes in vec((any::<u16>(), any::<u8>()), 1..4),
        cuts in vec(any::<u16>(), 0..12),
    ) {
        let bytes = damaged(bytes, &changes);
        let whole = read_carrier([bytes.clone()]);
        prop_assert_eq!(&read_carrier(split(&bytes, &cuts)), &whole);
        prop_assert_eq!(&read_carrier(in_single_bytes(&bytes)), &whole);
    }

    #[test]
    fn arbitrary_bytes_are_frames_or_an_error(bytes in noise(), cuts in vec(any::<u16>(), 0..12)) {
        prop_assert_eq!(read_control(split(&bytes, &cuts)), read_control([bytes.clone()]));
        prop_assert_eq!(read_carrier(split(&bytes, &cuts)), read_carrier([bytes.clone()]));
        let bytes: Bytes = carrier(&bytes).into();
        prop_assert_eq!(read_carrier(split(&bytes, &cuts)), read_carrier([bytes.clone()]));
        prop_assert_eq!(read_carrier(in_single_bytes(&bytes)), read_carrier([bytes]));
    }

    #[test]
    fn arbitrary_bodies_are_frames_or_an_error(frame_type in 0..0x18u64, body in noise()) {
        let bytes: Bytes = raw_frame(frame_type, &body).into();
        let whole = read_control([bytes.clone()]);
        for frame in &whole.items {
            let again = read_control([encoded(frame)]);
            prop_assert_eq!(&again.items[..], std::slice::from_ref(frame));
        }
        prop_assert_eq!(read_control(in_single_bytes(&bytes)), whole);
    }
}

#[test]
fn stream_header_straddles_chunks_at_every_place() {
    let frames = hex("01 08 4004 80000010 6162 02 02 04 12");
    let bytes: Bytes = carrier(&frames).into();
    let whole = read_carrier([bytes.clone()]);
    assert_eq!((whole.items.len(), whole.error), (4, None));
    for first in 0..=bytes.len() {
        for second in first..=bytes.len() {
            let chunks = [bytes.slice(..first), bytes.slice(first..second), bytes.slice(second..)];
            assert_eq!(read_carrier(chunks), whole, "cut at {first} and {second}");
        }
    }
}

#[test]
fn chunks_may_wait_until_frames_are_asked_for() {
    let frame = ControlFrame::from(Close { code: ErrorCode::Application(1), reason: "later".to_owned() });
    let bytes = encoded(&frame);
    let mut reader = ControlReader::default();
    in_single_bytes(&bytes).into_iter().chain([bytes]).for_each(|chunk| reader.push(chunk));
    assert_eq!(reader.next(), Ok(Some(frame.clone())));
    assert!(!reader.is_empty());
    assert_eq!(reader.next(), Ok(Some(frame)));
    assert_eq!(reader.next(), Ok(None));
    assert!(reader.is_empty());
}

#[test]
fn control_reader_is_empty_only_between_frames() {
    for bytes in [hex("13 0c c000000100000000 03 627965"), hex("7fff 03 010203")] {
        let mut reader = ControlReader::default();
        for (at, byte) in bytes.iter().enumerate() {
            assert_eq!(reader.is_empty(), at == 0, "after {at} bytes");
            reader.push(Bytes::copy_from_slice(&[*byte]));
            let frame = reader.next().expect("the bytes are legal");
            assert!(frame.is_none() || at + 1 == bytes.len());
        }
        assert!(reader.is_empty());
    }
}

// [P-6.5]
#[test]
fn carrier_may_end_only_between_packets() {
    let packet = carrier(&hex("01 03 04 10 61"));
    let bytes: Bytes = [&packet[..], &packet[4..]].concat().into();
    let packet_len = packet.len() - 4;
    for len in 0..=bytes.len() {
        let outcome = read_carrier([bytes.slice(..len)]);
        let may_end = len == 0 || (len >= 4 && (len - 4) % packet_len == 0);
        let expected = (!may_end).then_some(TransportCode::PROTOCOL_VIOLATION);
        assert_eq!(outcome.error.map(|error| error.code), expected, "after {len} bytes");
    }
}

#[test]
fn data_is_never_copied_and_what_is_kept_keeps_nothing_else() {
    let holds = |chunk: &Bytes, slice: &Bytes| chunk.as_ptr_range().contains(&slice.as_ptr());
    let signed = SignedPayload { sequence: 0, payload: Bytes::from_static(b"payload"), signature: [0; 64] };
    let chunk = encoded(&Raw { to: PathId(1), signed }.into());
    let outcome = read_control([chunk.clone()]);
    let ControlFrame::Raw(raw) = &outcome.items[0] else { panic!("{outcome:?}") };
    assert!(!holds(&chunk, &raw.signed.payload) && raw.signed.payload == b"payload"[..]);

    let frame = [varint(1), varint(1002), varint(4), varint(0), vec![7; 1000]].concat();
    let bytes: Bytes = carrier(&frame).into();
    let mut reader = CarrierReader::new();
    let mut pieces = Vec::new();
    for start in (0..bytes.len()).step_by(100) {
        let chunk = bytes.slice(start..bytes.len().min(start + 100));
        reader.push(chunk.clone());
        while let Some(item) = reader.next().expect("the bytes are legal") {
            if let CarrierItem::Stream { stream, data, .. } = item {
                assert!(stream == StreamId(4) && holds(&chunk, &data));
                pieces.push(data.len());
            }
        }
    }
    assert_eq!((pieces.len(), pieces.iter().sum::<usize>()), (11, 1000), "each piece is passed on as it arrives");
}
