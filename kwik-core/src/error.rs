//! Error codes on the wire, and the reasons a session or a path ends.

use std::fmt::{self, Write};

use crate::id::PathId;
use crate::limits::CLOSE_REASON_BYTES_MAX;

/// A code on the wire: one of KWIK's own, or one the application chose (PROTOCOL.md §11).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorCode {
    /// A code of the protocol.
    Transport(TransportCode),
    /// A code of the application, meaningless to KWIK.
    Application(u32),
}

impl ErrorCode {
    const APPLICATION_BASE: u64 = 1 << 32;
    /// What is added to the code of an application that closed before everything was delivered.
    const CUT_SHORT_BASE: u64 = 1 << 33;

    /// The number that stands for this code on the wire.
    #[must_use]
    pub fn to_wire(self) -> u64 {
        match self {
            Self::Transport(code) => code.0,
            Self::Application(code) => Self::APPLICATION_BASE + u64::from(code),
        }
    }

    /// The code with which a connection is closed whose application closed the session with this one, before everything was
    /// delivered (PROTOCOL.md §12).
    pub(crate) fn cut_short(self) -> Self {
        match self {
            Self::Application(code) => TransportCode(Self::CUT_SHORT_BASE + u64::from(code)).into(),
            Self::Transport(_) => self,
        }
    }

    /// This code, or the application's that [`Self::cut_short`] made it of.
    pub(crate) fn without_cut(self) -> Self {
        self.of_cut_short().map_or(self, Self::Application)
    }

    /// The code of the application, if this is one of [`Self::cut_short`].
    fn of_cut_short(self) -> Option<u32> {
        let Self::Transport(TransportCode(value)) = self else { return None };
        value.checked_sub(Self::CUT_SHORT_BASE).and_then(|code| u32::try_from(code).ok())
    }

    /// The code a number on the wire stands for. Every number stands for one.
    #[must_use]
    pub fn from_wire(value: u64) -> Self {
        value
            .checked_sub(Self::APPLICATION_BASE)
            .and_then(|code| u32::try_from(code).ok())
            .map_or(Self::Transport(TransportCode(value)), Self::Application)
    }
}

impl From<TransportCode> for ErrorCode {
    fn from(code: TransportCode) -> Self {
        Self::Transport(code)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport(code) => code.fmt(f),
            Self::Application(code) => write!(f, "application code {code}"),
        }
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A code of the protocol. Unknown numbers are kept as they came.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransportCode(pub u64);

macro_rules! transport_codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        impl TransportCode {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// Every code this version defines.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The name of a code this version defines.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }

            /// What the code means, in a few words.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                    _ => "a code this version does not know",
                }
            }
        }
    };
}

transport_codes! {
    /// Nothing went wrong.
    NO_ERROR = 0x4B00, "nothing went wrong";
    /// A fault of the implementation.
    INTERNAL = 0x4B01, "the peer met a fault of its own";
    /// A frame that breaks the protocol.
    PROTOCOL_VIOLATION = 0x4B02, "a frame broke the rules of the protocol";
    /// A frame longer than its limit.
    FRAME_TOO_LARGE = 0x4B03, "a frame was longer than its limit";
    /// Authentication took too long.
    AUTH_TIMEOUT = 0x4B04, "authentication took too long";
    /// Authentication failed; the cause is not told.
    AUTH_FAILED = 0x4B05, "authentication failed";
    /// A ticket was used outside its time.
    AUTH_TIME = 0x4B06, "a ticket was used outside its time";
    /// The lease of a path ran out.
    LEASE_EXPIRED = 0x4B07, "the lease of the path ran out";
    /// The primary removed the path.
    PATH_REMOVED = 0x4B08, "the primary removed the path";
    /// More paths than the limit.
    PATH_LIMIT = 0x4B09, "the session has as many paths as it may";
    /// The client's policy refused the path.
    PATH_POLICY = 0x4B0A, "the client's path policy refused the address or name";
    /// Bytes outside a grant.
    GRANT_VIOLATION = 0x4B0B, "a secondary wrote outside its grant";
    /// Different bytes at one offset.
    RANGE_CONFLICT = 0x4B0C, "different bytes were written at one offset";
    /// Final sizes that contradict each other.
    FINAL_SIZE = 0x4B0D, "the final size of a stream was contradicted";
    /// Bytes beyond the credit given.
    FLOW_CONTROL = 0x4B0E, "bytes beyond the credit given";
    /// A stream beyond the limit.
    STREAM_LIMIT = 0x4B0F, "a stream beyond the limit";
    /// A stream came with too many gaps.
    REASSEMBLY_LIMIT = 0x4B10, "a stream came with too many gaps";
    /// Too many frames that achieve nothing.
    CONTROL_FLOOD = 0x4B11, "too many frames that achieve nothing";
    /// Too many raw packets.
    RAW_LIMIT = 0x4B12, "the queue for raw packets is full";
    /// The peer holds much and reads little. Reserved: nobody sends it in this version.
    SLOW_PEER = 0x4B13, "the peer holds much and reads little";
    /// The server takes no more work.
    SERVER_BUSY = 0x4B14, "the server takes no more work";
    /// The server is going away.
    GOING_AWAY = 0x4B15, "the peer is going away";
    /// The server that was to supply bytes is gone.
    SOURCE_LOST = 0x4B16, "the server that was to supply bytes is gone";
    /// A newer connection took the place of this one.
    SUPERSEDED = 0x4B17, "another connection holds this path";
    /// No answer from the address.
    UNREACHABLE = 0x4B18, "no answer from the address";
    /// The certificate or the server name was not accepted.
    TLS_FAILED = 0x4B19, "the TLS handshake failed: certificate, server name or protocol not accepted";
    /// The server is not the one the primary named.
    IDENTITY_MISMATCH = 0x4B1A, "the server does not hold the identity it was named with";
    /// Nothing was heard for too long.
    TIMED_OUT = 0x4B1B, "nothing was heard for too long";
    /// The path does not exist, or no longer.
    PATH_UNKNOWN = 0x4B1C, "the path does not exist or is not active";
    /// The peers share no version.
    VERSION = 0x4B1D, "the peers share no version of the protocol";
    /// A grant was revoked.
    REVOKED = 0x4B1E, "the primary revoked the grant";
    /// The client no longer wants the stream.
    STREAM_GONE = 0x4B1F, "the stream is finished, reset or no longer read";
    /// The client left a command or a raw packet without an answer. No peer sends it.
    UNANSWERED = 0x4B20, "the client did not answer in time";
    /// This side closed the session, or its endpoint ended. No peer sends it.
    ENDED_HERE = 0x4B21, "this side ended the session";
}

impl fmt::Display for TransportCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} (0x{:x}: {})", self.0, self.meaning()),
            None => write!(f, "code 0x{:x}", self.0),
        }
    }
}

impl fmt::Debug for TransportCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that a peer may have chosen, as it is shown: on one line, without anything that a terminal would act on or that
/// would turn the direction of what follows, and cut where it is long.
struct Printable<'a>(&'a str);

impl Printable<'_> {
    /// Characters that are shown.
    const CHARS_MAX: usize = 256;
}

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0.char_indices().nth(Self::CHARS_MAX).map_or(self.0.len(), |(at, _)| at);
        for piece in self.0[..end].split_inclusive(['"', '\'']) {
            // Quotes are harmless, and read better as they are.
            let text = piece.trim_end_matches(['"', '\'']);
            fmt::Display::fmt(&text.escape_debug(), f)?;
            f.write_str(&piece[text.len()..])?;
        }
        if end < self.0.len() { f.write_char('…') } else { Ok(()) }
    }
}

/// A reason as it travels, at most so long, cut between characters.
pub(crate) fn cut_reason(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX)]
}

/// A reason that came, from whatever bytes.
pub(crate) fn received_reason(bytes: &[u8]) -> String {
    // A replacement character is longer than the byte it stands for.
    cut_reason(&String::from_utf8_lossy(bytes)).to_owned()
}

/// Why a path is dead.
///
/// Its text shows `detail` escaped and cut; the field holds it as the peer said it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}{separator}{text}", separator = if detail.is_empty() { "" } else { ": " }, text = Printable(detail))]
pub struct DeadReason {
    /// The code it was closed with, here or at the far end.
    pub code: ErrorCode,
    /// What is known beyond the code; may be empty. The peer may have chosen it: to be escaped before it is shown.
    pub detail: String,
}

impl DeadReason {
    pub(crate) fn new(code: impl Into<ErrorCode>, detail: impl Into<String>) -> Self {
        Self { code: code.into(), detail: detail.into() }
    }
}

/// Why a session ended.
///
/// Its text shows what the peer said escaped and cut; the fields hold it as it was said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// This side closed it.
    #[error("the session was closed by this side")]
    LocallyClosed,
    /// The application at the far end closed it.
    #[error(
        "the peer closed the session with code {code}: \"{text}\"{cut}",
        text = Printable(reason),
        cut = if *cut_short { ", before all that it had finished arrived" } else { "" }
    )]
    ClosedByPeer {
        /// The code it gave.
        code: u32,
        /// The reason it gave, at most 256 bytes; may be empty. To be escaped before it is shown.
        reason: String,
        /// Whether it gave up on streams that it had finished: not all of them arrived whole.
        cut_short: bool,
    },
    /// The protocol ended it: a fault of either end, a refusal, or an unreachable primary.
    #[error(
        "the session failed: {code}{separator}{text}",
        separator = if detail.is_empty() { "" } else { ": " },
        text = Printable(detail)
    )]
    Transport {
        /// What happened.
        code: TransportCode,
        /// What is known beyond the code; may be empty. The peer may have chosen it: to be escaped before it is shown.
        detail: String,
    },
    /// The far end fell silent.
    #[error("the peer has not been heard for too long")]
    TimedOut,
    /// Nobody drives the endpoint of this side any more. The core does not say so; whoever runs a loop around it may.
    #[error("this side's endpoint is not driven any more: it was closed, or the runtime it ran in was shut down")]
    NotDriven,
}

impl From<DeadReason> for SessionError {
    fn from(reason: DeadReason) -> Self {
        if let Some(code) = reason.code.of_cut_short() {
            return Self::ClosedByPeer { code, reason: reason.detail, cut_short: true };
        }
        match reason.code {
            ErrorCode::Application(code) => Self::ClosedByPeer { code, reason: reason.detail, cut_short: false },
            ErrorCode::Transport(TransportCode::TIMED_OUT) => Self::TimedOut,
            ErrorCode::Transport(code) => Self::Transport { code, detail: reason.detail },
        }
    }
}

/// The peer broke a rule. The path that brought the input is closed with the code, unless another is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The code the path is closed with.
    pub(crate) code: TransportCode,
    /// What was wrong, for the close reason.
    pub(crate) detail: &'static str,
    /// Whose fault it is, if not that of the path that brought the input.
    pub(crate) offender: Option<PathId>,
}

impl Fault {
    pub(crate) const fn new(code: TransportCode, detail: &'static str) -> Self {
        Self { code, detail, offender: None }
    }
}

/// What a frame of the peer changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameEffect {
    /// Something.
    Progress,
    /// Nothing: everything it says was known, or is of no interest any more.
    NoOp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_peer_is_shown_on_one_line_and_moves_nothing() {
        let table = [
            ("", ""),
            ("done, \"as they say\", it's fine", "done, \"as they say\", it's fine"),
            ("Größe 日本語 नमस्ते ✅", "Größe 日本語 नमस्ते ✅"),
            ("one\ntwo\r\n\tthree", "one\\ntwo\\r\\n\\tthree"),
            ("back\\nslash", "back\\\\nslash"),
            ("nul\0", "nul\\0"),
            ("\u{1b}[31mred\u{1b}[0m", "\\u{1b}[31mred\\u{1b}[0m"),
            ("\u{9b}31m \u{7f} \u{8} \u{7}", "\\u{9b}31m \\u{7f} \\u{8} \\u{7}"),
            ("next\u{85}line\u{2028}para\u{2029}", "next\\u{85}line\\u{2028}para\\u{2029}"),
            ("a\u{202e}txt.exe\u{202c}", "a\\u{202e}txt.exe\\u{202c}"),
            ("\u{2066}x\u{2069}\u{200f}", "\\u{2066}x\\u{2069}\\u{200f}"),
            ("zero\u{200b}width\u{feff}", "zero\\u{200b}width\\u{feff}"),
            ("tag\u{e0001}\u{e0041}", "tag\\u{e0001}\\u{e0041}"),
            ("\u{301}first mark", "\\u{301}first mark"),
            ("'\"\n'", "'\"\\n'"),
        ];
        for (said, shown) in table {
            assert_eq!(Printable(said).to_string(), shown, "{said:?}");
            let reason = DeadReason::new(TransportCode::INTERNAL, said);
            assert!(reason.to_string().ends_with(shown), "{reason}");
            let closed = SessionError::ClosedByPeer { code: 7, reason: said.to_owned(), cut_short: false };
            assert!(closed.to_string().ends_with(&format!("\"{shown}\"")), "{closed}");
            let failed = SessionError::from(reason);
            assert!(failed.to_string().ends_with(shown), "{failed}");
            let SessionError::Transport { detail, .. } = failed else { panic!("{failed:?}") };
            assert_eq!(detail, said, "the field holds what was said");
        }
    }

    #[test]
    fn text_of_a_peer_is_cut() {
        for (said, chars) in [("é".repeat(256), 256), ("é".repeat(257), 257), ("\u{202e}".repeat(9999), 256 * 8 + 1)]
        {
            assert_eq!(Printable(&said).to_string().chars().count(), chars);
        }
        let long = DeadReason::new(TransportCode::INTERNAL, "x".repeat(100_000));
        assert!(long.to_string().len() < 400);
    }

    // [P-12.2]
    #[test]
    fn reasons_are_cut_between_characters() {
        assert_eq!(received_reason(&[b'a'; 300]).len(), 256);
        assert_eq!(received_reason(&"é".repeat(200).into_bytes()), "é".repeat(128));
        assert_eq!(received_reason(format!("a{}", "é".repeat(200)).as_bytes()).len(), 255);
        assert_eq!(received_reason(&[0xff; 300]), "\u{fffd}".repeat(85));
        assert_eq!(cut_reason("short"), "short");
    }

    // [P-11.1]
    #[test]
    fn codes_survive_the_wire() {
        for code in [0, 1, 0x4B00, u32::MAX] {
            let code = ErrorCode::Application(code);
            assert_eq!(ErrorCode::from_wire(code.to_wire()), code);
        }
        for code in TransportCode::ALL {
            let code = ErrorCode::Transport(*code);
            assert_eq!(ErrorCode::from_wire(code.to_wire()), code);
        }
        assert_eq!(ErrorCode::from_wire(u64::MAX), ErrorCode::Transport(TransportCode(u64::MAX)));
        for code in [0, 7, u32::MAX] {
            let told = ErrorCode::from_wire(ErrorCode::Application(code).cut_short().to_wire());
            assert_eq!((told.of_cut_short(), told.without_cut()), (Some(code), ErrorCode::Application(code)));
            assert_eq!(ErrorCode::Application(code).of_cut_short(), None);
        }
        assert_eq!(ErrorCode::from(TransportCode::NO_ERROR).cut_short(), TransportCode::NO_ERROR.into());
    }
}
