//! The carriers the peer opened on a path, drained into whole items (PROTOCOL.md §6).

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use quinn_proto::{Connection, Dir, ReadError, StreamId as QuicStreamId};

use super::packets::ReceivedPackets;
use crate::error::TransportCode;
use crate::limits::UNKNOWN_BYTES_PER_PATH_MAX;
use crate::wire::{CarrierItem, CarrierReader, WireError};

/// The peer's carriers.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    carriers: BTreeMap<QuicStreamId, InboundCarrier>,
    readable: VecDeque<QuicStreamId>,
    opened: bool,
    /// Bytes of unknown frames on carriers that ended.
    unknown_bytes: u64,
    /// Bytes that were taken from QUIC since that was last asked.
    read_bytes: u64,
    pub(super) packets: ReceivedPackets,
}

#[derive(Debug)]
struct InboundCarrier {
    reader: CarrierReader,
    /// QUIC has no more of it than the reader got.
    has_ended: bool,
}

impl Inbound {
    const READ_BYTES: usize = 64 * 1024;

    pub(super) fn on_opened(&mut self) {
        self.opened = true;
    }

    pub(super) fn on_readable(&mut self, stream: QuicStreamId) {
        if !self.readable.contains(&stream) {
            self.readable.push_back(stream);
        }
    }

    /// Carriers the peer has open.
    pub(super) fn count(&self) -> usize {
        self.carriers.len()
    }

    /// The next item other than a packet boundary, from whichever carrier has one.
    pub(super) fn next(&mut self, quic: &mut Connection, now: Instant) -> Result<Option<CarrierItem>, WireError> {
        if self.opened {
            // One event of QUIC may announce several streams.
            self.opened = false;
            while let Some(stream) = quic.streams().accept(Dir::Uni) {
                self.carriers.insert(stream, InboundCarrier { reader: CarrierReader::new(), has_ended: false });
                self.on_readable(stream);
            }
        }
        while let Some(stream) = self.readable.front().copied() {
            let Some(InboundCarrier { reader, .. }) = self.carriers.get_mut(&stream) else {
                self.readable.pop_front();
                continue;
            };
            match reader.next()? {
                Some(CarrierItem::PacketStart { number, .. }) => self.packets.on_start(number)?,
                Some(CarrierItem::PacketEnd { number, .. }) => self.packets.on_end(now, number),
                Some(item) => return Ok(Some(item)),
                None => {
                    // Few carriers have any, and only then the sum over all of them is made.
                    if reader.unknown_bytes() > 0 {
                        self.check_unknown()?;
                    }
                    self.read(quic, stream)?;
                }
            }
        }
        Ok(None)
    }

    fn read(&mut self, quic: &mut Connection, stream: QuicStreamId) -> Result<(), WireError> {
        let Some(carrier) = self.carriers.get_mut(&stream) else { return Ok(()) };
        if carrier.has_ended {
            let ended = carrier.reader.finish();
            self.forget(stream);
            return ended;
        }
        let mut recv = quic.recv_stream(stream);
        let Ok(mut chunks) = recv.read(true) else {
            self.forget(stream);
            return Ok(());
        };
        let mut left = Self::READ_BYTES;
        // Several at a time, since each look at the stream costs as much as a chunk.
        let stopped = loop {
            match chunks.next(left) {
                Ok(Some(chunk)) => {
                    left = left.saturating_sub(chunk.bytes.len());
                    self.read_bytes = self.read_bytes.saturating_add(chunk.bytes.len() as u64);
                    carrier.reader.push(chunk.bytes);
                    if left == 0 {
                        break None;
                    }
                }
                Ok(None) => {
                    carrier.has_ended = true;
                    break None;
                }
                Err(error) => break Some(error),
            }
        };
        // Window updates leave with the next transmit, which follows every read.
        let _ = chunks.finalize();
        match stopped {
            Some(ReadError::Reset(_)) => Err(WireError {
                code: TransportCode::PROTOCOL_VIOLATION,
                frame: "carrier",
                detail: "a carrier was reset",
            }),
            Some(ReadError::Blocked) if left == Self::READ_BYTES => {
                self.readable.pop_front();
                Ok(())
            }
            Some(ReadError::Blocked) | None => Ok(()),
        }
    }

    /// How many bytes were taken from QUIC since this was last asked.
    pub(super) fn take_read_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.read_bytes)
    }

    /// What a path may send of unknown frames is counted over all its carriers.
    fn check_unknown(&self) -> Result<(), WireError> {
        let open: u64 = self.carriers.values().map(|carrier| carrier.reader.unknown_bytes()).sum();
        if self.unknown_bytes.saturating_add(open) > UNKNOWN_BYTES_PER_PATH_MAX {
            return Err(WireError {
                code: TransportCode::PROTOCOL_VIOLATION,
                frame: "UNKNOWN",
                detail: "too many bytes of unknown frames",
            });
        }
        Ok(())
    }

    fn forget(&mut self, stream: QuicStreamId) {
        if let Some(carrier) = self.carriers.remove(&stream) {
            self.unknown_bytes = self.unknown_bytes.saturating_add(carrier.reader.unknown_bytes());
        }
        self.readable.retain(|readable| *readable != stream);
    }
}
