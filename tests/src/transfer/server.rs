//! A server: what it does as a secondary, and its sessions as a primary.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use kwik_core::{Dir, PathTarget, Role, SessionEvent, SessionHandle, SessionMut, StreamEvent, StreamHandle};
use kwik_sim::{App, Context};

use super::book::Book;
use super::bytes_of;
use super::client::Request;
use super::primary::Primary;

pub(super) struct Server {
    number: usize,
    others: Vec<PathTarget>,
    book: Rc<RefCell<Book>>,
    seats: BTreeMap<SessionHandle, Seat>,
}

enum Seat {
    Primary(Box<Primary>),
    Secondary(BTreeMap<StreamHandle, Part>),
}

/// A range that this server writes for another.
#[derive(Debug, Default)]
struct Part {
    request: Vec<u8>,
    written: u64,
}

/// Pieces in which bytes are written.
pub(super) const PIECE: u64 = 16 * 1024;

impl Server {
    pub(super) fn new(number: usize, others: Vec<PathTarget>, book: Rc<RefCell<Book>>) -> Self {
        Self { number, others, book, seats: BTreeMap::new() }
    }

    fn rearm(&self, cx: &mut Context<'_>) {
        let now = cx.now();
        let wake_at = |seat: &Seat| match seat {
            Seat::Primary(primary) => primary.wake_at(),
            Seat::Secondary(_) => None,
        };
        if let Some(at) = self.seats.values().filter_map(wake_at).min() {
            cx.wake_in(at.saturating_duration_since(now));
        }
    }
}

impl App for Server {
    fn on_start(&mut self, _: &mut Context<'_>) {
        self.seats.clear();
    }

    fn on_event(&mut self, cx: &mut Context<'_>, handle: SessionHandle, event: SessionEvent) {
        let now = cx.now();
        let Some(mut session) = cx.session_mut(handle) else { return };
        if event == SessionEvent::Incoming {
            let seat = match session.role() {
                Role::Primary => Seat::Primary(Box::new(Primary::new(self.book.clone(), self.others.clone()))),
                Role::Secondary | Role::Client => {
                    self.book.borrow_mut().joined.push((self.number, handle));
                    Seat::Secondary(BTreeMap::new())
                }
            };
            self.seats.insert(handle, seat);
        }
        match self.seats.get_mut(&handle) {
            Some(Seat::Primary(primary)) => primary.on_event(now, &event, &mut session),
            Some(Seat::Secondary(parts)) => on_part(parts, &event, &mut session),
            None => {}
        }
        if matches!(event, SessionEvent::Closed(_)) {
            self.seats.remove(&handle);
            cx.release(handle);
        }
        self.rearm(cx);
    }

    fn on_wake(&mut self, cx: &mut Context<'_>) {
        let now: Instant = cx.now();
        for (handle, seat) in &mut self.seats {
            if let (Seat::Primary(primary), Some(mut session)) = (seat, cx.session_mut(*handle)) {
                primary.wake(now, &mut session);
            }
        }
        self.rearm(cx);
    }
}

fn on_part(parts: &mut BTreeMap<StreamHandle, Part>, event: &SessionEvent, session: &mut SessionMut<'_>) {
    let SessionEvent::Stream(event) = event else { return };
    match event {
        StreamEvent::Opened { .. } => {
            while let Some(stream) = session.accept_stream(Dir::Bi) {
                parts.insert(stream, Part::default());
                write_part(parts, stream, session);
            }
        }
        StreamEvent::Readable(stream) | StreamEvent::Writable(stream) => write_part(parts, *stream, session),
        StreamEvent::Stopped { stream, .. } => {
            parts.remove(stream);
            session.stream_mut(*stream).release_send();
            session.stream_mut(*stream).release_recv();
        }
        StreamEvent::Available { .. } | StreamEvent::Finished(_) => {}
    }
}

fn write_part(parts: &mut BTreeMap<StreamHandle, Part>, handle: StreamHandle, session: &mut SessionMut<'_>) {
    let Some(part) = parts.get_mut(&handle) else { return };
    let mut stream = session.stream_mut(handle);
    while let Ok(chunk) = stream.read(usize::MAX) {
        part.request.extend_from_slice(&chunk.data);
    }
    let (Some(request), Some(grant)) = (Request::decode(&part.request), stream.view().grant()) else { return };
    loop {
        let begin = grant.range.start + part.written;
        if begin == grant.range.end {
            break;
        }
        let data = bytes_of(request.stream, begin..grant.range.end.min(begin + PIECE));
        match stream.write_chunk(data) {
            Ok(taken) => part.written += taken as u64,
            Err(_) => return,
        }
    }
    let _ = stream.finish();
    stream.release_send();
    stream.release_recv();
    parts.remove(&handle);
}
