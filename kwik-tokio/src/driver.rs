//! The task that moves datagrams, time and events between a socket and the core.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::time::Sleep;

use crate::{
    endpoint::{Shared, now, unix_now},
    log::Log,
    udp::{Batch, Outgoing, ReceiveBuffer, UdpIo, Unreachable},
    waiters::{Wakes, contained},
};

/// Receive batches in one turn. Acknowledgements are small and many: with fewer batches they would come faster than a turn
/// takes them, and what a small session waits for would queue behind them in the kernel.
const RECEIVES_PER_TURN: usize = 64;
/// A turn that received so many bytes takes no further batch.
const RECEIVE_BYTES_PER_TURN: usize = 64 * 1024;
/// Sends in one turn; each may carry many datagrams.
const SENDS_PER_TURN: usize = 32;
/// A turn that sent so many bytes begins no further send, so that what arrives for a small session does not wait behind a
/// large one's backlog.
const SEND_BYTES_PER_TURN: usize = 64 * 1024;
/// Events in one turn.
const EVENTS_PER_TURN: usize = 1024;
/// While the socket is full the core's queue keeps its deadline in the past; timers, and a socket that cannot be read,
/// are then looked at this often.
const BLOCKED_TICK: Duration = Duration::from_millis(5);
/// The core hears of the wall clock when it is so far from what its own time tells.
const WALL_CLOCK_TOLERANCE: Duration = Duration::from_secs(1);

/// Whether a step has more to do at once.
#[derive(PartialEq, Eq)]
enum Step {
    Done,
    More,
    /// The socket takes or gives no datagram now; it wakes the task, or the next tick does.
    Blocked,
}

/// Drives one endpoint until it has no handle and nothing to send.
pub(crate) struct Driver {
    socket: UdpIo,
    /// What was bound before, for what is still on its way to it.
    previous: Option<UdpIo>,
    hears_unreachable: bool,
    /// Turns after which there was more to do at once.
    busy_turns: u64,
    timer: Pin<Box<Sleep>>,
    outgoing: Option<Outgoing>,
    send_buf: Vec<u8>,
    /// Both clocks, when the core last heard of them.
    clocks: (Instant, Duration),
    log: Log,
    // Dropped after the socket: when the end is told, the port is free.
    end: EndOfDriver,
}

impl Driver {
    /// Busy turns after which other sockets have theirs.
    const TURNS_PER_YIELD: u64 = 2;

    /// Starts the task. Must be called in a tokio runtime.
    pub(crate) fn spawn(socket: UdpIo, shared: Arc<Shared>) {
        let timer = Box::pin(tokio::time::sleep(Duration::ZERO));
        let (send_buf, clocks, log) = (Vec::new(), (now(), unix_now()), Log::new(shared.group.local_addr()));
        tokio::spawn(Self {
            socket,
            previous: None,
            hears_unreachable: false,
            busy_turns: 0,
            timer,
            outgoing: None,
            send_buf,
            clocks,
            log,
            end: EndOfDriver(shared, false),
        });
    }

    fn shared(&self) -> &Shared {
        &self.end.0
    }

    /// The wall clock may have been set, or have gone on while the machine slept. To be read before anything is received
    /// that is judged by it.
    fn read_wall_clock(&mut self, now: Instant) {
        let unix = unix_now();
        let (then, unix_then) = self.clocks;
        let expected = unix_then.saturating_add(now.saturating_duration_since(then));
        if unix.abs_diff(expected) > WALL_CLOCK_TOLERANCE {
            self.clocks = (now, unix);
            self.shared().lock().core.handle_wall_clock(now, unix);
        }
    }

    /// A socket that is dialled from hears of addresses that cannot be reached. One that only listens hears nothing of
    /// clients that are gone, which would cost it more than they are worth.
    fn tend_socket(&mut self, now: Instant, socket: Option<Box<UdpIo>>, dials: bool) {
        if let Some(socket) = socket {
            self.previous = Some(std::mem::replace(&mut self.socket, *socket));
            self.hears_unreachable = false;
            self.log.set_endpoint(self.end.0.group.local_addr());
            self.shared().lock().core.handle_rebind(now);
        }
        if dials && !self.hears_unreachable {
            self.hears_unreachable = true;
            self.socket.hear_unreachable();
        }
    }

    fn receive(&mut self, cx: &mut Context<'_>, now: &mut Instant) -> Step {
        let mut buf = ReceiveBuffer::take();
        let previous = self.receive_from_previous(cx, *now, &mut buf);
        match self.receive_from_socket(cx, now, &mut buf) {
            // The socket of before can be read further, whatever this one does.
            _ if previous == Step::More => previous,
            step => step,
        }
    }

    /// What arrives at the socket that was bound before, until something arrives at the new one.
    fn receive_from_previous(&mut self, cx: &mut Context<'_>, now: Instant, buf: &mut ReceiveBuffer) -> Step {
        let Some(previous) = &mut self.previous else { return Step::Done };
        match previous.poll_receive(cx, buf) {
            Poll::Pending => Step::Done,
            Poll::Ready(None) => {
                self.previous = None;
                Step::Done
            }
            Poll::Ready(Some(batch)) => {
                self.handle_batch(&batch, now);
                Step::More
            }
        }
    }

    fn receive_from_socket(&mut self, cx: &mut Context<'_>, now: &mut Instant, buf: &mut ReceiveBuffer) -> Step {
        let mut bytes = 0;
        for _ in 0..RECEIVES_PER_TURN {
            if bytes >= RECEIVE_BYTES_PER_TURN {
                break;
            }
            let batch = match self.socket.poll_receive(cx, buf) {
                Poll::Pending => return Step::Done,
                Poll::Ready(None) => return Step::Blocked,
                Poll::Ready(Some(batch)) => batch,
            };
            bytes += batch.bytes();
            self.handle_batch(&batch, *now);
            self.previous = None;
            // To handle it took time, and round trips are measured by it.
            *now = self::now();
        }
        Step::More
    }

    /// Hands datagrams to the core, and over to other workers what is theirs.
    fn handle_batch(&self, batch: &Batch<'_>, now: Instant) {
        let shared = self.shared();
        if !shared.group.is_shared() {
            shared.lock().core.handle_datagrams(now, batch.datagrams());
            return;
        }
        let mut strays = Vec::new();
        let own = batch.datagrams().filter(|(meta, datagram)| {
            let other = shared.group.other_owner(shared.index, datagram);
            strays.extend(other.map(|owner| (owner, *meta, *datagram)));
            other.is_none()
        });
        shared.lock().core.handle_datagrams(now, own);
        shared.group.hand_over(strays);
    }

    /// Takes what came to other workers for this one.
    fn receive_post(&self, cx: &Context<'_>, now: Instant) {
        let post = self.shared().group.take_post(self.shared().index, cx.waker());
        if post.has_datagrams() {
            self.shared().lock().core.handle_datagrams(now, post.datagrams());
        }
        if !post.unreachable.is_empty() {
            self.report_unreachable(&post.unreachable);
        }
    }

    /// Hears what the network says of what was sent.
    fn receive_errors(&mut self, cx: &mut Context<'_>) -> Step {
        match self.socket.poll_unreachable(cx) {
            Poll::Pending => Step::Done,
            Poll::Ready(unreachable) => {
                self.report_unreachable(&unreachable);
                self.shared().group.spread(self.shared().index, &unreachable);
                Step::More
            }
        }
    }

    fn report_unreachable(&self, addresses: &[Unreachable]) {
        let now = now();
        let mut state = self.shared().lock();
        for (address, why) in addresses {
            state.core.handle_unreachable(now, *address, why);
        }
    }

    fn fire_timeout(&self, now: Instant) {
        let mut state = self.shared().lock();
        if state.core.poll_timeout().is_some_and(|deadline| deadline <= now) {
            state.core.handle_timeout(now);
        }
    }

    fn send(&mut self, cx: &mut Context<'_>, mut now: Instant) -> Step {
        let mut bytes = 0;
        for _ in 0..SENDS_PER_TURN {
            if bytes >= SEND_BYTES_PER_TURN {
                break;
            }
            let Some(mut outgoing) = self.outgoing.take().or_else(|| self.next_outgoing(now)) else {
                return Step::Done;
            };
            match self.socket.poll_send(cx, &mut outgoing, &self.send_buf) {
                Poll::Pending => {
                    self.outgoing = Some(outgoing);
                    return Step::Blocked;
                }
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(unreachable)) => self.report_unreachable(&[unreachable]),
            }
            bytes += self.send_buf.len();
            // To send takes time, and round trips are measured by it.
            now = self::now();
        }
        Step::More
    }

    fn next_outgoing(&mut self, now: Instant) -> Option<Outgoing> {
        let segments_max = self.socket.segments_max();
        self.send_buf.clear();
        let mut state = self.end.0.lock();
        state.core.poll_transmit(now, segments_max, &mut self.send_buf).map(Outgoing::new)
    }

    fn deliver_events(&mut self) -> Step {
        let shared = &self.end.0;
        let mut wakes = Wakes::default();
        let (has_more, done) = {
            let mut state = shared.lock();
            let has_more = state.drain_events(EVENTS_PER_TURN, &mut wakes);
            (has_more, state.take_protocol_events())
        };
        wakes.fire();
        let log = &mut self.log;
        done.iter().for_each(|event| contained(|| log.emit(event)));
        if has_more { Step::More } else { Step::Done }
    }

    /// Whether nothing is left to do, ever, at any worker. Tells who waits for the last session.
    fn has_finished(&mut self) -> bool {
        let (is_idle, is_finished) = {
            let state = self.shared().lock();
            (state.is_idle(), state.is_finished())
        };
        if is_idle {
            self.previous = None;
            contained(|| self.shared().group.idle.notify_waiters());
        }
        if is_finished {
            self.end.note_finished();
        }
        is_finished && self.shared().group.is_finished()
    }

    /// Sleeps until the core's next deadline or a command.
    fn sleep(&mut self, cx: &mut Context<'_>, is_blocked: bool) -> Step {
        let now = now();
        let tick = now.checked_add(BLOCKED_TICK).filter(|_| is_blocked);
        let (deadline, replaced) = self.end.0.lock().park_driver(now, tick, cx.waker());
        drop(replaced);
        match deadline {
            None => Step::Done,
            Some(deadline) if deadline <= now => Step::More,
            Some(deadline) => self.poll_timer(cx, deadline),
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Step {
        let deadline = deadline.into();
        if self.timer.deadline() != deadline {
            self.timer.as_mut().reset(deadline);
        }
        if self.timer.as_mut().poll(cx).is_ready() { Step::More } else { Step::Done }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let (parked, socket, dials) = this.shared().lock().unpark_driver();
        drop(parked);
        let mut now = now();
        this.tend_socket(now, socket, dials);
        this.read_wall_clock(now);
        let heard = this.receive_errors(cx);
        this.receive_post(cx, now);
        let received = this.receive(cx, &mut now);
        this.fire_timeout(now);
        let sent = this.send(cx, now);
        let delivered = this.deliver_events();
        if sent == Step::Done && this.has_finished() {
            return Poll::Ready(());
        }
        // While it is to be polled again in any case, no command wakes it: see `yield_to_io`.
        let is_blocked = [&received, &sent].contains(&&Step::Blocked);
        let has_more = [heard, received, sent, delivered].contains(&Step::More);
        if has_more || this.sleep(cx, is_blocked) == Step::More {
            let parked = this.shared().lock().stay_awake();
            drop(parked);
            this.busy_turns += 1;
            // To yield is to wait behind every task that is ready, so not each time.
            if this.busy_turns.is_multiple_of(Self::TURNS_PER_YIELD) {
                yield_to_io(cx);
            } else {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }
}

/// Has the task polled again once the runtime looked for what sockets and timers bring. A task that merely wakes itself is
/// polled 61 times before that, and so is one that commands wake: other sockets, and what arrives at this one, would wait for
/// as many turns.
fn yield_to_io(cx: &mut Context<'_>) {
    // Its first poll does it, and is never ready.
    let _ = pin!(tokio::task::yield_now()).poll(cx);
}

/// Tells that the driver ended, and whether the other workers know already that it has nothing left to do.
struct EndOfDriver(Arc<Shared>, bool);

impl EndOfDriver {
    fn note_finished(&mut self) {
        if !std::mem::replace(&mut self.1, true) {
            self.0.group.on_finished();
        }
    }
}

impl Drop for EndOfDriver {
    fn drop(&mut self) {
        contained(|| self.note_finished());
        contained(|| self.0.on_driver_ended());
    }
}
