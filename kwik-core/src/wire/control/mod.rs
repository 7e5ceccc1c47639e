//! The frames of the control plane, one struct each.

mod grant;
mod path;
mod session;
mod stream;

pub(crate) use grant::{Grant, GrantEnd, GrantStatusFrame, Raw, RawStatus, Revoke, SignedPayload};
pub(super) use grant::{put_range, take_range};
pub(crate) use path::{AddPath, Lease, PacketAck, PathStatus, RemovePath, WirePathState};
pub(crate) use session::{Close, Hello, Join, Welcome};
pub(crate) use stream::{MaxStreamData, MaxStreams, OpenStream, ResetStream, StopSending};
