use super::{byte, bytes, index};
use crate::id::PathId;
use crate::stream::piece::PIECE_BYTES;
use crate::stream::reassembly::{Conflict, GATHER_SLACK_BYTES, IllegalOrderedRead, Reassembly, SPAN_BYTES};
use bytes::Bytes;
use proptest::prelude::*;

const SPACE: u64 = 6000;

#[derive(Debug, Clone)]
enum Op {
    Insert { from: u32, start: u64, len: u64 },
    Read { max: usize },
}

fn op() -> impl Strategy<Value = Op> {
    let len = prop_oneof![1..40u64, 1..40u64, 1000..2500u64];
    prop_oneof![
        4 => (0..3u32, 0..SPACE - 2500, len).prop_map(|(from, start, len)| Op::Insert { from, start, len }),
        1 => (1..3000usize).prop_map(|max| Op::Read { max }),
    ]
}

/// One cell for each position: the byte and who brought it first.
struct Naive {
    cells: Vec<Option<(u8, PathId)>>,
    consumed: Vec<bool>,
}

impl Naive {
    fn insert(&mut self, from: PathId, start: u64, data: &Bytes) -> u64 {
        let mut new = 0;
        for (cell, byte) in self.cells[index(start)..].iter_mut().zip(data) {
            if cell.is_none() {
                *cell = Some((*byte, from));
                new += 1;
            }
        }
        new
    }

    fn spans(&self) -> usize {
        (0..self.cells.len()).filter(|&i| self.cells[i].is_some() && (i == 0 || self.cells[i - 1].is_none())).count()
    }

    fn take(&mut self, start: u64, data: &[u8], source: PathId) {
        for (position, byte) in (index(start)..).zip(data) {
            assert_eq!(self.cells[position], Some((*byte, source)), "at {position}");
            assert!(!std::mem::replace(&mut self.consumed[position], true), "{position} was read twice");
        }
    }
}

proptest! {
    // [P-5.12] [P-6.11] [P-6.13]
    #[test]
    fn agrees_with_one_cell_for_each_position(ops in prop::collection::vec(op(), 1..150), ordered: bool) {
        let mut assembly = Reassembly::default();
        let mut naive = Naive { cells: vec![None; index(SPACE)], consumed: vec![false; index(SPACE)] };
        for op in ops {
            match op {
                Op::Insert { from, start, len } => {
                    let data = bytes(1, start..start + len);
                    let inserted = assembly.insert(PathId(from), start, data.clone()).unwrap();
                    let new = naive.insert(PathId(from), start, &data);
                    prop_assert_eq!(inserted.new.iter().map(|range| range.end - range.start).sum::<u64>(), new);
                    prop_assert_eq!(inserted.duplicate_bytes, len - new);
                }
                Op::Read { max } => {
                    let chunk = if ordered { assembly.read(max).unwrap() } else { assembly.read_unordered(max) };
                    let first = naive.consumed.iter().position(|consumed| !consumed).unwrap();
                    let waits = |&i: &usize| naive.cells[i].is_some() && !naive.consumed[i];
                    let expected = if ordered { Some(first).filter(waits) } else { (0..index(SPACE)).find(waits) };
                    prop_assert_eq!(chunk.as_ref().map(|chunk| index(chunk.offset.0)), expected);
                    if let Some(chunk) = chunk {
                        prop_assert!(!chunk.data.is_empty() && chunk.data.len() <= max);
                        naive.take(chunk.offset.0, &chunk.data, chunk.source.expect("too little to be gathered"));
                    }
                }
            }
            let consumed = naive.consumed.iter().filter(|consumed| **consumed).count();
            let received = naive.cells.iter().flatten().count();
            prop_assert_eq!(assembly.consumed(), consumed as u64);
            prop_assert_eq!(assembly.buffered_bytes(), received - consumed);
            prop_assert_eq!(assembly.received().len(), naive.spans());
            prop_assert!(assembly.memory_bytes() >= assembly.buffered_bytes());
        }
    }
}

// [P-6.14]
#[test]
fn different_bytes_at_one_offset_are_a_conflict_that_changes_nothing() {
    let mut assembly = Reassembly::default();
    assembly.insert(PathId(1), 10, bytes(1, 10..30)).unwrap();
    let mut wrong = bytes(1, 0..40).to_vec();
    wrong[25] ^= 1;
    let conflict = Conflict { at: 25, first: Some(PathId(1)), second: PathId(2) };
    assert_eq!(assembly.insert(PathId(2), 0, wrong.into()), Err(conflict));
    assert_eq!(assembly.received().total(), 20);
    let same = assembly.insert(PathId(2), 0, bytes(1, 0..40)).unwrap();
    assert_eq!((same.new.as_slice(), same.duplicate_bytes), (&[0..10, 30..40][..], 20));
    let sources: Vec<_> = std::iter::from_fn(|| assembly.read(100).unwrap()).map(|chunk| chunk.source).collect();
    assert_eq!(sources, [2, 1, 2].map(|path| Some(PathId(path))), "the first writer of a byte wins");
}

// [P-6.13] [P-6.14]
#[test]
fn bytes_that_were_consumed_are_not_compared() {
    let mut assembly = Reassembly::default();
    assembly.insert(PathId(1), 0, bytes(1, 0..10)).unwrap();
    assembly.read(10).unwrap().unwrap();
    let late = assembly.insert(PathId(2), 0, Bytes::from_static(&[7; 10])).unwrap();
    assert_eq!((late.new.len(), late.duplicate_bytes), (0, 10));
    assert_eq!(assembly.read(10), Ok(None));
}

#[test]
fn reading_in_order_ends_with_the_first_read_out_of_order() {
    let mut assembly = Reassembly::default();
    assembly.insert(PathId(1), 5, bytes(1, 5..10)).unwrap();
    assert_eq!(assembly.read(10), Ok(None));
    assert_eq!(assembly.read_unordered(2).unwrap().offset.0, 5);
    assert_eq!(assembly.read(10), Err(IllegalOrderedRead));
}

#[test]
fn tiny_frames_without_gaps_cost_about_their_bytes() {
    let mut assembly = Reassembly::default();
    let total = 1024 * 1024;
    let pinned = Bytes::from(vec![0u8; 64 * 1024]);
    for start in (0..total).step_by(32) {
        assembly.insert(PathId(0), start, pinned.slice(..32)).unwrap();
    }
    assert!(assembly.memory_bytes() < index(total) * 5 / 4, "{}", assembly.memory_bytes());
    let mut read = 0;
    while let Some(chunk) = assembly.read(usize::MAX).unwrap() {
        read += chunk.data.len() as u64;
    }
    assert_eq!(read, total);
    assert_eq!(assembly.buffered_bytes(), 0);
}

#[test]
fn bytes_in_descending_order_are_merged() {
    let mut assembly = Reassembly::default();
    for start in (0..20_000).rev() {
        assembly.insert(PathId(0), start, Bytes::from(vec![byte(1, start)])).unwrap();
        assert_bounded(&assembly);
    }
    assert!(assembly.memory_bytes() < 40_000, "{}", assembly.memory_bytes());
    let mut position = 0;
    while let Some(chunk) = assembly.read(usize::MAX).unwrap() {
        assert_eq!(chunk.data, bytes(1, position..position + chunk.data.len() as u64));
        position += chunk.data.len() as u64;
    }
    assert_eq!(position, 20_000);
}

/// Beside what gaps cost and a constant, what waits costs less than half its bytes more.
fn assert_bounded(assembly: &Reassembly) {
    let (bytes, gaps, memory) = (assembly.buffered_bytes(), assembly.received().len(), assembly.memory_bytes());
    let justified = bytes + bytes / 8 * 3 + gaps * (PIECE_BYTES + SPAN_BYTES) + GATHER_SLACK_BYTES;
    assert!(memory <= justified, "{memory} bytes for {bytes} with {gaps} gaps");
}

/// What comes in a row costs about its bytes, however long writes are and wherever datagrams cut them.
#[test]
fn memory_follows_the_bytes_whatever_the_sizes_of_writes() {
    const TOTAL: u64 = 4 << 20;
    for write in [1, 7, 64, 1000, 1023, 1024, 1025, 1300, 1400, 1452, 2000, 4096, 65_536] {
        let mut assembly = Reassembly::default();
        let datagrams = Bytes::from(vec![7; 64 * 1024]);
        let (mut offset, mut room) = (0, 1400);
        while offset < TOTAL {
            let len = (write - offset % write).min(room).min(TOTAL - offset);
            assembly.insert(PathId(0), offset, datagrams.slice(..index(len))).unwrap();
            offset += len;
            room = if room == len { 1400 } else { room - len };
        }
        assert_bounded(&assembly);
        assert_eq!((assembly.received().len(), assembly.openers.len()), (1, 1));
        let pieces = assembly.pieces.len();
        assert!(pieces * PIECE_BYTES < index(TOTAL) * 3 / 8, "{pieces} pieces for writes of {write} bytes");
    }
}

/// Who brought which byte is known as long as that costs little.
#[test]
fn sources_that_take_turns_are_told_apart_until_that_costs_too_much() {
    for (run, is_known) in [(1_u64, false), (100, false), (600, true), (1400, true)] {
        let mut assembly = Reassembly::default();
        let source = |offset: u64| PathId(u32::try_from(offset / run % 3).unwrap());
        for start in (0..1 << 18).step_by(index(run)) {
            assembly.insert(source(start), start, bytes(1, start..start + run)).unwrap();
            assert_bounded(&assembly);
        }
        let wrong = Bytes::from(vec![!byte(1, 40_000)]);
        let first = is_known.then(|| source(40_000));
        let conflict = Conflict { at: 40_000, first, second: PathId(9) };
        assert_eq!(assembly.insert(PathId(9), 40_000, wrong), Err(conflict));
        let mut offset = 0;
        while let Some(chunk) = assembly.read(usize::MAX).unwrap() {
            let end = chunk.offset.0 + chunk.data.len() as u64;
            assert_eq!((chunk.offset.0, &chunk.data), (offset, &bytes(1, offset..end)));
            assert!(!is_known || chunk.source == Some(source(offset)), "{:?} at {offset}", chunk.source);
            offset = end;
        }
        assert!(offset >= 1 << 18);
    }
}

#[test]
fn slice_that_waits_too_long_moves_to_memory_of_its_own() {
    let mut assembly = Reassembly::default();
    for start in [0, 1400, 2800] {
        assembly.insert(PathId(1), start, bytes(1, start..start + 1400)).unwrap();
    }
    assert_eq!(assembly.read(400).unwrap().map(|chunk| chunk.data), Some(bytes(1, 0..400)));
    assembly.insert(PathId(2), 4200, bytes(1, 4200..5600)).unwrap();
    assert_eq!(assembly.slice_bytes().as_slice(), [(PathId(1), 3800), (PathId(2), 1400)]);
    assembly.own_slice(2800);
    assembly.own_slice(2800);
    assert_eq!([1400, 2800, 4200, 5600].map(|end| assembly.has_slice(end)), [true, false, true, true]);
    assert_eq!(assembly.slice_bytes().as_slice(), [(PathId(1), 2400), (PathId(2), 1400)]);
    assert_eq!(assembly.buffered_bytes(), 5200);
    assert_bounded(&assembly);
    let mut read = || assembly.read(9999).unwrap().map(|chunk| chunk.data);
    assert_eq!(read(), Some(bytes(1, 400..1400)));
    assert_eq!(read(), Some(bytes(1, 1400..2800)));
    assert_eq!(read(), Some(bytes(1, 2800..4200)));
    assert_eq!(read(), Some(bytes(1, 4200..5600)));
}
