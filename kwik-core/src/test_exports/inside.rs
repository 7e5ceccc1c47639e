//! Modules that no peer reaches alone, driven by bytes and compared with something simpler. For fuzzing.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use bytes::Bytes;

use crate::address::Address;
use crate::auth;
use crate::config::PathPolicy;
use crate::error::{ErrorCode, TransportCode};
use crate::grant::{Grant, GrantTable};
use crate::id::{Dir, Epoch, GrantId, PathId, Side, StreamHandle, StreamId};
use crate::limits::Limits;
use crate::range_set::RangeSet;
use crate::status::GrantStatus;
use crate::stream::{Reassembly, StreamTable, TableRole};

/// Bytes that become choices. When they are used up, every choice is the first.
#[derive(Debug, Clone)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    #[must_use]
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Up to `len` bytes.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A number below `end`, which must not be 0.
    pub fn below(&mut self, end: u64) -> u64 {
        let mut bytes = [0; 8];
        let len = if end <= 1 << 8 { 1 } else { 2 };
        let taken = self.take(len);
        bytes[..taken.len()].copy_from_slice(taken);
        u64::from_le_bytes(bytes) % end
    }

    /// Any number; those at which arithmetic goes wrong are frequent.
    pub fn number(&mut self) -> u64 {
        const EDGES: [u64; 10] =
            [0, 1, 63, 16_384, 65_536, 1 << 32, (1 << 60) + 1, (1 << 62) - 2, (1 << 62) - 1, u64::MAX];
        match self.byte() {
            small @ 0..=191 => u64::from(small),
            192..=223 => self.below(1 << 16),
            224..=247 => EDGES[usize::from(self.byte()) % EDGES.len()],
            _ => {
                let mut bytes = [0; 8];
                let taken = self.take(8);
                bytes[..taken.len()].copy_from_slice(taken);
                u64::from_le_bytes(bytes)
            }
        }
    }
}

fn byte_at(offset: u64) -> u8 {
    offset.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes()[0]
}

fn bytes_of(range: Range<u64>) -> Bytes {
    range.map(byte_at).collect::<Vec<_>>().into()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    Missing,
    Waiting,
    Read,
}

/// The reassembly of a stream, beside one cell for each position.
///
/// # Panics
/// If they differ.
pub fn reassembly(input: &mut Input<'_>) {
    let mut cells = [Cell::Missing; 600];
    let mut assembly = Reassembly::default();
    let mut ordered = true;
    while !input.is_empty() {
        match input.byte() % 8 {
            0..=3 => {
                let (from, start) = (PathId(u32::from(input.byte() % 3)), input.below(512));
                let range = start..start + input.below(88);
                let place = &mut cells[index(range.start)..index(range.end)];
                let inserted = assembly.insert(from, range.start, bytes_of(range)).expect("the same bytes everywhere");
                let new: u64 = inserted.new.iter().map(|range| range.end - range.start).sum();
                assert_eq!(new, place.iter().filter(|cell| **cell == Cell::Missing).count() as u64);
                assert_eq!(new + inserted.duplicate_bytes, place.len() as u64);
                place.iter_mut().filter(|cell| **cell == Cell::Missing).for_each(|cell| *cell = Cell::Waiting);
            }
            4 => {
                // Other bytes, where some wait.
                let at = input.below(600);
                let lie = Bytes::from(vec![byte_at(at) ^ 1]);
                if cells[index(at)] == Cell::Waiting {
                    let before = (assembly.received().total(), assembly.buffered_bytes());
                    assert!(assembly.insert(PathId(3), at, lie).is_err(), "a contradiction was taken");
                    assert_eq!((assembly.received().total(), assembly.buffered_bytes()), before);
                }
            }
            5 | 6 => {
                let max = index(input.below(300));
                let next = cells.iter().position(|cell| *cell != Cell::Read).unwrap_or(cells.len());
                match assembly.read(max) {
                    Err(_) => assert!(!ordered),
                    Ok(None) => assert!(max == 0 || cells.get(next) != Some(&Cell::Waiting)),
                    Ok(Some(chunk)) => {
                        assert_eq!(index(chunk.offset.0), next);
                        on_read(&mut cells, chunk.offset.0, &chunk.data, max);
                    }
                }
            }
            _ => {
                let max = index(input.below(300));
                ordered = false;
                match assembly.read_unordered(max) {
                    None => assert!(max == 0 || !cells.contains(&Cell::Waiting)),
                    Some(chunk) => on_read(&mut cells, chunk.offset.0, &chunk.data, max),
                }
            }
        }
        let count = |wanted| cells.iter().filter(|cell| **cell == wanted).count();
        assert_eq!(assembly.buffered_bytes(), count(Cell::Waiting));
        assert_eq!(assembly.received().total(), (cells.len() - count(Cell::Missing)) as u64);
        assert!(assembly.memory_bytes() >= assembly.buffered_bytes());
    }
}

fn on_read(cells: &mut [Cell], offset: u64, data: &[u8], max: usize) {
    assert!(!data.is_empty() && data.len() <= max);
    for (at, byte) in (offset..).zip(data) {
        assert_eq!(*byte, byte_at(at), "a byte that belongs elsewhere");
        assert_eq!(std::mem::replace(&mut cells[index(at)], Cell::Read), Cell::Waiting, "read twice, or never written");
    }
}

fn index(position: u64) -> usize {
    usize::try_from(position).expect("a small number")
}

/// The client's book of grants, as the session uses it.
///
/// # Panics
/// If it reports what cannot be.
pub fn grants(input: &mut Input<'_>) {
    let mut book = GrantTable::new(&Limits::default());
    let mut arrived: BTreeMap<StreamId, RangeSet> = BTreeMap::new();
    let mut told: BTreeMap<GrantId, (Range<u64>, u64, bool)> = BTreeMap::new();
    let mut next = 0;
    let code = ErrorCode::from(TransportCode::STREAM_GONE);
    while !input.is_empty() {
        let path = PathId(1 + u32::from(input.byte() % 3));
        let stream = StreamId::new(Side::Client, Dir::Bi, u64::from(input.byte() % 3));
        let start = input.below(4096);
        let range = start..start + 1 + input.below(2048);
        let id = GrantId(input.below(64));
        match input.byte() % 10 {
            0..=2 => {
                let grant = Grant { id: GrantId(next), epoch: Epoch(next), path, stream, range: range.clone() };
                let missing = arrived.entry(stream).or_default().gaps_in(range.clone());
                let refused = input.byte().is_multiple_of(8);
                let taken = if refused { book.refuse(grant, &missing, code) } else { book.record(grant, &missing) };
                if taken.is_ok() {
                    told.insert(GrantId(next), (range, 0, false));
                    next += 1;
                }
            }
            3 | 4 => {
                let set = arrived.entry(stream).or_default();
                let had = (range.end - range.start) - set.gaps_in(range.clone()).iter().map(len).sum::<u64>();
                if book.check(path, stream, range.clone(), had) == crate::grant::Access::Allowed {
                    let new = set.gaps_in(range.clone());
                    set.insert(range);
                    book.on_new(stream, &new);
                }
            }
            5 => drop(book.revoke(id, Epoch(input.below(64)))),
            6 => drop(book.on_end(id, path, input.number(), code)),
            7 => book.path_lost(path, code),
            8 => drop(book.stream_gone(stream, code)),
            _ => {
                let first = arrived.entry(stream).or_default().span_at(0).map_or(0, |span| span.end);
                book.forget_below(stream, first.min(start));
            }
        }
        while let Some((id, report)) = book.poll_status() {
            let (range, progress, over) = told.get_mut(&id).expect("a status of a grant that was recorded");
            assert!(!*over, "a status after the last");
            match report {
                GrantStatus::Progress { delivered } => {
                    assert!(delivered >= *progress && delivered <= len(range), "progress of {delivered} in {range:?}");
                    *progress = delivered;
                }
                GrantStatus::Delivered => *over = true,
                GrantStatus::Lost { missing, .. } => {
                    *over = true;
                    assert!(missing.iter().all(|part| range.start <= part.start && part.end <= range.end));
                    assert!(missing.windows(2).all(|pair| pair[0].end < pair[1].start) && !missing.is_empty());
                }
            }
        }
        while book.poll_settled().is_some() {}
    }
}

fn len(range: &Range<u64>) -> u64 {
    range.end - range.start
}

/// The streams of a session: an application and a peer that does anything. The sums of credit and of buffers must hold
/// after every step, until a fault ends the session.
///
/// # Panics
/// If they do not.
pub fn streams(input: &mut Input<'_>) {
    let (side, role) = match input.byte() % 3 {
        0 => (Side::Client, TableRole::Client),
        1 => (Side::Server, TableRole::Primary),
        _ => (Side::Server, TableRole::Secondary),
    };
    let limits = Limits {
        streams_bidi_max: 16,
        streams_uni_max: 16,
        reassembly_budget_bytes: 1100 * 1024,
        send_buffer_stream_bytes: 32 * 1024,
        send_buffer_session_bytes: 128 * 1024,
        ..Limits::default()
    };
    let mut table = StreamTable::new(side, role, &limits);
    while !input.is_empty() {
        if !application(&mut table, input) && peer(&mut table, input).is_err() {
            table.close();
        }
        while table.poll_control().is_some() {}
        while table.poll_event().is_some() {}
        table.own_old_slices();
        table.assert_ledger();
    }
}

/// One call of the application, if the next byte is for one.
fn application(table: &mut StreamTable, input: &mut Input<'_>) -> bool {
    let choice = input.byte();
    let handles = table.handles();
    // One that is not there is used as well.
    let handle = handles.get(usize::from(input.byte() % 24)).copied().unwrap_or(StreamHandle::FIRST);
    let dir = if choice.is_multiple_of(2) { Dir::Bi } else { Dir::Uni };
    match choice % 32 {
        0 | 1 => drop(table.open(dir, i32::from(input.byte()))),
        2 | 3 => drop(table.accept(dir)),
        4 | 5 => drop(table.read(handle, index(input.below(4096)), choice.is_multiple_of(2))),
        6 => drop(table.write(handle, &bytes_of(0..input.below(40_000)))),
        7 => drop(table.write_chunk(handle, bytes_of(0..input.below(40_000)))),
        8 => drop(table.write_at(handle, input.number(), bytes_of(0..input.below(9_000)))),
        9 => drop(table.finish(handle)),
        10 => drop(table.reset(handle, ErrorCode::Application(1))),
        11 => drop(table.stop(handle, ErrorCode::Application(2))),
        12 => drop(table.set_priority(handle, i32::from(input.byte()))),
        13 => table.release_send(handle),
        14 => table.release_recv(handle),
        15 => drop(table.reserve(handle, input.number())),
        16 => {
            let start = input.number();
            drop(table.reserve_range(handle, start..start.saturating_add(input.number())));
        }
        17 => table.cancel_write(handle),
        18..=20 => {
            if let Some(stream) = table.pop_sendable() {
                if table.segment(stream, 1 + index(input.below(3000))).is_some() {
                    table.on_segment_packed(stream);
                    if choice.is_multiple_of(2) {
                        table.on_packet_acked(stream);
                    }
                }
                table.push_sendable(stream);
            }
        }
        _ => return false,
    }
    true
}

/// One frame of the peer.
fn peer(table: &mut StreamTable, input: &mut Input<'_>) -> Result<(), crate::error::Fault> {
    let side = if input.byte().is_multiple_of(2) { Side::Client } else { Side::Server };
    let dir = if input.byte().is_multiple_of(2) { Dir::Bi } else { Dir::Uni };
    let id = StreamId::new(side, dir, u64::from(input.byte() % 20));
    match input.byte() % 12 {
        0..=3 => {
            let start = input.below(20_000);
            let data = bytes_of(start..start + input.below(3000));
            let end = start + data.len() as u64;
            table.on_arrived(PathId(0), data.len() as u64 + 60);
            table
                .on_data(PathId(u32::from(input.byte() % 2)), id, start, data, end, input.byte().is_multiple_of(8))
                .map(drop)
        }
        4 => table.on_open(id, i32::from(input.byte()), input.number()).map(drop),
        5 => table.on_reset(id, ErrorCode::Application(3), input.number()).map(drop),
        6 => table.on_stop(id, ErrorCode::Application(4)).map(drop),
        7 => table.on_max_stream_data(id, input.number()).map(drop),
        8 => table.on_max_streams(dir, input.number().min(1 << 60)).map(drop),
        9 => {
            let start = input.number();
            let range = start..start.saturating_add(input.number());
            table.open_part(GrantId(input.below(64)), id, range, input.number(), Bytes::from_static(b"?")).map(drop)
        }
        10 => {
            table.revoke_part(GrantId(input.below(64)));
            Ok(())
        }
        _ => table.on_peer_params(input.below(64), input.below(64), input.number().min(1 << 60)),
    }
}

/// What a policy says of an address must not depend on how it is spelled, and let nobody reach inside.
///
/// # Panics
/// If it does.
pub fn policy(input: &mut Input<'_>) {
    let (primary, own, target) = (address(input), address(input).ip(), address(input));
    let Some(reached) = Address::new(primary) else { return };
    let judged = PathPolicy::default().judge(reached, Some(own), target, "server.test");
    let mapped = match target {
        SocketAddr::V4(v4) => SocketAddr::new(IpAddr::V6(v4.ip().to_ipv6_mapped()), v4.port()),
        SocketAddr::V6(_) => target,
    };
    let again = PathPolicy::default().judge(reached, Some(own), mapped, "server.test");
    assert_eq!(judged.as_ref().ok().map(|it| SocketAddr::from(*it)), again.ok().map(SocketAddr::from));
    if let Ok(allowed) = judged {
        let allowed = SocketAddr::from(allowed);
        assert!(allowed.port() != 0 && !allowed.ip().is_unspecified() && !allowed.ip().is_multicast());
        if is_public(primary.ip()) {
            assert!(
                !allowed.ip().is_loopback() && !is_private(allowed.ip()),
                "{primary} sends its client to {allowed}"
            );
        }
    }
}

fn address(input: &mut Input<'_>) -> SocketAddr {
    let port = u16::from_le_bytes([input.byte(), input.byte()]);
    let kind = input.byte() % 4;
    if kind == 0 {
        let mut octets = [0; 4];
        octets.iter_mut().for_each(|octet| *octet = input.byte());
        return SocketAddr::from((octets, port));
    }
    let mut octets = [0; 16];
    octets.iter_mut().for_each(|octet| *octet = input.byte());
    let prefix: &[u8] = match kind {
        1 => &[],
        2 => &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
        _ => &[0x00, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0],
    };
    octets[..prefix.len()].copy_from_slice(prefix);
    SocketAddr::from((octets, port))
}

fn is_private(ip: IpAddr) -> bool {
    matches!(ip.to_canonical(), IpAddr::V4(ip) if ip.is_private() || ip.is_loopback() || ip.is_link_local())
}

/// Certainly on the internet.
fn is_public(ip: IpAddr) -> bool {
    matches!(ip.to_canonical(), IpAddr::V4(ip) if ip.octets()[0] == 8)
}

/// Nothing but what was signed is believed, wherever a bit is another. The input says what to sign and what to change.
///
/// # Panics
/// If something else is believed.
pub fn signatures(input: &mut Input<'_>) {
    let key = |seed| auth::Identity::from_seed([seed; 32]);
    let (identity, client) = (key(1), key(2));
    let mut exporter = [7; 32];
    let session = crate::id::SessionId([3; 16]);
    let path = PathId(u32::from(input.byte()));
    let kind = input.byte() % 5;
    let payload = input.take(usize::from(input.clone().byte())).to_vec();
    let range = 10..10 + 1 + input.below(1000);
    let context = auth::SignatureContext { session, from: PathId::PRIMARY, to: path, sequence: input.number() };
    let (grant, stream) = (GrantId(input.number()), StreamId(4));
    let mut signature = match kind {
        0 => auth::hello_proof(&client, &exporter),
        1 => auth::welcome_proof(&identity, &exporter, session, path, &client.public()),
        2 => auth::sign_grant(&identity, context, grant, stream, range.clone(), &payload),
        3 => auth::sign_raw(&identity, context, &payload),
        _ => auth::join_proof(&client, &exporter, &payload),
    };
    let (at, flip) = (usize::from(input.byte()), input.byte());
    let mut payload_seen = payload.clone();
    let changed = flip != 0
        && match input.byte() % 3 {
            0 => {
                signature[at % 64] ^= flip;
                true
            }
            1 => {
                exporter[at % 32] ^= flip;
                matches!(kind, 0 | 1)
            }
            _ => match payload_seen.get_mut(at) {
                Some(byte) => {
                    *byte ^= flip;
                    matches!(kind, 2 | 3)
                }
                None => false,
            },
        };
    let verdict = match kind {
        0 => auth::verify_hello(&client.public(), &signature, &exporter),
        1 => auth::verify_welcome(&identity.public(), &signature, &exporter, session, path, &client.public()),
        2 => auth::verify_grant(&identity.public(), &signature, context, grant, stream, range, &payload_seen),
        3 => auth::verify_raw(&identity.public(), &signature, context, &payload_seen),
        // It is verified together with its ticket.
        _ => return,
    };
    assert_eq!(verdict.is_ok(), !changed, "kind {kind}");
}
