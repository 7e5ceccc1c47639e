//! Which streams exist, existed or may be opened, by number.

use crate::error::Fault;
use crate::error::TransportCode;
use crate::id::{Dir, Side, StreamId};

/// The most streams of a kind that a stream id can number.
const STREAMS_MAX: u64 = 1 << 60;

/// The half of a stream, as this end sees it, that a frame of the peer is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    /// The frame opens the stream.
    Open,
    /// The frame is about bytes that come in.
    Recv,
    /// The frame is about bytes that go out.
    Send,
}

#[derive(Debug)]
pub(super) struct StreamIds {
    side: Side,
    bidi: Kind,
    uni: Kind,
}

/// The numbers of one direction.
#[derive(Debug)]
struct Kind {
    opened_here: u64,
    limit_of_peer: u64,
    opened_by_peer: u64,
    limit_here: u64,
    /// Slots that came free and are not yet given out again.
    owed: u64,
    /// Slots of streams that the peer abandoned, which do not come free at once.
    withheld: u64,
    /// Other streams of the peer's that are gone, since that was last asked.
    completed: u64,
}

impl StreamIds {
    /// `floor` streams may be opened before the peer says otherwise; the peer may open `bidi` and `uni`.
    pub(super) fn new(side: Side, floor: u64, bidi: u64, uni: u64) -> Self {
        let kind = |limit_here| Kind {
            opened_here: 0,
            limit_of_peer: floor,
            opened_by_peer: 0,
            limit_here,
            owed: 0,
            withheld: 0,
            completed: 0,
        };
        Self { side, bidi: kind(bidi), uni: kind(uni) }
    }

    /// Takes the next number of a stream opened here.
    pub(super) fn open(&mut self, dir: Dir) -> Option<StreamId> {
        let can_open = self.can_open(dir);
        let side = self.side;
        let kind = self.kind_mut(dir);
        let index = kind.opened_here;
        kind.opened_here += u64::from(can_open);
        can_open.then(|| StreamId::new(side, dir, index))
    }

    pub(super) fn can_open(&self, dir: Dir) -> bool {
        self.kind(dir).opened_here < self.kind(dir).limit_of_peer
    }

    /// How many streams the peer allowed so far.
    pub(super) fn limit_of_peer(&self, dir: Dir) -> u64 {
        self.kind(dir).limit_of_peer
    }

    /// How many streams the peer may open so far.
    pub(super) fn limit_here(&self, dir: Dir) -> u64 {
        self.kind(dir).limit_here
    }

    pub(super) fn raise_limit_of_peer(&mut self, dir: Dir, limit: u64) -> Result<(), Fault> {
        if limit > STREAMS_MAX {
            return Err(Fault::new(TransportCode::PROTOCOL_VIOLATION, "a stream limit no stream id can express"));
        }
        let kind = self.kind_mut(dir);
        kind.limit_of_peer = kind.limit_of_peer.max(limit);
        Ok(())
    }

    /// The one check of a stream id the peer names. Returns the numbers of the streams the peer opens by naming it.
    pub(super) fn check(&mut self, id: StreamId, half: Half) -> Result<std::ops::Range<u64>, Fault> {
        let violation = |detail| Err(Fault::new(TransportCode::PROTOCOL_VIOLATION, detail));
        let ours = id.initiator() == self.side;
        match (ours, id.dir(), half) {
            (true, _, Half::Open) => return violation("the peer opened a stream of this side"),
            (true, Dir::Uni, Half::Recv) => return violation("bytes for a stream that only sends"),
            (false, Dir::Uni, Half::Send) => return violation("credit or a stop for a stream that only receives"),
            _ => {}
        }
        let kind = self.kind_mut(id.dir());
        let index = id.index();
        if ours {
            if index >= kind.opened_here {
                return violation("a stream that was never opened");
            }
            return Ok(0..0);
        }
        if index >= kind.limit_here {
            return Err(Fault::new(TransportCode::STREAM_LIMIT, "a stream beyond the limit"));
        }
        let first = kind.opened_by_peer;
        kind.opened_by_peer = first.max(index + 1);
        Ok(first..kind.opened_by_peer)
    }

    /// Whether a stream of this number was ever opened, by either side.
    pub(super) fn was_opened(&self, id: StreamId) -> bool {
        let kind = self.kind(id.dir());
        let opened = if self.is_of_peer(id) { kind.opened_by_peer } else { kind.opened_here };
        id.index() < opened
    }

    pub(super) fn is_of_peer(&self, id: StreamId) -> bool {
        id.initiator() != self.side
    }

    /// A stream of the peer is gone for good. The slot of one that the peer `abandoned` is withheld.
    pub(super) fn on_freed(&mut self, dir: Dir, abandoned: bool) {
        let kind = self.kind_mut(dir);
        if abandoned {
            kind.withheld += 1;
        } else {
            kind.owed += 1;
            kind.completed += 1;
        }
    }

    /// How many streams of the peer's are gone that it did not abandon, since this was last asked.
    pub(super) fn take_completed(&mut self, dir: Dir) -> u64 {
        std::mem::take(&mut self.kind_mut(dir).completed)
    }

    /// How many slots are withheld.
    pub(super) fn withheld(&self, dir: Dir) -> u64 {
        self.kind(dir).withheld
    }

    /// Withheld slots come free, as many of `slots` as there are.
    pub(super) fn free_withheld(&mut self, dir: Dir, slots: u64) {
        let kind = self.kind_mut(dir);
        let slots = slots.min(kind.withheld);
        kind.withheld -= slots;
        kind.owed += slots;
    }

    /// Gives the free slots out again. Returns whether the limit rose.
    pub(super) fn grant_owed(&mut self, dir: Dir) -> bool {
        let kind = self.kind_mut(dir);
        let owed = std::mem::take(&mut kind.owed);
        let limit = kind.limit_here.saturating_add(owed).min(STREAMS_MAX);
        let rose = limit > kind.limit_here;
        kind.limit_here = limit;
        rose
    }

    fn kind(&self, dir: Dir) -> &Kind {
        match dir {
            Dir::Bi => &self.bidi,
            Dir::Uni => &self.uni,
        }
    }

    fn kind_mut(&mut self, dir: Dir) -> &mut Kind {
        match dir {
            Dir::Bi => &mut self.bidi,
            Dir::Uni => &mut self.uni,
        }
    }

    /// Streams of the peer that are not gone, and those it may still open.
    #[cfg(any(test, feature = "__test_exports"))]
    pub(super) fn slots(&self) -> u64 {
        let slots = |kind: &Kind| kind.limit_here - kind.opened_by_peer + kind.owed + kind.withheld;
        slots(&self.bidi) + slots(&self.uni)
    }
}
