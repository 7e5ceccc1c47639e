//! Why a connection was lost (PROTOCOL.md §11).

use quinn_proto::{ConnectionError, TransportErrorCode};

use crate::error::{DeadReason, ErrorCode, TransportCode, received_reason};

/// What a QUIC connection ended with, in KWIK's words.
pub(super) fn reason(error: ConnectionError, connecting: bool) -> DeadReason {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            DeadReason::new(ErrorCode::from_wire(close.error_code.into_inner()), received_reason(&close.reason))
        }
        ConnectionError::TimedOut if connecting => DeadReason::new(TransportCode::UNREACHABLE, ""),
        ConnectionError::TimedOut => DeadReason::new(TransportCode::TIMED_OUT, ""),
        ConnectionError::Reset => DeadReason::new(TransportCode::SOURCE_LOST, "the peer restarted"),
        ConnectionError::TransportError(error) => transport_error(error.code, error.reason, "found here"),
        ConnectionError::ConnectionClosed(close) => {
            transport_error(close.error_code, received_reason(&close.reason), "found by the peer")
        }
        ConnectionError::LocallyClosed => DeadReason::new(TransportCode::NO_ERROR, ""),
        ConnectionError::VersionMismatch => DeadReason::new(TransportCode::VERSION, "no common version of QUIC"),
        ConnectionError::CidsExhausted => DeadReason::new(TransportCode::INTERNAL, "out of connection ids"),
    }
}

fn transport_error(code: TransportErrorCode, text: String, place: &str) -> DeadReason {
    // QUIC carries TLS alerts as codes 0x100 to 0x1ff (RFC 9001 §4.8).
    if (0x100..0x200).contains(&u64::from(code)) {
        return DeadReason::new(TransportCode::TLS_FAILED, format!("{text} ({place})"));
    }
    match code {
        TransportErrorCode::CONNECTION_REFUSED => DeadReason::new(TransportCode::SERVER_BUSY, text),
        // The network held the client up for long, or it has another address now. To dial again helps.
        TransportErrorCode::INVALID_TOKEN => DeadReason::new(
            TransportCode::UNREACHABLE,
            "the proof of address that the server gave is too old: dial again",
        ),
        TransportErrorCode::APPLICATION_ERROR => {
            DeadReason::new(TransportCode::AUTH_FAILED, "the peer closed during the handshake")
        }
        _ => DeadReason::new(TransportCode::PROTOCOL_VIOLATION, format!("QUIC error {code} ({place}): {text}")),
    }
}
