//! Where the streams of a session are kept, and in which order they wait.
//!
//! A handle names the place of its stream, so that a stream is found without a search. A stream waits in each [`Queue`] once
//! at most, and is linked to its neighbours there: to queue it, or to take it out, costs no memory and no search.

use super::Stream;
use crate::id::{StreamHandle, StreamId};
use rustc_hash::FxHashMap;
use slab::Slab;
use std::num::NonZeroU32;

/// The streams that are not gone.
#[derive(Debug, Default)]
pub(super) struct Streams {
    places: Slab<Box<Stream>>,
    /// How many there were.
    opened: u64,
    /// The places of the streams that are whole ones. Several grants may be for one stream, so they are not here.
    by_id: FxHashMap<StreamId, u32>,
}

impl Streams {
    /// Empty places beyond this are given back when most are empty.
    const SPARE_PLACES: usize = 64;

    pub(super) fn get(&self, handle: StreamHandle) -> Option<&Stream> {
        let stream = self.places.get(handle.place as usize)?;
        (stream.handle == handle).then_some(stream)
    }

    pub(super) fn get_mut(&mut self, handle: StreamHandle) -> Option<&mut Stream> {
        let stream = self.places.get_mut(handle.place as usize)?;
        (stream.handle == handle).then_some(stream)
    }

    /// Adds a stream, which gets the handle returned. `None` if there are as many as can be named.
    pub(super) fn insert(&mut self, mut stream: Box<Stream>) -> Option<StreamHandle> {
        let place = self.places.vacant_entry();
        let handle = StreamHandle { number: self.opened, place: u32::try_from(place.key()).ok()? };
        self.opened += 1;
        stream.handle = handle;
        if stream.grant.is_none() {
            self.by_id.insert(stream.id, handle.place);
        }
        place.insert(stream);
        Some(handle)
    }

    pub(super) fn remove(&mut self, handle: StreamHandle) -> Option<Box<Stream>> {
        self.get(handle)?;
        let stream = self.places.try_remove(handle.place as usize)?;
        if stream.grant.is_none() {
            self.by_id.remove(&stream.id);
        }
        if self.places.is_empty() && self.places.capacity() > Self::SPARE_PLACES {
            self.places.shrink_to_fit();
            self.by_id.shrink_to_fit();
        }
        Some(stream)
    }

    fn at(&self, place: Place) -> Option<&Stream> {
        self.places.get(place.get() as usize - 1).map(Box::as_ref)
    }

    fn at_mut(&mut self, place: Place) -> Option<&mut Stream> {
        self.places.get_mut(place.get() as usize - 1).map(Box::as_mut)
    }

    /// The whole stream of an id.
    pub(super) fn of_id(&self, id: StreamId) -> Option<StreamHandle> {
        self.places.get(*self.by_id.get(&id)? as usize).map(|stream| stream.handle)
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Stream> {
        self.places.iter().map(|(_, stream)| stream.as_ref())
    }

    pub(super) fn handles(&self) -> Vec<StreamHandle> {
        self.iter().map(|stream| stream.handle).collect()
    }
}

/// A place, counted from 1.
type Place = NonZeroU32;

fn place_of(handle: StreamHandle) -> Option<Place> {
    handle.place.checked_add(1).and_then(NonZeroU32::new)
}

/// In which queue a stream waits.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wait {
    /// It has something to announce to the peer.
    Control,
    /// It has something for the application.
    Event,
    /// It has bytes to send.
    Send,
    /// Its writer wants room in the session's buffer.
    Room,
}

/// Between whom a stream waits, by [`Wait`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Links {
    neighbours: [Neighbours; 4],
    /// In which queues it is, a bit for each.
    waits: u8,
}

/// The neighbours of a stream in one queue.
#[derive(Debug, Clone, Copy, Default)]
struct Neighbours {
    before: Option<Place>,
    behind: Option<Place>,
}

impl Links {
    /// Whether the stream is in some queue.
    pub(super) fn is_waiting(self) -> bool {
        self.waits != 0
    }

    fn is_in(self, wait: Wait) -> bool {
        self.waits & 1 << wait as u8 != 0
    }

    fn join(&mut self, wait: Wait, neighbours: Neighbours) {
        self.waits |= 1 << wait as u8;
        self.neighbours[wait as usize] = neighbours;
    }

    fn leave(&mut self, wait: Wait) -> Neighbours {
        self.waits &= !(1 << wait as u8);
        std::mem::take(&mut self.neighbours[wait as usize])
    }
}

/// Streams that wait, the first at the front.
#[derive(Debug)]
pub(super) struct Queue {
    wait: Wait,
    front: Option<Place>,
    back: Option<Place>,
}

impl Queue {
    pub(super) const fn new(wait: Wait) -> Self {
        Self { wait, front: None, back: None }
    }

    pub(super) fn front(&self, streams: &Streams) -> Option<StreamHandle> {
        Some(streams.at(self.front?)?.handle)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.front.is_none()
    }

    /// Puts a stream at the back, unless it waits already.
    pub(super) fn push(&mut self, streams: &mut Streams, handle: StreamHandle) {
        let (back, place) = (self.back, place_of(handle));
        let Some(links) = streams.get_mut(handle).map(|stream| &mut stream.links) else { return };
        if links.is_in(self.wait) {
            return;
        }
        links.join(self.wait, Neighbours { before: back, behind: None });
        self.join(streams, back, place);
        self.back = place;
    }

    pub(super) fn pop(&mut self, streams: &mut Streams) -> Option<StreamHandle> {
        let front = self.front(streams)?;
        self.remove(streams, front);
        Some(front)
    }

    /// Takes a stream out. Returns whether it waited.
    pub(super) fn remove(&mut self, streams: &mut Streams, handle: StreamHandle) -> bool {
        let Some(Neighbours { before, behind }) = self.leave(streams, handle) else { return false };
        self.join(streams, before, behind);
        if behind.is_none() {
            self.back = before;
        }
        true
    }

    /// Puts `new`, which must not wait yet, in the place of `old`.
    pub(super) fn replace(&mut self, streams: &mut Streams, old: StreamHandle, new: StreamHandle) {
        let Some(taken) = self.leave(streams, old) else { return };
        let place = place_of(new);
        if let Some(stream) = streams.get_mut(new) {
            stream.links.join(self.wait, taken);
        }
        self.join(streams, taken.before, place);
        match taken.behind {
            Some(behind) => self.join(streams, place, Some(behind)),
            None => self.back = place,
        }
    }

    /// Takes all out.
    pub(super) fn clear(&mut self, streams: &mut Streams) {
        while self.pop(streams).is_some() {}
    }

    /// Makes two neighbours of each other; without the first, the second is at the front.
    fn join(&mut self, streams: &mut Streams, before: Option<Place>, behind: Option<Place>) {
        let wait = self.wait as usize;
        match before.and_then(|before| streams.at_mut(before)) {
            Some(stream) => stream.links.neighbours[wait].behind = behind,
            None => self.front = behind,
        }
        if let Some(stream) = behind.and_then(|behind| streams.at_mut(behind)) {
            stream.links.neighbours[wait].before = before;
        }
    }

    /// Takes a stream out, but for its neighbours, which are returned if it was in.
    fn leave(&self, streams: &mut Streams, handle: StreamHandle) -> Option<Neighbours> {
        let links = &mut streams.get_mut(handle)?.links;
        links.is_in(self.wait).then(|| links.leave(self.wait))
    }
}

/// Streams that have bytes to send: the highest priority first, and equals in turns.
#[derive(Debug, Default)]
pub(super) struct SendQueue {
    /// By priority, the highest first. A level without a stream stays, if it is the only one.
    levels: Vec<(i32, Queue)>,
}

impl SendQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.levels.iter().all(|(_, queue)| queue.is_empty())
    }

    /// Puts a stream behind its equals, unless it waits already.
    pub(super) fn push(&mut self, streams: &mut Streams, handle: StreamHandle) {
        let Some(priority) = streams.get(handle).map(|stream| stream.priority) else { return };
        let at = self.levels.partition_point(|(level, _)| *level > priority);
        if self.levels.get(at).is_none_or(|(level, _)| *level != priority) {
            self.levels.insert(at, (priority, Queue::new(Wait::Send)));
        }
        self.levels[at].1.push(streams, handle);
    }

    pub(super) fn front(&self, streams: &Streams) -> Option<StreamHandle> {
        self.levels.iter().find_map(|(_, queue)| queue.front(streams))
    }

    pub(super) fn pop(&mut self, streams: &mut Streams) -> Option<StreamHandle> {
        let at = self.levels.iter().position(|(_, queue)| !queue.is_empty())?;
        let handle = self.levels[at].1.pop(streams);
        self.trim(at);
        handle
    }

    /// Takes a stream out, whose priority must be that which it was queued with. Returns whether it waited.
    pub(super) fn remove(&mut self, streams: &mut Streams, handle: StreamHandle) -> bool {
        let Some(at) = self.level_of(streams, handle) else { return false };
        let waited = self.levels[at].1.remove(streams, handle);
        self.trim(at);
        waited
    }

    /// Puts `new`, which must not wait yet, in the place of `old`, of the same priority.
    pub(super) fn replace(&mut self, streams: &mut Streams, old: StreamHandle, new: StreamHandle) {
        if let Some(at) = self.level_of(streams, old) {
            self.levels[at].1.replace(streams, old, new);
        }
    }

    pub(super) fn clear(&mut self, streams: &mut Streams) {
        self.levels.iter_mut().for_each(|(_, queue)| queue.clear(streams));
        self.levels.clear();
    }

    fn level_of(&self, streams: &Streams, handle: StreamHandle) -> Option<usize> {
        let priority = streams.get(handle)?.priority;
        self.levels.binary_search_by(|(level, _)| priority.cmp(level)).ok()
    }

    fn trim(&mut self, at: usize) {
        if self.levels.len() > 1 && self.levels[at].1.is_empty() {
            self.levels.remove(at);
        }
    }
}

#[cfg(any(test, feature = "__test_exports"))]
impl Streams {
    pub(super) fn waits(&self, handle: StreamHandle, wait: Wait) -> bool {
        self.get(handle).is_some_and(|stream| stream.links.is_in(wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Dir, Side};

    fn streams(count: u64) -> (Streams, Vec<StreamHandle>) {
        let mut streams = Streams::default();
        let handles = (0..count).map(|index| {
            let stream = Stream::new(StreamId::new(Side::Client, Dir::Bi, index), None, None, None);
            streams.insert(Box::new(stream)).expect("there is room")
        });
        let handles = handles.collect();
        (streams, handles)
    }

    fn drain(queue: &mut SendQueue, streams: &mut Streams) -> Vec<u64> {
        std::iter::from_fn(|| queue.pop(streams)).map(|handle| handle.number).collect()
    }

    #[test]
    fn handle_of_a_stream_that_is_gone_names_no_other() {
        let (mut streams, handles) = streams(2);
        let id = streams.remove(handles[0]).expect("it is there").id;
        assert!(
            streams.get(handles[0]).is_none() && streams.remove(handles[0]).is_none() && streams.of_id(id).is_none()
        );
        let next = streams.insert(Box::new(Stream::new(id, None, None, None))).expect("there is room");
        assert!(next.place == handles[0].place && next != handles[0]);
        assert!(streams.get(handles[0]).is_none() && streams.of_id(id) == Some(next) && streams.len() == 2);
    }

    #[test]
    fn higher_priorities_go_first_and_equals_take_turns() {
        let (mut streams, handles) = streams(3);
        let mut queue = SendQueue::default();
        streams.get_mut(handles[1]).expect("it is there").priority = 5;
        handles.iter().chain(&handles).for_each(|handle| queue.push(&mut streams, *handle));
        assert_eq!(drain(&mut queue, &mut streams), [1, 0, 2]);
        assert!(queue.is_empty());
        handles.iter().for_each(|handle| queue.push(&mut streams, *handle));
        assert!(queue.remove(&mut streams, handles[1]) && !queue.remove(&mut streams, handles[1]));
        assert_eq!(queue.pop(&mut streams), Some(handles[0]));
        queue.push(&mut streams, handles[0]);
        assert_eq!(drain(&mut queue, &mut streams), [2, 0]);
    }

    #[test]
    fn stream_takes_the_place_of_another() {
        let (mut streams, handles) = streams(5);
        for (old, expected) in [(0, [4, 1, 2]), (1, [0, 4, 2]), (2, [0, 1, 4])] {
            let mut queue = SendQueue::default();
            handles[..3].iter().for_each(|handle| queue.push(&mut streams, *handle));
            queue.replace(&mut streams, handles[old], handles[4]);
            // One that does not wait has no place.
            queue.replace(&mut streams, handles[old], handles[3]);
            assert_eq!(drain(&mut queue, &mut streams), expected);
        }
        let mut queue = SendQueue::default();
        handles.iter().for_each(|handle| queue.push(&mut streams, *handle));
        queue.clear(&mut streams);
        assert!(queue.is_empty() && handles.iter().all(|handle| !streams.waits(*handle, Wait::Send)));
    }

    #[test]
    fn streams_leave_a_queue_from_any_place() {
        for gone in 0..3 {
            let (mut streams, handles) = streams(3);
            let mut queue = SendQueue::default();
            handles.iter().for_each(|handle| queue.push(&mut streams, *handle));
            queue.remove(&mut streams, handles[gone]);
            queue.push(&mut streams, handles[gone]);
            let mut expected: Vec<u64> = (0..3).filter(|number| *number != gone as u64).collect();
            expected.push(gone as u64);
            assert_eq!(drain(&mut queue, &mut streams), expected);
        }
    }
}
