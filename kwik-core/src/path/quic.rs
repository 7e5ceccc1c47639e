//! The QUIC connection of a path, which notes whether anything was done to it.

use std::ops::{Deref, DerefMut};

use quinn_proto::Connection;

/// A connection. Whoever changes it may have given it something to send, or another deadline: it is *touched* then,
/// until it was asked for both.
pub(crate) struct Quic {
    connection: Connection,
    touched: bool,
}

impl Quic {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection, touched: true }
    }

    pub(super) fn is_touched(&self) -> bool {
        self.touched
    }

    /// Something beside the connection changed what is to be sent, or when.
    pub(super) fn touch(&mut self) {
        self.touched = true;
    }

    /// The connection was asked for what it has to send, until there was no more, and for its deadline.
    pub(super) fn rest(&mut self) {
        self.touched = false;
    }

    /// The connection, for a call that asks for what there is, or changes nothing that is to be sent now.
    pub(super) fn untouched(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

impl Deref for Quic {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for Quic {
    fn deref_mut(&mut self) -> &mut Connection {
        self.touched = true;
        &mut self.connection
    }
}
