//! The reference model of all sessions of a world, which knows nothing of how the core keeps its books: what each application wrote, delegated, ended and read, and so what
//! each reader must see.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use kwik_core::{Chunk, ErrorCode, PathId, PublicIdentity, SessionError, SessionId, Side, StreamId, TransportCode};

use super::coverage::Coverage;
use super::ranges::Ranges;
use crate::content::{first_difference, mix};

/// A model that the applications of a world share.
pub type SharedModel = Rc<RefCell<FlowModel>>;

/// One direction of one stream of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// The session as its client numbered it.
    pub token: u64,
    /// The stream.
    pub stream: StreamId,
    /// The side whose bytes these are.
    pub writer: Side,
}

impl Flow {
    /// What the bytes of the flow follow from.
    #[must_use]
    pub fn key(&self) -> u64 {
        mix(&[self.token, self.stream.0, u64::from(self.writer == Side::Client)])
    }
}

/// How reading a flow ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadEnd {
    /// Every byte up to the end was read.
    Finished,
    /// The stream ended early.
    Reset(ErrorCode),
    /// The reader wanted no more.
    Unwanted,
    /// The session ended first.
    SessionOver,
}

#[derive(Debug, Default)]
struct FlowRecord {
    /// The first bytes, where they are not the pattern.
    head: Bytes,
    /// What was written here, or delegated to each path.
    written: BTreeMap<PathId, Ranges>,
    size: Option<u64>,
    reset: Option<u32>,
    stop: Option<u32>,
    read: Ranges,
    read_end: Option<ReadEnd>,
    /// The writer was notified that the peer has everything.
    acknowledged: bool,
}

/// A raw packet on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RawKey {
    pub(crate) token: u64,
    pub(crate) from: PathId,
    pub(crate) to: PathId,
    pub(crate) number: u64,
    pub(crate) is_reply: bool,
}

/// Everything the applications of a world did and saw, and what of it must not have been.
#[derive(Debug, Default)]
pub struct FlowModel {
    flows: BTreeMap<Flow, FlowRecord>,
    sessions: BTreeMap<SessionId, u64>,
    tokens: BTreeMap<u64, SessionId>,
    paths: BTreeMap<(SessionId, PathId), PublicIdentity>,
    raw: BTreeMap<RawKey, bool>,
    /// Tokens of sessions that honest clients began, and whether their primary is honest.
    begun: BTreeMap<u64, bool>,
    /// Sessions whose primary answered.
    welcomed: BTreeSet<u64>,
    /// Sessions that their clients closed.
    left: BTreeSet<u64>,
    /// Servers that speak as they like.
    byzantine: BTreeSet<PublicIdentity>,
    /// Identities that nobody has.
    invalid_paths: BTreeSet<PublicIdentity>,
    /// Whether servers may have no room for a session.
    may_be_refused: bool,
    /// Whether some client speaks as it likes.
    has_byzantine_client: bool,
    /// Whether anything is wrong with the network at any time.
    has_disturbances: bool,
    /// Whether it may cost a session.
    sessions_may_fail: bool,
    violations: Vec<String>,
    /// What was reached.
    pub coverage: Coverage,
}

/// Codes that peers which keep the rules never give each other.
pub const NEVER_HONEST: &[TransportCode] = &[
    TransportCode::INTERNAL,
    TransportCode::PROTOCOL_VIOLATION,
    TransportCode::FRAME_TOO_LARGE,
    TransportCode::GRANT_VIOLATION,
    TransportCode::RANGE_CONFLICT,
    TransportCode::FINAL_SIZE,
    TransportCode::FLOW_CONTROL,
    TransportCode::STREAM_LIMIT,
    TransportCode::REASSEMBLY_LIMIT,
    TransportCode::CONTROL_FLOOD,
    TransportCode::TLS_FAILED,
    TransportCode::IDENTITY_MISMATCH,
];

impl FlowModel {
    /// A model to share. `has_faults` says whether anything is wrong with the network at any time, and
    /// `sessions_may_fail` whether it may be so bad that sessions end.
    #[must_use]
    pub fn shared(has_disturbances: bool, sessions_may_fail: bool) -> SharedModel {
        Rc::new(RefCell::new(Self { has_disturbances, sessions_may_fail, ..Self::default() }))
    }

    /// A server with this identity speaks as it likes: what it says is not judged, and what others make of it is.
    pub fn distrust(&mut self, identity: PublicIdentity) {
        self.byzantine.insert(identity);
    }

    /// Paths to this identity cannot be.
    pub fn expect_invalid_path(&mut self, identity: PublicIdentity) {
        self.invalid_paths.insert(identity);
    }

    /// Servers may have too many sessions to take one more.
    pub fn expect_refusals(&mut self) {
        self.may_be_refused = true;
    }

    /// Some client speaks as it likes.
    pub fn distrust_a_client(&mut self) {
        self.has_byzantine_client = true;
    }

    /// An honest client began a session. `is_judged` is false if its primary speaks as it likes.
    pub fn began(&mut self, token: u64, is_judged: bool) {
        self.begun.insert(token, is_judged);
    }

    /// The client of a session was answered by its primary.
    pub fn welcomed(&mut self, token: u64) {
        self.welcomed.insert(token);
    }

    /// The client closed a session, and is done with it. Its peer may never hear of that.
    pub fn left(&mut self, token: u64) {
        self.left.insert(token);
    }

    /// A node lost its memory: what it had received and not read is gone.
    pub fn forgot(&mut self) {
        for record in self.flows.values_mut().filter(|record| record.read_end.is_none()) {
            record.acknowledged = false;
        }
    }

    /// Whether what happens in a session may be believed to be honest.
    #[must_use]
    pub fn is_judged(&self, token: u64) -> bool {
        match self.begun.get(&token) {
            Some(is_judged) => *is_judged,
            // Nobody honest uses this number. A byzantine peer may name any.
            None => !self.has_byzantine_client && self.byzantine.is_empty(),
        }
    }

    /// Whether no honest peer gives this code. Disturbances may turn the first answer of a server into a negotiation of QUIC's
    /// version, which nothing protects.
    fn is_never_honest(&self, code: ErrorCode) -> bool {
        let ErrorCode::Transport(code) = code else { return false };
        NEVER_HONEST.contains(&code) || (code == TransportCode::VERSION && !self.has_disturbances)
    }

    /// Whether a session may be believed to be honest; one of which no number is known may not if anyone lies.
    fn is_session_judged(&self, session: SessionId) -> bool {
        match self.sessions.get(&session) {
            Some(token) => self.is_judged(*token),
            None => !self.has_byzantine_client && self.byzantine.is_empty(),
        }
    }

    /// What must not have been, in the order in which it was noticed.
    #[must_use]
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// Notes something that must not be.
    pub fn violate(&mut self, text: String) {
        self.violations.push(text);
    }

    // ---- writers

    /// A flow begins with these bytes.
    pub fn begins(&mut self, flow: Flow, head: Bytes) {
        self.flows.entry(flow).or_default().head = head;
    }

    /// The owner of a flow wrote a range.
    pub fn wrote(&mut self, flow: Flow, range: Range<u64>) {
        self.delegated(flow, PathId::PRIMARY, range);
    }

    /// The owner of a flow left a range to a path.
    pub fn delegated(&mut self, flow: Flow, path: PathId, range: Range<u64>) {
        self.flows.entry(flow).or_default().written.entry(path).or_default().insert(range);
    }

    /// The owner ended the flow at `size`.
    pub fn finished(&mut self, flow: Flow, size: u64) {
        self.flows.entry(flow).or_default().size = Some(size);
    }

    /// The owner ended the flow early.
    pub fn reset(&mut self, flow: Flow, code: u32) {
        self.flows.entry(flow).or_default().reset = Some(code);
    }

    /// The owner was notified that the peer has all of the flow.
    pub fn acknowledged(&mut self, flow: Flow) {
        let record = self.flows.entry(flow).or_default();
        record.acknowledged = true;
        if record.size.is_none() {
            self.violate(format!("{flow:?} was acknowledged before it was finished"));
        }
    }

    /// The owner was notified that the reader wants no more.
    pub fn notified_of_stop(&mut self, flow: Flow, code: ErrorCode) {
        self.coverage.code(code);
        let stop = self.flows.get(&flow).and_then(|record| record.stop);
        let spoilt = !self.is_judged(flow.token) || self.may_be_spoilt(code);
        if !spoilt && stop.map(ErrorCode::Application) != Some(code) {
            self.violate(format!("the writer of {flow:?} was stopped with {code}; its reader stopped with {stop:?}"));
        }
    }

    // ---- readers

    /// The reader wants no more of a flow.
    pub fn stopped(&mut self, flow: Flow, code: u32) {
        self.flows.entry(flow).or_default().stop = Some(code);
    }

    /// A header was read at the start of a flow of a session.
    pub(crate) fn read_header(&mut self, flow: Flow, head: &[u8], chunk: &Chunk) {
        if !self.is_judged(flow.token) {
            return;
        }
        match self.flows.get_mut(&flow) {
            Some(record) if record.head == head => {
                record.read.insert(0..head.len() as u64);
            }
            _ => self.violate(format!("{flow:?} begins with bytes its writer did not write, from {:?}", chunk.source)),
        }
    }

    /// Bytes of a flow were read. `expected` is where they must begin, if they were read in order.
    pub fn read(&mut self, flow: Flow, chunk: &Chunk, expected: Option<u64>) {
        let start = chunk.offset.0;
        let range = start..start + chunk.data.len() as u64;
        if !self.is_judged(flow.token) {
            return;
        }
        // Bytes that several brought may hold those of a byzantine server.
        let is_byzantine = self
            .tokens
            .get(&flow.token)
            .is_some_and(|session| chunk.source.is_none_or(|source| self.is_byzantine(*session, source)));
        let Some(record) = self.flows.get_mut(&flow) else {
            return self.violate(format!("{range:?} of {flow:?} were read, and nobody wrote them"));
        };
        let mut wrong = Vec::new();
        if expected.is_some_and(|expected| expected != start) {
            wrong.push(format!("read out of order: {expected:?} was next"));
        }
        if record.read.insert(range.clone()) != chunk.data.len() as u64 {
            wrong.push("read twice".to_owned());
        }
        if let Some(source) = chunk.source
            && !record.written.get(&source).is_some_and(|written| written.covers(&range))
        {
            wrong.push(format!("came from {source}, which never had leave to write them"));
        }
        if !is_byzantine && let Some(at) = first_difference(flow.key(), start, &chunk.data) {
            wrong.push(format!("differ at {at} from what was written, from {:?}", chunk.source));
        }
        for wrong in wrong {
            self.violate(format!("bytes {range:?} of {flow:?} {wrong}"));
        }
    }

    /// The reader came to an end.
    pub fn read_end(&mut self, flow: Flow, end: ReadEnd) {
        if !self.is_judged(flow.token) {
            return;
        }
        let record = self.flows.entry(flow).or_default();
        if record.read_end.is_some_and(|before| before != ReadEnd::SessionOver) {
            self.violate(format!("{flow:?} ended twice: {end:?}"));
            return;
        }
        record.read_end = Some(end);
        let read = record.read.total();
        let (size, reset) = (record.size, record.reset);
        match end {
            ReadEnd::Finished if size != Some(read) => {
                self.violate(format!("{flow:?} ended after {read} bytes; its writer finished it at {size:?}"));
            }
            ReadEnd::Reset(code) => {
                self.coverage.code(code);
                if !self.may_be_spoilt(code) && reset.map(ErrorCode::Application) != Some(code) {
                    self.violate(format!("{flow:?} was reset with {code}; its writer reset it with {reset:?}"));
                }
            }
            _ => {}
        }
    }

    /// How many bytes of a flow were read, and how that ended.
    #[must_use]
    pub fn progress(&self, flow: Flow) -> (u64, Option<ReadEnd>) {
        self.flows.get(&flow).map_or((0, None), |record| (record.read.total(), record.read_end))
    }

    // ---- sessions and paths

    /// A session and the number its client gave it were seen together.
    pub fn bind(&mut self, session: SessionId, token: u64) {
        if !self.is_judged(token) {
            return;
        }
        let known = *self.sessions.entry(session).or_insert(token);
        let other = *self.tokens.entry(token).or_insert(session);
        if known != token || other != session {
            self.violate(format!("session {session} carries what belongs to {token:x}; it is {known:x}"));
        }
    }

    /// A path of a session leads to the server with this identity.
    pub fn path(&mut self, session: SessionId, path: PathId, identity: PublicIdentity) {
        self.paths.insert((session, path), identity);
    }

    /// A path died.
    pub fn path_died(&mut self, session: SessionId, path: PathId, code: ErrorCode) {
        self.coverage.code(code);
        let judged = self.is_session_judged(session) && !self.is_byzantine(session, path);
        if judged && self.is_never_honest(code) {
            self.violate(format!("{path} of session {session} died of {code}, and its server kept the rules"));
        }
    }

    /// A session ended, at either end. `is_judged` is false at nodes that speak as they like.
    pub fn session_ended(&mut self, token: Option<u64>, who: &str, error: &SessionError) {
        if let SessionError::Transport { code, .. } = error {
            self.coverage.code((*code).into());
        }
        let failed = !matches!(error, SessionError::LocallyClosed | SessionError::ClosedByPeer { .. });
        // A session of which no number is known may be one of a client that lies.
        let judged = token.map_or(!self.has_byzantine_client, |token| self.is_judged(token));
        if !failed || !judged {
            return;
        }
        let never = matches!(error, SessionError::Transport { code, .. } if self.is_never_honest((*code).into()));
        let left = token.is_some_and(|token| self.left.contains(&token));
        // The network may spoil a handshake without being bad for long: a server gives up early.
        let unborn = token.is_some_and(|token| !self.welcomed.contains(&token)) && self.has_disturbances;
        let busy = matches!(error, SessionError::Transport { code: TransportCode::SERVER_BUSY, .. });
        let refused = self.may_be_refused && busy;
        if never || !(self.sessions_may_fail || left || unborn || refused) {
            self.violate(format!("the {who} of session {token:x?} lost it: {error}"));
        }
    }

    // ---- grants and raw packets

    /// A secondary accepted a part.
    pub fn granted(&mut self, session: SessionId, path: PathId, flow: Flow, range: &Range<u64>) {
        if !self.is_session_judged(session) {
            return;
        }
        self.bind(session, flow.token);
        let record = self.flows.get(&flow);
        if !record.and_then(|record| record.written.get(&path)).is_some_and(|delegated| delegated.covers(range)) {
            self.violate(format!("{path} was granted {range:?} of {flow:?}, which nobody delegated to it"));
        }
    }

    /// A grant of a session makes no sense.
    pub(crate) fn misgranted(&mut self, session: Option<SessionId>, what: String) {
        if session.is_none_or(|session| self.is_session_judged(session)) {
            self.violate(what);
        }
    }

    /// Whether a raw packet of a session, from a path, is from an honest server.
    pub(crate) fn is_judged_raw(&self, session: SessionId, from: PathId) -> bool {
        self.is_session_judged(session) && !self.is_byzantine(session, from)
    }

    pub(crate) fn sent_raw(&mut self, key: RawKey) {
        self.raw.insert(key, false);
    }

    pub(crate) fn received_raw(&mut self, session: SessionId, key: RawKey) {
        self.bind(session, key.token);
        match self.raw.get_mut(&key) {
            Some(received) if !*received => *received = true,
            Some(_) => self.violate(format!("{key:?} came twice")),
            None => self.violate(format!("{key:?} came and was never sent")),
        }
    }

    // ---- at the end

    /// The flows that somebody still has to write or to read, for a report.
    #[must_use]
    pub fn open_flows(&self) -> Vec<String> {
        let is_open = |record: &FlowRecord| {
            record.read_end.is_none()
                && record.reset.is_none()
                && !(record.written.is_empty() && record.read.is_empty())
        };
        let text = |(flow, record): (&Flow, &FlowRecord)| {
            let FlowRecord { written, size, read, acknowledged, .. } = record;
            format!("{flow:?}: read {read}, acknowledged {acknowledged}, ends at {size:?}, written {written:?}")
        };
        self.flows.iter().filter(|(_, record)| is_open(record)).map(text).collect()
    }

    /// What is still open although both ends are done.
    pub fn check_settled(&mut self) {
        let open: Vec<String> = self
            .flows
            .iter()
            .filter(|(flow, record)| self.is_judged(flow.token) && record.acknowledged && record.read_end.is_none())
            .map(|(flow, record)| format!("{flow:?} was acknowledged whole, and read to {}", record.read.total()))
            .collect();
        self.violations.extend(open);
    }

    /// Whether the server of a path speaks as it likes, or cannot be there.
    #[must_use]
    pub fn is_byzantine(&self, session: SessionId, path: PathId) -> bool {
        let identity = self.paths.get(&(session, path));
        identity.is_some_and(|identity| self.byzantine.contains(identity) || self.invalid_paths.contains(identity))
    }

    /// Whether a stream may end so since a secondary wrote into it what it liked.
    fn may_be_spoilt(&self, code: ErrorCode) -> bool {
        let spoilt = [TransportCode::RANGE_CONFLICT, TransportCode::REASSEMBLY_LIMIT];
        !self.byzantine.is_empty() && spoilt.into_iter().any(|spoilt| code == spoilt.into())
    }
}
