//! A queue with priorities that is fair among equals.

use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Each key waits at most once. The highest priority is served first, and equals in the order they came.
#[derive(Debug)]
pub(crate) struct FairQueue<K> {
    order: BTreeMap<(Reverse<i32>, u64), K>,
    places: BTreeMap<K, (Reverse<i32>, u64)>,
    next: u64,
}

impl<K: Copy + Ord> FairQueue<K> {
    pub(crate) const fn new() -> Self {
        Self { order: BTreeMap::new(), places: BTreeMap::new(), next: 0 }
    }

    /// Puts a key behind its equals. A key that waits already keeps its place, unless its priority changed.
    pub(crate) fn push(&mut self, key: K, priority: i32) {
        let priority = Reverse(priority);
        match self.places.get(&key) {
            Some((current, _)) if *current == priority => return,
            Some(place) => self.order.remove(place),
            None => None,
        };
        let place = (priority, self.next);
        self.next += 1;
        self.order.insert(place, key);
        self.places.insert(key, place);
    }

    /// Takes the next key.
    pub(crate) fn pop(&mut self) -> Option<K> {
        let (_, key) = self.order.pop_first()?;
        self.places.remove(&key);
        Some(key)
    }

    /// Puts `new`, which must not wait yet, in the place of `old`.
    pub(crate) fn replace(&mut self, old: K, new: K) {
        if let Some(place) = self.places.remove(&old) {
            self.order.insert(place, new);
            self.places.insert(new, place);
        }
    }

    /// Takes a key out. Returns whether it waited.
    pub(crate) fn remove(&mut self, key: K) -> bool {
        let place = self.places.remove(&key);
        place.is_some_and(|place| self.order.remove(&place).is_some())
    }

    #[cfg(any(test, feature = "__test_exports"))]
    pub(crate) fn contains(&self, key: K) -> bool {
        self.places.contains_key(&key)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.order.clear();
        self.places.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn higher_priorities_go_first_and_equals_take_turns() {
        let mut queue = FairQueue::new();
        for (key, priority) in [(1, 0), (2, 5), (3, 0), (1, 0)] {
            queue.push(key, priority);
        }
        assert_eq!(queue.pop(), Some(2));
        assert_eq!(queue.pop(), Some(1));
        queue.push(1, 0);
        assert_eq!(queue.pop(), Some(3));
        assert_eq!(queue.pop(), Some(1));
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn a_key_takes_the_place_of_another() {
        let mut queue = FairQueue::new();
        (1..=3).for_each(|key| queue.push(key, 0));
        queue.replace(2, 4);
        queue.replace(9, 5);
        assert!(queue.contains(4) && !queue.contains(2) && !queue.contains(5));
        assert_eq!([queue.pop(), queue.pop(), queue.pop(), queue.pop()], [Some(1), Some(4), Some(3), None]);
    }

    #[test]
    fn a_changed_priority_moves_the_key() {
        let mut queue = FairQueue::new();
        queue.push(1, 0);
        queue.push(2, 0);
        queue.push(2, 1);
        assert!(!queue.remove(3));
        assert_eq!((queue.pop(), queue.pop(), queue.pop()), (Some(2), Some(1), None));
        assert!(queue.is_empty() && !queue.contains(1));
    }
}
