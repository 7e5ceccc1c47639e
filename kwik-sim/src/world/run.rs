//! How time passes: from one thing that happens to the next.

use std::cmp::{Ordering, Reverse};
use std::time::{Duration, Instant};

use kwik_core::Transmit;

use super::World;
use crate::app::Context;
use crate::node::{Arrival, NodeId};
use crate::trace::{Delivery, TraceKind};

/// Something that is due at a moment. The earliest is the greatest, as a heap wants it.
pub(super) struct Due<T> {
    at: Instant,
    seq: u64,
    what: T,
}

impl<T> Due<T> {
    fn key(&self) -> Reverse<(Instant, u64)> {
        Reverse((self.at, self.seq))
    }
}

impl<T> PartialEq for Due<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for Due<T> {}

impl<T> PartialOrd for Due<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Due<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl World {
    /// An endpoint or application that wants this many turns at one moment breaks its contract.
    const TURNS_MAX: u32 = 100_000;

    /// Runs until `done`, for at most `limit` of virtual time. Returns whether it is done. `done` is asked after every
    /// moment at which something happened, and at the end.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.clock.now() + limit;
        loop {
            self.settle();
            if done(self) {
                return true;
            }
            self.settle();
            match self.next_time() {
                Some(at) if at <= end => self.step(at),
                _ => {
                    self.clock.advance_to(end);
                    let is_done = done(self);
                    self.settle();
                    return is_done;
                }
            }
        }
    }

    /// Runs for a span of virtual time.
    pub fn run_for(&mut self, span: Duration) {
        self.run_until(span, |_| false);
    }

    /// When the next thing happens.
    fn next_time(&self) -> Option<Instant> {
        let arrival = self.arrivals.peek().map(|due| due.at);
        let disturbance = self.schedule.keys().next().map(|(at, _)| *at);
        let nodes = self.nodes.iter().filter_map(|node| node.next_time());
        // Samples alone do not keep a world going.
        let next = nodes.chain(arrival).chain(disturbance).min()?;
        Some(self.next_sample.map_or(next, |sample| sample.min(next)))
    }

    /// Lets happen all that is due at `at`: disturbances, then arrivals, then timers.
    fn step(&mut self, at: Instant) {
        self.clock.advance_to(at);
        let now = self.clock.now();
        while let Some(entry) = self.schedule.first_entry().filter(|entry| entry.key().0 <= now) {
            let disturbance = entry.remove();
            self.inject(disturbance);
        }
        self.resume(now);
        while self.arrivals.peek().is_some_and(|due| due.at <= now) {
            if let Some(due) = self.arrivals.pop() {
                self.arrive(now, *due.what);
            }
        }
        for node in &mut self.nodes {
            if node.runs(now) && node.deadline.is_some_and(|deadline| deadline <= now) {
                node.touched = true;
                if node.poll_timeout().is_some_and(|deadline| deadline <= now) {
                    node.handle_timeout(now);
                }
            }
        }
        if self.next_sample.is_some_and(|sample| sample <= now) {
            self.next_sample = self.config.sample_paths.map(|every| now + every);
            for id in self.nodes() {
                self.sample(id);
            }
        }
    }

    /// Ends pauses that are over: what waited in the socket is received first.
    pub(super) fn resume(&mut self, now: Instant) {
        for node in &mut self.nodes {
            if node.paused_until.is_none_or(|until| until > now) || node.crashed {
                continue;
            }
            node.paused_until = None;
            node.socket_bytes = 0;
            node.touched = true;
            while let Some(arrival) = node.socket.pop_front() {
                node.receive(now, &arrival);
            }
        }
    }

    fn arrive(&mut self, now: Instant, arrival: Arrival) {
        // Not so if the address changed meanwhile.
        let is_there = self.by_address.get(&arrival.to_address) == Some(&(arrival.to, arrival.interface));
        let node = &mut self.nodes[arrival.to.0];
        if node.crashed || !is_there {
            return;
        }
        let (to, bytes) = (arrival.to, arrival.data.len());
        let kind = TraceKind::Arrived { from: arrival.from, bytes };
        if let Some(counts) = &mut self.amplification {
            counts.on_received(to, arrival.from, &arrival.data);
        }
        if node.runs(now) {
            node.receive(now, &arrival);
            self.spare.push(arrival.data);
        } else if node.socket_bytes + bytes <= self.config.socket_buffer_bytes {
            node.socket_bytes += bytes;
            node.socket.push_back(arrival);
        } else {
            self.record(to, TraceKind::Note { text: format!("no room in the socket for {bytes} bytes") });
            return;
        }
        self.record(to, kind);
    }

    /// Drains every endpoint that was touched, until nothing is queued at this moment.
    fn settle(&mut self) {
        let now = self.clock.now();
        for index in 0..self.nodes.len() {
            let node = &self.nodes[index];
            if node.touched && node.runs(now) {
                self.settle_node(NodeId(index), now);
            }
        }
    }

    fn settle_node(&mut self, id: NodeId, now: Instant) {
        let mut turns = 0;
        let mut just_ran = false;
        loop {
            turns += 1;
            assert!(turns < Self::TURNS_MAX, "{id} never comes to rest");
            self.drain_transmits(id, now);
            // Before the application can let go of a session.
            self.observe(id);
            if self.drain_events(id, now) {
                just_ran = false;
                continue;
            }
            let node = &mut self.nodes[id.0];
            let deadline = node.poll_timeout();
            if deadline.is_none_or(|at| at > now) {
                node.deadline = [deadline, node.wake_at].into_iter().flatten().min();
                node.touched = false;
                return;
            }
            assert!(!just_ran, "{id} wants to run again at the moment it just ran");
            just_ran = true;
            node.handle_timeout(now);
        }
    }

    fn drain_transmits(&mut self, id: NodeId, now: Instant) {
        let mut buf = std::mem::take(&mut self.buf);
        loop {
            buf.clear();
            let Some(transmit) = self.nodes[id.0].poll_transmit(now, &mut buf) else { break };
            let segment = transmit.segment_size.unwrap_or(transmit.size).max(1);
            for data in buf[..transmit.size].chunks(segment) {
                self.send(id, now, &transmit, data);
            }
        }
        self.buf = buf;
    }

    /// Brings events to the application, if there is one. Returns whether it acted.
    fn drain_events(&mut self, id: NodeId, now: Instant) -> bool {
        let elapsed = self.clock.elapsed();
        let node = &mut self.nodes[id.0];
        while let Some((session, event)) = node.endpoint.poll_event() {
            let kind = TraceKind::Session { session: session.index(), text: format!("{event:?}") };
            self.trace.push(elapsed, id, kind);
            node.remember(&event);
            node.sessions.insert(session);
            node.events.push_back((session, event));
        }
        node.take_protocol_events();
        let Some(app) = &mut node.app else { return false };
        let mut acted = std::mem::take(&mut node.app_begins);
        if acted {
            app.on_start(&mut Context::new(now, &mut node.endpoint, &mut node.wake_at));
        }
        while let Some((session, event)) = node.events.pop_front() {
            acted = true;
            app.on_event(&mut Context::new(now, &mut node.endpoint, &mut node.wake_at), session, event);
        }
        if node.wake_at.is_some_and(|at| at <= now) {
            acted = true;
            node.wake_at = None;
            app.on_wake(&mut Context::new(now, &mut node.endpoint, &mut node.wake_at));
        }
        acted
    }

    fn send(&mut self, from: NodeId, now: Instant, transmit: &Transmit, data: &[u8]) {
        let destination = transmit.destination;
        let Some((to, interface)) = self.by_address.get(&destination).copied() else {
            self.record(
                from,
                TraceKind::Note { text: format!("{} bytes to {destination}, where nobody is", data.len()) },
            );
            return;
        };
        let node = &self.nodes[from.0];
        let fits = |local: std::net::SocketAddr| match transmit.src_ip {
            Some(ip) => local.ip() == ip,
            None => local.is_ipv4() == destination.is_ipv4(),
        };
        let (after, first) = node.interfaces.split_at(node.preferred);
        let Some(own) = first.iter().chain(after).find(|own| fits(own.local)).copied() else {
            self.record(from, TraceKind::Note { text: format!("no way to {destination} from here") });
            return;
        };
        let bytes = data.len();
        if node.send_errors_until.is_some_and(|until| now < until) {
            self.record(from, TraceKind::Sent { to, bytes, delivery: Delivery::SendError });
            return;
        }
        if let Some(counts) = &mut self.amplification {
            counts.on_sent(from, to, bytes);
        }
        let port = self.nodes[to.0].interfaces[interface].port;
        let passage = self.wire(own.port, port).send(now, bytes, transmit.ecn);
        self.record(from, TraceKind::Sent { to, bytes, delivery: passage.delivery });
        let Some(at) = passage.at else { return };
        let arrival = |data: Vec<u8>| Arrival {
            from,
            from_address: own.outward,
            to,
            interface,
            to_address: destination,
            ecn: passage.ecn,
            data,
        };
        let mut copy = self.spare.pop().unwrap_or_default();
        copy.clear();
        copy.extend_from_slice(data);
        if passage.delivery == Delivery::Corrupted {
            self.corrupt(&mut copy);
        }
        self.queue(at, arrival(copy));
        if let Some(again) = passage.again {
            self.record(from, TraceKind::Sent { to, bytes, delivery: Delivery::Duplicate });
            self.queue(again, arrival(data.to_vec()));
        }
    }

    fn queue(&mut self, at: Instant, arrival: Arrival) {
        let past = at.duration_since(self.clock.start()).as_nanos();
        let wait = match self.config.receive_every.as_nanos() {
            0 => 0,
            every => (every - past % every) % every,
        };
        let at = at + Duration::from_nanos(u64::try_from(wait).unwrap_or(0));
        self.queued += 1;
        self.arrivals.push(Due { at, seq: self.queued, what: Box::new(arrival) });
    }

    /// Flips one to eight bits.
    fn corrupt(&mut self, data: &mut [u8]) {
        for _ in 0..=self.rng.below(8) {
            let bit = self.rng.index(data.len() * 8);
            if let Some(byte) = data.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }
}
