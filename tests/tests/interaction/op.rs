//! What may happen in a run, and how it is drawn. Every operation is total: on a slot where nothing is, it does nothing.

use kwik_core::{Dir, Side};
use proptest::collection::vec;
use proptest::prelude::*;

/// Streams that each end of a session has a name for.
pub(crate) const SLOTS: usize = 4;
/// Paths that operations can name, by the order in which they were added.
pub(crate) const PATHS: usize = 7;

/// The world an operation list runs in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Setup {
    /// Everything the world draws follows from it.
    pub(crate) seed: u64,
    /// Honest servers, the primary included.
    pub(crate) servers: usize,
    /// Whether the first operation finds a path to every other server and an open stream in slot 0.
    pub(crate) warm: bool,
    /// The behaviour of one more server, which keeps no rules: a number among those a secondary may have.
    pub(crate) byzantine: Option<usize>,
}

/// Where in a stream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum StreamPlace {
    /// The first offset that nobody is to write.
    Gap,
    /// So many bytes behind the cursor.
    Ahead(u64),
    /// Exactly here.
    At(u64),
}

/// Who sends a raw packet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum RawParty {
    /// The primary.
    Primary,
    /// The server of a path.
    Path(usize),
}

/// The node something happens to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Who {
    /// The client.
    Client,
    /// A server; 0 is the primary.
    Server(usize),
}

/// One operation. `slot` and `end` name a stream, `path` is a place in the order in which paths were added.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Op {
    Open { end: Side, slot: usize, dir: Dir },
    Accept { end: Side, slot: usize, dir: Dir },
    Write { end: Side, slot: usize, len: u64 },
    WriteAt { end: Side, slot: usize, place: StreamPlace, len: u64 },
    Read { end: Side, slot: usize, max: usize },
    ReadUnordered { end: Side, slot: usize, max: usize },
    Finish { end: Side, slot: usize },
    Reset { end: Side, slot: usize, code: u32 },
    Stop { end: Side, slot: usize, code: u32 },
    Priority { end: Side, slot: usize, priority: i32 },
    Release { end: Side, slot: usize },
    Close { end: Side, code: u32 },

    AddPath { server: usize },
    RemovePath { path: usize },
    Delegate { slot: usize, path: usize, len: u64 },
    DelegateRange { slot: usize, path: usize, place: StreamPlace, len: u64 },
    Revoke { nth: usize },
    SendRaw { from: RawParty, to: RawParty, len: usize },
    RecvRaw { at: RawParty },

    AcceptPart { path: usize },
    WritePart { path: usize, part: usize, len: u64 },
    WritePartAt { path: usize, part: usize, skip: u64, len: u64 },
    ReadRequest { path: usize, part: usize },
    FinishPart { path: usize, part: usize },
    ResetPart { path: usize, part: usize, code: u32 },
    ClosePart { path: usize, code: u32 },

    Link { server: usize, delay_ms: u64, loss_percent: u32, kbit: Option<u64> },
    Blackhole { server: usize, to_client: bool },
    Partition { server: usize },
    Heal { server: usize },
    Rebind { address: bool },
    Crash { who: Who },
    Restart { who: Who, forgets: bool },
    Pause { who: Who, ms: u64 },
    SendErrors { who: Who, ms: u64 },

    Run { ms: u64 },
}

/// An honest world, or one with a byzantine server, and what happens in it.
pub(crate) fn run(with_byzantine: bool) -> impl Strategy<Value = (Setup, Vec<Op>)> {
    let byzantine = if with_byzantine { (0..1000usize).prop_map(Some).boxed() } else { Just(None).boxed() };
    let setup = (0..8u64, 2..=5usize, prop::bool::weighted(0.8), byzantine)
        .prop_map(|(seed, servers, warm, byzantine)| Setup { seed, servers, warm, byzantine });
    (setup, vec(op(), 0..200))
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        7 => time().prop_map(|ms| Op::Run { ms }),
        10 => stream_op(),
        8 => primary_op(),
        8 => part_op(),
        1 => network_op(),
    ]
}

fn time() -> impl Strategy<Value = u64> {
    prop_oneof![12 => 0..60u64, 3 => 60..1000u64, 1 => 1000..8000u64]
}

fn end() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Client), Just(Side::Server)]
}

/// Mostly the first slot, where writers, readers and grants meet.
fn slot() -> impl Strategy<Value = usize> {
    prop_oneof![2 => Just(0), 1 => 0..SLOTS]
}

/// Mostly one of those there are.
fn path() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 0..2usize, 3 => 0..4usize, 1 => 0..PATHS]
}

fn dir() -> impl Strategy<Value = Dir> {
    prop_oneof![3 => Just(Dir::Bi), 1 => Just(Dir::Uni)]
}

fn len() -> impl Strategy<Value = u64> {
    prop_oneof![5 => 0..40u64, 4 => 40..3000u64, 3 => 3000..40_000u64, 1 => 40_000..300_000u64]
}

fn place() -> impl Strategy<Value = StreamPlace> {
    prop_oneof![
        3 => Just(StreamPlace::Gap),
        2 => (0..5000u64).prop_map(StreamPlace::Ahead),
        2 => (0..5000u64).prop_map(StreamPlace::At),
        1 => (0..400_000u64).prop_map(StreamPlace::At),
    ]
}

fn max() -> impl Strategy<Value = usize> {
    prop_oneof![1 => 0..50usize, 3 => Just(usize::MAX)]
}

fn stream_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (end(), slot(), dir()).prop_map(|(end, slot, dir)| Op::Open { end, slot, dir }),
        8 => (end(), slot(), dir()).prop_map(|(end, slot, dir)| Op::Accept { end, slot, dir }),
        12 => (end(), slot(), len()).prop_map(|(end, slot, len)| Op::Write { end, slot, len }),
        6 => (end(), slot(), place(), len()).prop_map(|(end, slot, place, len)| Op::WriteAt { end, slot, place, len }),
        12 => (end(), slot(), max()).prop_map(|(end, slot, max)| Op::Read { end, slot, max }),
        1 => (end(), 1..SLOTS, max()).prop_map(|(end, slot, max)| Op::ReadUnordered { end, slot, max }),
        1 => (end(), slot()).prop_map(|(end, slot)| Op::Finish { end, slot }),
        1 => (end(), slot(), 0..9u32).prop_map(|(end, slot, code)| Op::Reset { end, slot, code }),
        1 => (end(), slot(), 0..9u32).prop_map(|(end, slot, code)| Op::Stop { end, slot, code }),
        1 => (end(), slot(), -2..3i32).prop_map(|(end, slot, priority)| Op::Priority { end, slot, priority }),
        1 => (end(), slot()).prop_map(|(end, slot)| Op::Release { end, slot }),
        // Most runs have none, or one near their end.
        1 => prop_oneof![
            19 => Just(Op::Run { ms: 1 }),
            1 => (end(), 0..9u32).prop_map(|(end, code)| Op::Close { end, code }),
        ],
    ]
}

fn sender() -> impl Strategy<Value = RawParty> {
    prop_oneof![1 => Just(RawParty::Primary), 2 => path().prop_map(RawParty::Path)]
}

fn primary_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (0..6usize).prop_map(|server| Op::AddPath { server }),
        1 => path().prop_map(|path| Op::RemovePath { path }),
        6 => (slot(), path(), len()).prop_map(|(slot, path, len)| Op::Delegate { slot, path, len }),
        5 => (slot(), path(), place(), len())
            .prop_map(|(slot, path, place, len)| Op::DelegateRange { slot, path, place, len }),
        3 => (0..4usize).prop_map(|nth| Op::Revoke { nth }),
        2 => (sender(), sender(), prop_oneof![0..100usize, 0..13_000usize])
            .prop_map(|(from, to, len)| Op::SendRaw { from, to, len }),
        1 => sender().prop_map(|at| Op::RecvRaw { at }),
    ]
}

fn part_op() -> impl Strategy<Value = Op> {
    let named = || (path(), prop_oneof![3 => Just(0), 1 => 0..3usize]);
    prop_oneof![
        8 => path().prop_map(|path| Op::AcceptPart { path }),
        8 => (named(), len()).prop_map(|((path, part), len)| Op::WritePart { path, part, len }),
        2 => (named(), len(), len()).prop_map(|((path, part), skip, len)| Op::WritePartAt { path, part, skip, len }),
        1 => named().prop_map(|(path, part)| Op::ReadRequest { path, part }),
        2 => named().prop_map(|(path, part)| Op::FinishPart { path, part }),
        1 => (named(), 0..9u32).prop_map(|((path, part), code)| Op::ResetPart { path, part, code }),
        1 => prop_oneof![
            9 => path().prop_map(|path| Op::AcceptPart { path }),
            1 => (path(), 0..9u32).prop_map(|(path, code)| Op::ClosePart { path, code }),
        ],
    ]
}

/// Rather a secondary than the client or the primary, whose troubles can end the session.
fn who() -> impl Strategy<Value = Who> {
    prop_oneof![1 => Just(Who::Client), 4 => (0..5usize).prop_map(Who::Server)]
}

fn network_op() -> impl Strategy<Value = Op> {
    let server = || 0..5usize;
    let kbit = || prop_oneof![3 => Just(None), 2 => (100..20_000u64).prop_map(Some)];
    let delay = || prop_oneof![0..40u64, 0..400u64];
    let loss = || prop_oneof![3 => Just(0), 2 => 1..10u32, 1 => 10..40u32];
    // A QUIC connection that was moved while nothing is in flight fails an assertion of quinn-proto 0.11.19, which is
    // checked in builds with debug assertions only (quinn issue 2658).
    let rebind = u32::from(!cfg!(debug_assertions));
    prop_oneof![
        5 => (server(), delay(), loss(), kbit())
            .prop_map(|(server, delay_ms, loss_percent, kbit)| Op::Link { server, delay_ms, loss_percent, kbit }),
        2 => (server(), any::<bool>()).prop_map(|(server, to_client)| Op::Blackhole { server, to_client }),
        1 => server().prop_map(|server| Op::Partition { server }),
        2 => server().prop_map(|server| Op::Heal { server }),
        2 * rebind => any::<bool>().prop_map(|address| Op::Rebind { address }),
        1 => who().prop_map(|who| Op::Crash { who }),
        1 => (who(), any::<bool>()).prop_map(|(who, forgets)| Op::Restart { who, forgets }),
        1 => (who(), 1..6000u64).prop_map(|(who, ms)| Op::Pause { who, ms }),
        1 => (who(), 1..3000u64).prop_map(|(who, ms)| Op::SendErrors { who, ms }),
    ]
}
